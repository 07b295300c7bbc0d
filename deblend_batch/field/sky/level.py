"""The sky between the sources of a block of pixels: sources are masked, wings and all, round by round.

What clipping leaves of wings and faint galaxies raises a level by a tenth of the noise and more. So sources
are looked for on several scales, their mask is grown, and what is left is measured; then again from there.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter, maximum_filter

from deblend_batch.field.mask_bits import bad_pixels
from deblend_batch.field.sky.noise import clipped_median_sigma, sample_blocks

if TYPE_CHECKING:
    from deblend_batch.field.layout import Field

OFFSET_SIGMA, OFFSET_ERRORS = 0.05, 5.0
"""In units of the noise, and of its own error: a level beyond both was not subtracted.

At 0.05 the sky under a galaxy of 500 pixels is about its noise: the bias would be seen.
"""

_BIN_PX = 2
_LEAST_BINNED_PX = 16
_NEAR, _FAR = ((1.0, 4), (3.0, 8)), ((8.0, 8),)
"""Rms of filters, and by how much what they find is grown, in bins: sources, and the halos of large ones."""
_SOURCE_SIGMA = 2.8
"""Of a filtered image. Lower, noise that is masked lowers the level; higher, wings raise it."""
_ROUNDS = (_NEAR, _NEAR, _NEAR + _FAR)
_MIN_GOOD_FRACTION = 0.1
_MIN_SKY_FRACTION = 0.05
_MIN_SKY_BINS = 100
_MEDIAN_ERROR = 1.2533  # of a median over that of a mean

Array = NDArray[np.float64]
Mask = NDArray[np.bool_]


@dataclass(frozen=True)
class Sky:
    """The sky of a block; NaN where too few pixels are good.

    Parameters
    ----------
    level : float
        In the block's middle, image units.
    sigma : float
        Noise rms per pixel, image units.
    error : float
        Of the level, were the noise independent from pixel to pixel.
    """

    level: float
    sigma: float
    error: float


NO_SKY = Sky(float("nan"), float("nan"), float("nan"))


def measure_sky(pixels: NDArray[np.floating]) -> Sky:
    """Measure the level and the noise of a block's sky.

    A slope within the block is allowed for. Where sources leave too little, as in a cluster of stars, the
    level is that of the round before.

    Parameters
    ----------
    pixels : ndarray of float, shape (y, x)
        Image units; NaN and inf are bad.
    """
    binned = _binned(pixels)
    step = max(1, pixels.shape[0] // max(binned.shape[0], 1))
    good = np.isfinite(binned)
    if good.sum() < max(1, _MIN_GOOD_FRACTION * good.size):
        return NO_SKY
    level, noise = clipped_median_sigma(binned[good])
    if noise == 0:
        return Sky(level, 0.0, 0.0)
    slope = _slope(binned, good & (np.abs(binned - level) <= 3 * noise))
    sky = good
    for scales in _ROUNDS:
        flat = np.where(good, binned - slope, level)
        masked = ~good | _sources(flat - level, sky, scales)
        if (~masked).sum() < max(_MIN_SKY_BINS, _MIN_SKY_FRACTION * good.size):
            break
        sky = ~masked
        slope = _slope(binned, sky)
        level, noise = clipped_median_sigma((binned - slope)[sky])
    return Sky(
        level, _pixel_noise(pixels, slope, sky, step), _MEDIAN_ERROR * noise / sky.sum() ** 0.5
    )


def sample_sky(field: Field, band: int, count: int = 4) -> list[Sky]:
    """Measure the sky of some blocks of 512 px of a field, spread evenly; those that have good pixels."""
    found = []
    for rows, columns in sample_blocks(field.shape_yx, count=count):
        pixels = field.plane(band, rows, columns)
        if field.mask is not None:
            mask = field.plane(band, rows, columns, "mask")
            pixels = np.where(bad_pixels(mask, field.meta.mask_bits), np.nan, pixels)
        found.append(measure_sky(pixels))
    return [sky for sky in found if sky.sigma > 0]


def describe_sky(blocks: Sequence[Sky]) -> str:
    """Say in words what level blocks have, and by how much they differ, in units of the noise."""
    if not blocks:
        return "not measured: hardly a good pixel in the sample"
    levels = np.array([sky.level / sky.sigma for sky in blocks])
    error = np.median([sky.error / sky.sigma for sky in blocks])
    text = (
        f"{np.median(levels):+.3f} of the noise (blocks {levels.min():+.3f} to {levels.max():+.3f})"
    )
    offset = abs(np.median(levels)) > max(OFFSET_SIGMA, OFFSET_ERRORS * error)
    return f"{text}; not subtracted: ingest it with --background subtract" if offset else text


def _binned(pixels: NDArray[np.floating]) -> Array:
    """Average the good ones of 2 x 2 pixels, for speed; NaN where none is. A small block stays as it is."""
    good = np.isfinite(pixels)
    step = 1 if min(pixels.shape) < _LEAST_BINNED_PX else _BIN_PX
    height, width = (edge // step for edge in pixels.shape)

    def total(values: NDArray[Any]) -> Array:
        cut = values[: height * step, : width * step].reshape(height, step, width, step)
        return np.asarray(cut.sum(axis=(1, 3), dtype=np.float64))

    count = total(good)
    return np.where(count > 0, total(np.where(good, pixels, 0)) / np.maximum(count, 1), np.nan)


def _sources(residual: Array, sky: Mask, scales: Sequence[tuple[float, int]]) -> Mask:
    """Tell where sources are, and their surroundings."""
    found = np.zeros(residual.shape, bool)
    for width, reach in scales:
        smooth = gaussian_filter(residual.astype(np.float32), width, truncate=3.0)
        level, noise = clipped_median_sigma(smooth[sky])
        found |= maximum_filter(smooth > level + _SOURCE_SIGMA * noise, 2 * reach + 1)
    return found


def _slope(binned: Array, sky: Mask) -> Array:
    """Return the plane through the sky, zero in the block's middle."""
    y, x = (np.arange(edge) - (edge - 1) / 2 for edge in binned.shape)
    rows, columns = np.nonzero(sky)
    terms = np.stack([np.ones(len(rows)), y[rows], x[columns]], axis=1)
    _, down, across = np.linalg.lstsq(terms, binned[sky], rcond=None)[0]
    return np.asarray(down * y[:, None] + across * x)


def _pixel_noise(pixels: NDArray[np.floating], slope: Array, sky: Mask, step: int) -> float:
    """Return the rms of single pixels: neighbours may be correlated."""
    height, width = sky.shape
    single = pixels[: height * step : step, : width * step : step] - slope
    return clipped_median_sigma(single[sky])[1]
