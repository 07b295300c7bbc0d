"""From a model's predictions to the measurement of a tile: masks to areas, domain to flags."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from deblend_batch import flags
from deblend_batch.catalog.masks import quantise
from deblend_batch.catalog.shard import Measurement
from deblend_batch.engine.batching.batcher import PredictionLike
from deblend_batch.models.card import Domain

_MASK_THRESHOLD = 0.5


@dataclass(frozen=True)
class Part:
    """What the model said of some pairs, less the masks' probabilities that nobody needs.

    Parameters
    ----------
    flux, flux_err : ndarray of float32, shape (n, band, 2)
        Of [central, companion], image units.
    area : ndarray of float32, shape (n, 3)
        Square pixels of [overlap, central, companion] in the first band; NaN for models without masks.
    masks : ndarray of uint8, shape (n, 3, y, x), or None
        Quantised masks of the first band, where they are kept.
    """

    flux: NDArray[np.float32]
    flux_err: NDArray[np.float32]
    area: NDArray[np.float32]
    masks: NDArray[np.uint8] | None


def reduce(predictions: Sequence[PredictionLike], n_bands: int, *, keep_masks: bool) -> Part:
    """Put the predictions of some pairs together, band by band, and keep little of their masks."""
    flux = np.concatenate([each.flux for each in predictions]).reshape(-1, n_bands, 2)
    flux_err = np.concatenate([each.flux_err for each in predictions]).reshape(-1, n_bands, 2)
    some = [each.masks for each in predictions if each.masks is not None]
    if not some:
        return Part(flux, flux_err, np.full((len(flux), 3), np.nan, np.float32), None)
    masks = (some[0] if len(some) == 1 else np.concatenate(some))[::n_bands]
    area = (masks > _MASK_THRESHOLD).sum(axis=(2, 3)).astype(np.float32)
    return Part(flux, flux_err, area, quantise(masks) if keep_masks else None)


def measurement(stamps_flags: NDArray[np.int32], parts: Sequence[Part]) -> Measurement:
    """Put the parts of a tile together.

    Parameters
    ----------
    stamps_flags : ndarray of int32, shape (n, 2)
        Flags from cutting.
    parts : sequence of Part
        Whose pairs, end to end, are those of the flags.

    Returns
    -------
    Measurement
        Fluxes (n, band, 2) in image units. Mask areas are of the first band.
    """
    flux = np.concatenate([part.flux for part in parts])
    flux_err = np.concatenate([part.flux_err for part in parts])
    outside = (stamps_flags & flags.COMPANION_OUTSIDE.value)[:, 0] != 0
    flux[outside, :, 1] = np.nan
    flux_err[outside, :, 1] = np.nan
    area = np.concatenate([part.area for part in parts])
    return Measurement(flux, flux_err, area[:, 1:], np.repeat(area[:, :1], 2, axis=1), stamps_flags)


def domain_flags(
    measured: Measurement,
    separation_px: NDArray[np.float64],
    sigma: NDArray[np.float32],
    psf_fwhm_px: Sequence[float],
    domain: Domain,
) -> NDArray[np.int32]:
    """Flag what lies outside the model's training.

    Parameters
    ----------
    measured : Measurement
        What the model said of some pairs.
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
        snr = measured.flux.min(axis=2) / sigma
    out |= ((snr < low) | (snr > high)).any(axis=1)
    low, high = domain.psf_fwhm_px
    out |= any(not low <= fwhm <= high for fwhm in psf_fwhm_px)
    return np.repeat(flags.OUT_OF_DOMAIN.where(out)[:, None], 2, axis=1)
