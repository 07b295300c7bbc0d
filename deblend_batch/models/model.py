"""A model: stamps and positions in, fluxes, errors and masks out."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from deblend_batch.models.arguments import check_arrays, check_batch_size, check_rows, check_stamps
from deblend_batch.models.batches import CPU_ROWS, CUDA_ROWS, LEAST_ROWS
from deblend_batch.models.card import ModelCard
from deblend_batch.models.device import open_device
from deblend_batch.models.loading import load_network
from deblend_batch.models.networks.architectures import parse_config
from deblend_batch.models.networks.estimate import estimate
from deblend_batch.models.networks.interface import Estimate
from deblend_batch.models.networks.preprocess import PreprocessConfig, prepare
from deblend_batch.models.prediction import Prediction, outside, to_kind, to_numpy
from deblend_batch.models.staging import Array, Staging
from deblend_batch.models.uncertainty import ErrorModel, Evidence, crowding
from deblend_batch.models.weights import WeightsFile


class Model:
    """A network with its weights, its card and its device.

    Parameters
    ----------
    card : ModelCard
        What it is.
    network : torch.nn.Module
        The network, weights loaded.
    device : torch.device
        Where it runs.
    """

    def __init__(self, card: ModelCard, network: nn.Module, device: torch.device) -> None:
        self.card = card
        self.device = device
        self.network = network.to(device, memory_format=torch.channels_last).eval()  # type: ignore[call-overload]
        self._preprocess = parse_config(PreprocessConfig, card.preprocess, card.name)
        self._errors = (
            parse_config(ErrorModel, card.uncertainty, card.name) if card.uncertainty else None
        )

    @classmethod
    def from_weights(cls, weights: WeightsFile, where: str, device: str = "cpu") -> Model:
        """Build a model from a weights file.

        Parameters
        ----------
        weights : WeightsFile
            The file's content.
        where : str
            Its URL, for messages.
        device : str
            Torch device.

        Returns
        -------
        Model
            Ready to predict.

        Raises
        ------
        ModelError
            If the tensors are not those of the card's architecture, or not finite, or the device
            cannot be used.
        """
        return cls(weights.card, load_network(weights, where), open_device(device))

    @property
    def default_batch_size(self) -> int:
        """Number of stamps in a batch where the caller does not say: 64 on a CPU, 1024 on a GPU."""
        return CUDA_ROWS if self.device.type == "cuda" else CPU_ROWS

    def predict(
        self,
        stamps: Array,
        companion_yx: Array,
        central_yx: Array | None = None,
        neighbours_yx: Array | None = None,
        sigma: Array | None = None,
        batch_size: int | None = None,
    ) -> Prediction:
        """Predict the fluxes, their errors and the masks of pairs.

        A row's result does not depend on the other rows. Fluxes scale with the stamps: by a power
        of two to the bit, by another factor to float32 rounding.

        Parameters
        ----------
        stamps : array of shape (n, y, x)
            Stamps of the card's size in any linear unit, background subtracted, bad pixels 0; NumPy
            or torch.
        companion_yx : array of shape (n, 2)
            Companions' positions in the stamps, px.
        central_yx : array of shape (n, 2), optional
            Centrals' positions, px; by default the pixel ``size // 2`` on both axes.
        neighbours_yx : array of shape (n, k, 2), optional
            Positions of third sources, px, NaN-padded; pixels nearer to them than to both members
            are blanked.
        sigma : array of shape (n,), optional
            Background rms per pixel, unit of the stamps; without it the errors are those of typical
            noise.
        batch_size : int, optional
            Rows per batch, rounded up to a multiple of 16; 64 on a CPU and 1024 on a GPU if not given. On
            a CPU it changes no bit of the result.

        Returns
        -------
        Prediction
            One row per stamp.

        Raises
        ------
        ModelError
            If an argument is no array, or its shape or dtype is wrong.
        """
        size = self.card.stamp_size
        optional = {"central_yx": central_yx, "neighbours_yx": neighbours_yx, "sigma": sigma}
        check_arrays({"stamps": stamps, "companion_yx": companion_yx}, optional)
        n = check_stamps(stamps, size)
        if central_yx is None:
            central_yx = np.full((n, 2), size // 2, np.float32)
        arrays = {"stamps": stamps, "central_yx": central_yx, "companion_yx": companion_yx}
        if neighbours_yx is not None and neighbours_yx.shape[1:2] != (0,):
            arrays["neighbours_yx"] = neighbours_yx
        check_rows(arrays if sigma is None else {**arrays, "sigma": sigma}, n)
        batch_size = self.default_batch_size if batch_size is None else check_batch_size(batch_size)
        batch_size = -(-batch_size // LEAST_ROWS) * LEAST_ROWS
        flux, hints, masks = self._run(Staging(arrays, batch_size, self.device), n)
        central, companion = (to_numpy(yx).astype(np.float64) for yx in (central_yx, companion_yx))
        evidence = Evidence(
            flux=flux,
            separation_px=np.hypot(*(companion - central).T),
            crowding=crowding(central, companion, _numpy_or_none(neighbours_yx)),
            hints=hints,
            sigma=_numpy_or_none(sigma),
        )
        flux_err = (
            np.full_like(flux, np.nan) if self._errors is None else self._errors.flux_err(evidence)
        )
        lost = np.stack([outside(yx, size) for yx in (central, companion)], axis=1)
        flux[lost] = flux_err[lost] = np.nan
        return to_kind(Prediction(flux, flux_err, masks), stamps)

    def _run(
        self, batches: Staging, n: int
    ) -> tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.float32] | None]:
        size = self.card.stamp_size
        flux, hints = np.empty((n, 2), np.float32), np.empty((n, 2), np.float32)
        masks = np.empty((n, 3, size, size), np.float32) if self.card.has_masks else None
        # Results are fetched one batch late, so that a GPU computes while the next batch is filled.
        for rows, result in _one_late((rows, self._forward(batch)) for rows, batch in batches):
            length = rows.stop - rows.start
            flux[rows] = result.flux[:length].cpu().numpy()
            hints[rows] = result.hints[:length].cpu().numpy()
            if masks is not None and result.masks is not None:
                masks[rows] = result.masks[:length].cpu().numpy()
        return flux, hints, masks

    @torch.inference_mode()
    def _forward(self, batch: dict[str, Tensor]) -> Estimate:
        inputs = prepare(
            batch["stamps"],
            batch["central_yx"],
            batch["companion_yx"],
            batch.get("neighbours_yx"),
            self._preprocess,
        )
        with self._precision():
            return estimate(self.network, inputs)

    def _precision(self) -> contextlib.AbstractContextManager[Any]:
        # Never on a CPU: without hardware for it bfloat16 is 20 times slower there.
        if self.device.type == "cuda":
            return torch.autocast("cuda", torch.bfloat16)
        return contextlib.nullcontext()


def _one_late(
    results: Iterator[tuple[slice, Estimate]],
) -> Iterator[tuple[slice, Estimate]]:
    before: tuple[slice, Estimate] | None = None
    for result in results:
        if before is not None:
            yield before
        before = result
    if before is not None:
        yield before


def _numpy_or_none(rows: Array | None) -> NDArray[Any] | None:
    return None if rows is None else to_numpy(rows)
