"""How far the noise of an image is from independent pixels, which resampled images never have."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import convolve1d

from deblend_batch.detect.filters import gaussian_profile
from deblend_batch.field.layout import Field
from deblend_batch.field.mask_bits import bad_pixels
from deblend_batch.field.sky.background import BackgroundSurface
from deblend_batch.field.sky.noise import clipped_median_sigma, sample_blocks

_BLOCKS = 16
_MOST = 3.0  # resampling reaches 2; what is beyond are sources that fill the image


def measure_correlation(
    field: Field, band: int, fwhm_px: float, background: BackgroundSurface | None = None
) -> float:
    """Measure the noise of a filtered image over what independent pixels would give.

    From at most 16 blocks of 512 px, spread evenly: the same in every run. Where the field has a
    variance plane that allows for correlated noise the ratio is near 1; where its noise is measured per
    pixel in a resampled image it may reach 2.

    Parameters
    ----------
    field : Field
        The field.
    band : int
        Number of the band.
    fwhm_px : float
        Full width at half maximum of the filter, a Gaussian.
    background : BackgroundSurface, optional
        What is taken from the image first.

    Returns
    -------
    float
        Median of the blocks' ratios, at most 3; 1 where no block has varying good pixels.
    """
    profile = gaussian_profile(fwhm_px)
    sigma = None if field.variance is not None else field.measure_noise()[band]
    ratios = []
    for rows, columns in sample_blocks(field.shape_yx, count=_BLOCKS):
        pixels = field.plane(band, rows, columns)
        if background is not None:
            y0, x0 = rows.start, columns.start
            there = slice(y0, y0 + len(pixels)), slice(x0, x0 + pixels.shape[1])
            pixels = pixels - background.window(*there)
        if field.mask is not None:
            mask = field.plane(band, rows, columns, "mask")
            pixels = np.where(bad_pixels(mask, field.meta.mask_bits), np.nan, pixels)
        noise = (
            np.sqrt(field.plane(band, rows, columns, "variance"))
            if sigma is None
            else np.full(pixels.shape, sigma, np.float32)
        )
        ratios.append(filtered_noise(pixels, noise, profile))
    measured = [ratio for ratio in ratios if ratio > 0]
    return min(float(np.median(measured)), _MOST) if measured else 1.0


def filtered_noise(
    pixels: NDArray[np.floating], sigma: NDArray[np.floating], profile: NDArray[np.floating]
) -> float:
    """Return the rms of a filtered image over what independent noise of ``sigma`` would give.

    Parameters
    ----------
    pixels : ndarray of float, shape (y, x)
        Background subtracted; NaN is bad.
    sigma : ndarray of float, shape (y, x)
        Noise rms per pixel, in the same units.
    profile : ndarray of float, shape (k,)
        The filter along either axis.

    Returns
    -------
    float
        Clipped rms of the good pixels' ratio; NaN where none is good.
    """
    good = np.isfinite(pixels) & (sigma > 0)
    scaled = np.where(good, pixels / np.where(good, sigma, 1), 0).astype(np.float64)
    # Both sums leave bad pixels out, so that the ratio holds beside them too.
    signal = _along_both(scaled, profile)
    power = _along_both(good.astype(np.float64), profile**2)
    return clipped_median_sigma(signal[good] / np.sqrt(power[good]))[1]


def _along_both(image: NDArray[np.float64], profile: NDArray[np.floating]) -> NDArray[np.float64]:
    rows = convolve1d(image, profile, axis=0, mode="constant")
    return np.asarray(convolve1d(rows, profile, axis=1, mode="constant"))
