"""From a model's predictions to the measurement of a tile: masks to areas, domain to flags."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from deblend_batch import flags
from deblend_batch.catalog.shard import Measurement
from deblend_batch.engine.batcher import PredictionLike
from deblend_batch.models.card import Domain

_MASK_THRESHOLD = 0.5


def measurement(
    stamps_flags: NDArray[np.int32],
    predictions: Sequence[PredictionLike],
    n_bands: int,
) -> Measurement:
    """Put predictions of single-band rows together again.

    Parameters
    ----------
    stamps_flags : ndarray of int32, shape (n, 2)
        Flags from cutting.
    predictions : sequence of PredictionLike
        Whose rows, end to end, are (pair, band) with bands varying fastest.
    n_bands : int
        Bands of the field.

    Returns
    -------
    Measurement
        Fluxes (n, band, 2) in image units. Mask areas are of the first band.
    """
    n = len(stamps_flags)
    flux = np.concatenate([part.flux for part in predictions]).reshape(n, n_bands, 2)
    flux_err = np.concatenate([part.flux_err for part in predictions]).reshape(n, n_bands, 2)
    outside = (stamps_flags & flags.COMPANION_OUTSIDE.value)[:, 0] != 0
    flux, flux_err = flux.copy(), flux_err.copy()
    flux[outside, :, 1] = np.nan
    flux_err[outside, :, 1] = np.nan
    area, overlap = _areas(predictions, n, n_bands)
    return Measurement(flux, flux_err, area, overlap, stamps_flags)


def _areas(
    predictions: Sequence[PredictionLike], n: int, n_bands: int
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    parts = [part.masks for part in predictions]
    if any(part is None for part in parts):
        missing = np.full((n, 2), np.nan, np.float32)
        return missing, missing.copy()
    counts = [(part > _MASK_THRESHOLD).sum(axis=(2, 3)) for part in parts if part is not None]
    area = np.concatenate(counts).reshape(n, n_bands, 3)[:, 0].astype(np.float32)
    return area[:, 1:], np.repeat(area[:, :1], 2, axis=1)


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
