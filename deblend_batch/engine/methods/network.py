"""Networks measure pairs, each band by itself, on stamps round the central."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from deblend_batch import flags
from deblend_batch.catalog.masks import quantise
from deblend_batch.engine.methods.method import Arrays, joined
from deblend_batch.field.layout import Field
from deblend_batch.models.card import Domain, ModelCard
from deblend_batch.tiling.blends import MAX_OTHERS
from deblend_batch.tiling.stamps import Cut, Stamps

_MASK_THRESHOLD = 0.5


class PredictionLike(Protocol):
    """What a network returns: see :class:`deblend_batch.models.model.Prediction`."""

    @property
    def flux(self) -> NDArray[np.float32]:
        """Fluxes of central and companion, shape (n, 2)."""

    @property
    def flux_err(self) -> NDArray[np.float32]:
        """One-sigma errors, shape (n, 2)."""

    @property
    def masks(self) -> NDArray[np.float32] | None:
        """Probabilities, shape (n, 3, y, x), or None."""


class NetworkLike(Protocol):
    """What is needed of a network: see :class:`deblend_batch.models.Model`."""

    card: ModelCard

    @property
    def default_batch_size(self) -> int:
        """Stamps in a batch where nobody says."""

    def predict(
        self,
        stamps: NDArray[np.float32],
        companion_yx: NDArray[np.float32],
        central_yx: NDArray[np.float32] | None = None,
        neighbours_yx: NDArray[np.float32] | None = None,
        sigma: NDArray[np.float32] | None = None,
        batch_size: int | None = None,
    ) -> PredictionLike:
        """Measure a batch."""


class NetworkMethod:
    """Measures pairs with a network: a row is a stamp of one band.

    Parameters
    ----------
    network : NetworkLike
        The network.
    keep_masks : bool
        Whether the masks of the first band are kept.
    """

    batches = 2

    def __init__(self, network: NetworkLike, *, keep_masks: bool) -> None:
        self._network = network
        self._domain: Domain | None = network.card.domain
        self._keep_masks = keep_masks

    @property
    def default_rows(self) -> int:
        """Stamps that the network computes together."""
        return int(self._network.default_batch_size)

    def given(self, stamps: Stamps, field: Field) -> Arrays:  # noqa: ARG002  # others need it
        """Lay the bands of each stamp out as rows; bands vary fastest."""
        n, bands = stamps.pixels.shape[:2]
        cut = stamps.cut
        return {
            "pixels": stamps.pixels.reshape(n * bands, *stamps.pixels.shape[2:]),
            "companion_yx": np.repeat(cut.members_yx[:, 1], bands, axis=0),
            "central_yx": np.repeat(cut.members_yx[:, 0], bands, axis=0),
            "neighbours_yx": np.repeat(cut.others_yx, bands, axis=0),
            "sigma": cut.sigma.ravel(),
        }

    def answer(self, given: Arrays, rows_at_once: int) -> Arrays:
        """Run the network."""
        found = self._network.predict(
            given["pixels"],
            given["companion_yx"],
            given["central_yx"],
            given["neighbours_yx"],
            given["sigma"],
            rows_at_once,
        )
        answer = {"flux": found.flux, "flux_err": found.flux_err}
        return answer if found.masks is None else {**answer, "masks": found.masks}

    def measured(
        self, cut: Cut, answers: Sequence[Arrays], field: Field
    ) -> dict[str, NDArray[Any]]:
        """Put the bands of pairs together, and keep little of their masks: in full they take gigabytes."""
        found, bands = joined(answers), field.n_bands
        flux, flux_err = (found[name].reshape(-1, bands, 2) for name in ("flux", "flux_err"))
        outside = (cut.flags & flags.COMPANION_OUTSIDE.value)[:, 0] != 0
        if outside.any():
            flux, flux_err = flux.copy(), flux_err.copy()
            flux[outside, :, 1] = flux_err[outside, :, 1] = np.nan
        area = np.full((len(cut), 3), np.nan, np.float32)
        columns: dict[str, NDArray[Any]] = {}
        if "masks" in found:
            masks = found["masks"][::bands]
            area = (masks > _MASK_THRESHOLD).sum(axis=(2, 3)).astype(np.float32)
            if self._keep_masks:
                columns["masks"] = quantise(masks)
        return columns | {
            "flux": flux,
            "flux_err": flux_err,
            "mask_area": area[:, 1:],
            "mask_overlap": np.repeat(area[:, :1], 2, axis=1),
            "flags": cut.flags | self._domain_flags(cut, flux, field),
        }

    def _domain_flags(self, cut: Cut, flux: NDArray[np.float32], field: Field) -> NDArray[np.int32]:
        if self._domain is None:
            return np.zeros(cut.flags.shape, np.int32)
        separation_px = np.linalg.norm(cut.blends.yx[:, 0] - cut.blends.yx[:, 1], axis=1)
        return domain_flags(flux, separation_px, cut.sigma, field.psf_fwhm_px, self._domain)

    def needed_sizes(self, cut: Cut, columns: Arrays) -> NDArray[np.int16]:  # noqa: ARG002  # as above
        """Return the sizes that they had: a network has one."""
        return cut.blends.stamp_size

    def largest(self, rows: int) -> Arrays:
        """Return rows as they all are."""
        return self.typical(rows)

    def typical(self, rows: int) -> Arrays:
        """Return rows of noise."""
        size = self._network.card.stamp_size
        noise = np.random.default_rng(0).normal(1, 1, (rows, size, size))
        return {
            "pixels": noise.astype(np.float32),
            "companion_yx": np.full((rows, 2), size / 2 + 8, np.float32),
            "central_yx": np.full((rows, 2), size / 2, np.float32),
            "neighbours_yx": np.full((rows, MAX_OTHERS, 2), np.nan, np.float32),
            "sigma": np.ones(rows, np.float32),
        }


def domain_flags(
    flux: NDArray[np.float32],
    separation_px: NDArray[np.float64],
    sigma: NDArray[np.float32],
    psf_fwhm_px: Sequence[float],
    domain: Domain,
) -> NDArray[np.int32]:
    """Flag what lies outside the network's training.

    Parameters
    ----------
    flux : ndarray of float32, shape (n, band, 2)
        What the network said of some pairs, image units.
    separation_px : ndarray of float64, shape (n,)
        Their separations, px.
    sigma : ndarray of float32, shape (n, band)
        Background rms per pixel, image units.
    psf_fwhm_px : sequence of float
        The field's PSF per band, px.
    domain : Domain
        The ranges on the model's card.

    Returns
    -------
    ndarray of int32, shape (n, 2)
        ``OUT_OF_DOMAIN`` where it applies, else 0.
    """
    low, high = domain.separation_px
    out = (separation_px < low) | (separation_px > high)
    low, high = domain.snr
    with np.errstate(invalid="ignore", divide="ignore"):
        snr = flux.min(axis=2) / sigma
    out |= ((snr < low) | (snr > high)).any(axis=1)
    low, high = domain.psf_fwhm_px
    out |= any(not low <= fwhm <= high for fwhm in psf_fwhm_px)
    return np.repeat(flags.OUT_OF_DOMAIN.where(out)[:, None], 2, axis=1)
