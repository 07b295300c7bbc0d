"""How far the noise of an image is from independent pixels, which resampled images never have."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import convolve

from deblend_batch.detect.filters import psf_kernel
from deblend_batch.field.layout import Field
from deblend_batch.field.mask_bits import bad_pixels
from deblend_batch.field.noise import clipped_median_sigma, sample_blocks

_BLOCKS = 16


def measure_correlation(field: Field, band: int) -> float:
    """Measure the noise of the PSF-filtered image over what independent pixels would give.

    From at most 16 blocks of 512 px, spread evenly: the same in every run. Where the field has a
    variance plane that allows for correlated noise the ratio is near 1; where its noise is measured per
    pixel in a resampled image it may reach 2.

    Returns
    -------
    float
        Median of the blocks' ratios; 1 where no block has varying good pixels.
    """
    kernel = psf_kernel(field.meta.psf_fwhm_arcsec[band] / field.pixel_scale_arcsec)
    sigma = None if field.variance is not None else field.measure_noise()[band]
    ratios = []
    for rows, columns in sample_blocks(field.shape_yx, count=_BLOCKS):
        pixels = field.plane(band, rows, columns)
        if field.mask is not None:
            mask = field.plane(band, rows, columns, "mask")
            pixels = np.where(bad_pixels(mask, field.meta.mask_bits), np.nan, pixels)
        noise = (
            np.sqrt(field.plane(band, rows, columns, "variance"))
            if sigma is None
            else np.full(pixels.shape, sigma, np.float32)
        )
        ratios.append(filtered_noise(pixels, noise, kernel))
    measured = [ratio for ratio in ratios if ratio > 0]
    return float(np.median(measured)) if measured else 1.0


def filtered_noise(
    pixels: NDArray[np.floating], sigma: NDArray[np.floating], kernel: NDArray[np.floating]
) -> float:
    """Return the rms of a filtered image over what independent noise of ``sigma`` would give.

    Parameters
    ----------
    pixels : ndarray of float, shape (y, x)
        Background subtracted; NaN is bad.
    sigma : ndarray of float, shape (y, x)
        Noise rms per pixel, in the same units.
    kernel : ndarray of float, shape (y, x)
        The filter.

    Returns
    -------
    float
        Clipped rms of the good pixels' ratio; NaN where none is good.
    """
    good = np.isfinite(pixels) & (sigma > 0)
    scaled = np.where(good, pixels / np.where(good, sigma, 1), 0).astype(np.float64)
    # Both sums leave bad pixels out, so that the ratio holds beside them too.
    signal = convolve(scaled, kernel.astype(np.float64), mode="constant")
    power = convolve(good.astype(np.float64), kernel.astype(np.float64) ** 2, mode="constant")
    return clipped_median_sigma(signal[good] / np.sqrt(power[good]))[1]
