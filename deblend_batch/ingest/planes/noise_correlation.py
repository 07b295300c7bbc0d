"""How far the noise of sums is from that of independent pixels: resampling correlates neighbours."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import binary_dilation, gaussian_filter

from deblend_batch.field.sky.noise import clipped_median_sigma

_BLOCKS_PX = (8, 16)
_MIN_GOOD = 0.75
_MIN_SUMS = 100
_SOURCE_SIGMA = 3.5
_SOURCE_SCALES_PX = (1.5, 5.0, 10.0)
_GROWN_PX = 6


class BlockSums:
    """Sums over square blocks of the sky between sources, over the rms that independent pixels would have.

    Differences of blocks are taken, two apart, so that a background that varies slowly does not count.
    """

    def __init__(self) -> None:
        self._found: dict[int, list[NDArray[np.float64]]] = {size: [] for size in _BLOCKS_PX}

    def add(self, pixels: NDArray[np.floating], variance: NDArray[np.floating] | None) -> None:
        """Take the sums of a window.

        Parameters
        ----------
        pixels : ndarray of float, shape (y, x)
            Image units; bad pixels are NaN.
        variance : ndarray of float, shape (y, x), or None
            What the image says of its noise, image units squared; without it the clipped rms of the
            window is taken.
        """
        # A quarter of the pixels says as much of level and rms, in a quarter of the time.
        level, sigma = clipped_median_sigma(pixels[::2, ::2])
        if not sigma > 0:
            return
        sky = np.isfinite(pixels) & ~_sources(pixels - level, sigma)
        level, sigma = clipped_median_sigma(pixels[::2, ::2][sky[::2, ::2]])
        if not sigma > 0:
            return
        power = np.full(pixels.shape, sigma**2) if variance is None else variance
        sky &= np.isfinite(power) & (power > 0)
        values = np.where(sky, pixels - level, 0.0)
        power = np.where(sky, power, 0.0)
        for size, found in self._found.items():
            n_good, total, expected = (_summed(each, size) for each in (sky, values, power))
            full = n_good >= _MIN_GOOD * size**2
            ratio = np.where(full, total / np.sqrt(np.where(full, expected, 1)), np.nan)
            apart = (ratio[:, 2:] - ratio[:, :-2]) / np.sqrt(2)
            found.append(apart[np.isfinite(apart)])

    def ratio(self) -> float | None:
        """Return the ratio for sums over many pixels.

        That of a block of N pixels falls short of it by what its edge cuts off, which goes with 1 / N: two
        sizes give the limit.

        Returns
        -------
        float or None
            None where there is too little sky.
        """
        rms = []
        for found in self._found.values():
            sums = np.concatenate([np.empty(0), *found])
            if len(sums) < _MIN_SUMS:
                return None
            rms.append(clipped_median_sigma(sums)[1])
        small, large = rms
        if not small > 0 or not large > 0:
            return None
        return float(max(2 * large - small, large / 2))


def _sources(pixels: NDArray[np.floating], sigma: float) -> NDArray[np.bool_]:
    """Find pixels of sources, and those near them, by what stands out of the smoothed image's own noise."""
    clean = np.where(np.isfinite(pixels), np.minimum(pixels, 50 * sigma), 0.0)
    found = np.zeros(pixels.shape, bool)
    for scale in _SOURCE_SCALES_PX:
        smooth = gaussian_filter(clean, scale, mode="nearest")
        level, noise = clipped_median_sigma(smooth[::2, ::2])
        found |= smooth - level > _SOURCE_SIGMA * noise
    return np.asarray(binary_dilation(found, iterations=_GROWN_PX))


def _summed(values: NDArray[np.generic], size: int) -> NDArray[np.float64]:
    """Sum over blocks; what is left at the edges is left out."""
    height, width = (edge // size for edge in values.shape)
    blocks = values[: height * size, : width * size].reshape(height, size, width, size)
    return np.asarray(blocks.sum(axis=(1, 3), dtype=np.float64))
