"""The profile fit as a model: a card, a device, and what it says of blends and of pairs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from deblend_batch.errors import ModelError
from deblend_batch.field.psf.profile import is_seeing
from deblend_batch.models.arguments import check_arrays, check_batch_size, check_rows, check_stamps
from deblend_batch.models.batches import CPU_ROWS, CUDA_ROWS
from deblend_batch.models.card import ModelCard
from deblend_batch.models.device import open_device
from deblend_batch.models.networks.architectures import parse_config
from deblend_batch.models.prediction import Prediction, outside, to_kind, to_numpy
from deblend_batch.models.profile_fit.fit import fit_blends
from deblend_batch.models.profile_fit.light.psf import PsfMixture, PsfStack, psf_of_width
from deblend_batch.models.profile_fit.result import BlendFit
from deblend_batch.models.profile_fit.search.config import FitConfig
from deblend_batch.models.profile_fit.search.residual import MASK_SIGMA
from deblend_batch.models.staging import Array

_NOISE_OF_MAD = 1.4826
_WIDTH_STEP = 0.01


class ProfileFit:
    """Sersic profiles and point sources, fitted to all members and bands of a blend together.

    Parameters
    ----------
    card : ModelCard
        What it is; its ``network`` holds the fields of
        :class:`~deblend_batch.models.profile_fit.search.config.FitConfig`.
    device : str
        Torch device.
    """

    def __init__(self, card: ModelCard, device: str = "cpu") -> None:
        self.card = card
        self.device = open_device(device)
        self.config = parse_config(FitConfig, card.network, card.name)

    @property
    def default_batch_size(self) -> int:
        """Number of blends that are fitted together where the caller does not say."""
        return CUDA_ROWS if self.device.type == "cuda" else CPU_ROWS

    def fit(
        self,
        pixels: NDArray[np.floating],
        weights: NDArray[np.floating],
        positions_yx: NDArray[np.floating],
        n_members: NDArray[np.integer[Any]],
        psf: PsfStack | tuple[NDArray[np.floating], ...],
        pixel_scale_arcsec: NDArray[np.floating] | float,
        njy_per_unit: NDArray[np.floating] | float = 1.0,
        *,
        n_measured: NDArray[np.integer[Any]] | None = None,
        with_models: bool = False,
    ) -> BlendFit:
        """Fit blends; see :func:`deblend_batch.models.profile_fit.fit.fit_blends`.

        Parameters
        ----------
        pixels, weights : ndarray of float, shape (n, band, y, x)
            Stamps, any linear unit, and their inverse variance: 0 where there is no data.
        positions_yx : ndarray of float, shape (n, member, 2)
            Detected positions, px.
        n_members : ndarray of int, shape (n,)
            Members of each blend.
        psf : PsfStack or tuple of three ndarray
            PSF of each blend and band: weights (n, band, component), covariances (n, band, component, 3),
            errors (n, band).
        pixel_scale_arcsec : ndarray of float, shape (n,), or float
            Size of a pixel.
        njy_per_unit : ndarray of float, shape (n, band), or float
            nJy of one unit of the pixels.
        n_measured : ndarray of int, shape (n,), optional
            How many members are measured, the first ones; by default all are.
        with_models : bool
            Whether to return the members' images.

        Returns
        -------
        BlendFit
            In the host's memory.
        """
        with torch.inference_mode():
            return fit_blends(
                self._there(pixels),
                self._there(weights),
                self._there(positions_yx, torch.float64),
                self.config.position_err_px,
                self._there(n_members, torch.int64),
                PsfStack(*(self._there(each, torch.float64) for each in psf)),
                self._there(pixel_scale_arcsec, torch.float64),
                self._there(njy_per_unit, torch.float64),
                config=self.config,
                with_models=with_models,
                n_measured=None if n_measured is None else self._there(n_measured, torch.int64),
            ).cpu()

    def predict(
        self,
        stamps: Array,
        companion_yx: Array,
        central_yx: Array | None = None,
        neighbours_yx: Array | None = None,
        sigma: Array | None = None,
        batch_size: int | None = None,
        *,
        psf: float | NDArray[np.floating] | PsfMixture | Sequence[PsfMixture] | None = None,
        pixel_scale_arcsec: float = 0.2,
        njy_per_unit: float = 1.0,
    ) -> Prediction:
        """Predict the fluxes, their errors and the masks of pairs, as networks do.

        Parameters
        ----------
        stamps : array of shape (n, y, x)
            Stamps in any linear unit, background subtracted; NumPy or torch. A pixel that is exactly 0 or not
            finite has no data.
        companion_yx : array of shape (n, 2)
            Companions' positions in the stamps, px.
        central_yx : array of shape (n, 2), optional
            Centrals' positions, px; by default the pixel ``size // 2`` on both axes.
        neighbours_yx : array of shape (n, k, 2), optional
            Positions of third sources, px, NaN-padded: those in the stamp are fitted, too.
        sigma : array of shape (n,), optional
            Background rms per pixel, unit of the stamps; measured on each stamp if not given.
        batch_size : int, optional
            Stamps that are fitted together; changes no bit of the result on a CPU.
        psf : float, ndarray of float, PsfMixture or sequence of PsfMixture
            The PSF of all stamps, or of each: its full width at half maximum in px (to a per cent), or a
            mixture.
        pixel_scale_arcsec, njy_per_unit : float
            Size of a pixel and nJy of one unit of the stamps, for the priors.

        Returns
        -------
        Prediction
            One row per stamp.

        Raises
        ------
        ModelError
            If an argument is no array, or its shape or dtype is wrong, or there is no PSF.
        """
        optional = {"central_yx": central_yx, "neighbours_yx": neighbours_yx, "sigma": sigma}
        check_arrays({"stamps": stamps, "companion_yx": companion_yx}, optional)
        size = int(stamps.shape[-1]) if stamps.ndim else 0
        n = check_stamps(stamps, size)
        if central_yx is None:
            central_yx = np.full((n, 2), size // 2, np.float32)
        arrays = {"stamps": stamps, "central_yx": central_yx, "companion_yx": companion_yx}
        given = {name: rows for name, rows in optional.items() if rows is not None}
        check_rows({**arrays, **given}, n)
        rows_at_once = (
            self.default_batch_size if batch_size is None else check_batch_size(batch_size)
        )
        pixels = to_numpy(stamps)
        noise = _noise(pixels) if sigma is None else to_numpy(sigma)
        positions, n_members = _members(
            to_numpy(central_yx),
            to_numpy(companion_yx),
            None if neighbours_yx is None else to_numpy(neighbours_yx),
            size,
        )
        stack = PsfStack.of([[each] for each in _mixtures(psf, n, pixel_scale_arcsec)])
        parts = []
        for start in range(0, n, rows_at_once):
            rows = slice(start, start + rows_at_once)
            usable = np.isfinite(pixels[rows]) & (pixels[rows] != 0)
            weights = np.where(usable, (noise[rows, None, None] ** -2.0), 0.0).astype(np.float32)
            fit = self.fit(
                pixels[rows, None].astype(np.float32),
                weights[:, None],
                positions[rows],
                n_members[rows],
                stack.rows(rows),
                pixel_scale_arcsec,
                njy_per_unit,
                with_models=True,
            )
            parts.append(_prediction(fit, noise[rows]))
        found = [np.concatenate(each) for each in zip(*parts, strict=True)] if parts else None
        flux, flux_err, masks = found or _nothing(size)
        for member, yx in enumerate((central_yx, companion_yx)):
            lost = outside(to_numpy(yx), size)
            flux[lost, member] = flux_err[lost, member] = np.nan
        return to_kind(Prediction(flux, flux_err, masks), stamps)

    def _there(self, values: Any, dtype: torch.dtype = torch.float32) -> Tensor:
        return torch.as_tensor(np.asarray(values)).to(self.device, dtype)


def _members(
    central: NDArray[Any], companion: NDArray[Any], others: NDArray[Any] | None, size: int
) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Put the pair first and third sources in the stamp behind it; positions outside are its middle."""
    pair = np.stack([central, companion], axis=1).astype(np.float64)
    lost = ~np.isfinite(pair).all(axis=2, keepdims=True)
    pair = np.where(lost, size / 2, pair)
    if others is None or not others.shape[1]:
        return pair, np.full(len(pair), 2)
    inside = ((others >= -0.5) & (others <= size - 0.5)).all(axis=2)
    order = np.argsort(~inside, axis=1, kind="stable")
    packed = np.take_along_axis(others, order[..., None], axis=1)
    return np.concatenate([pair, packed], axis=1), 2 + inside.sum(axis=1)


def _mixtures(
    psf: float | NDArray[np.floating] | PsfMixture | Sequence[PsfMixture] | None,
    n: int,
    pixel_scale_arcsec: float,
) -> Sequence[PsfMixture]:
    if psf is None:
        raise ModelError(
            "psf: a fit needs the PSF; give its full width at half maximum in px, or a PsfMixture"
        )
    if isinstance(psf, PsfMixture):
        return [psf] * n
    if isinstance(psf, int | float):
        return [_of_width(float(psf), pixel_scale_arcsec)] * n
    if len(psf) == n and isinstance(psf, np.ndarray):
        # Fitting a mixture takes a while, and widths that differ by less make no difference.
        steps = np.round(np.log(psf.astype(np.float64)) / _WIDTH_STEP)
        known = {
            step: _of_width(float(np.exp(step * _WIDTH_STEP)), pixel_scale_arcsec)
            for step in np.unique(steps).tolist()
        }
        return [known[step] for step in steps.tolist()]
    if len(psf) != n:
        raise ModelError(f"psf: {len(psf)} mixtures for {n} stamps; give one, or one for each")
    return list(psf)


def _of_width(fwhm_px: float, pixel_scale_arcsec: float) -> PsfMixture:
    seeing = is_seeing(fwhm_px, pixel_scale_arcsec)
    return psf_of_width(fwhm_px, "seeing" if seeing else "diffraction")


def _noise(pixels: NDArray[Any]) -> NDArray[np.float64]:
    """Background rms of each stamp, from the median of the values below the median."""
    flat = pixels.reshape(len(pixels), -1).astype(np.float64)
    flat = np.where(np.isfinite(flat) & (flat != 0), flat, np.nan)
    flat[np.isnan(flat).all(axis=1)] = 1.0
    middle = np.nanmedian(flat, axis=1, keepdims=True)
    below = np.where(flat <= middle, middle - flat, np.nan)
    rms = _NOISE_OF_MAD * np.nanmedian(below, axis=1)
    return np.where(rms > 0, rms, 1.0)


def _prediction(
    fit: BlendFit, noise: NDArray[Any]
) -> tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.float32]]:
    """Fluxes and errors of the pair, and masks: where a member alone stands out of the noise."""
    assert fit.models is not None
    shown = (fit.models[:, 0, :2].numpy() > MASK_SIGMA * noise[:, None, None, None]).astype(
        np.float32
    )
    both = shown[:, :1] * shown[:, 1:]
    masks = np.concatenate([both, shown], axis=1)
    flux, flux_err = (each[:, 0, :2].float().numpy() for each in (fit.flux, fit.flux_err))
    return flux.copy(), flux_err.copy(), masks


def _nothing(size: int) -> list[NDArray[np.float32]]:
    return [
        np.empty((0, 2), np.float32),
        np.empty((0, 2), np.float32),
        np.empty((0, 3, size, size), np.float32),
    ]
