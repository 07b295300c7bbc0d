"""Robust background statistics of blocks of pixels."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

MAD_TO_SIGMA = 1.4826022185056018
"""Of a Gaussian: its rms over its median absolute deviation."""
_CLIP_SIGMA = 3.0
_CLIP_ROUNDS = 20


def clipped_median_sigma(pixels: NDArray[np.floating]) -> tuple[float, float]:
    """Measure level and rms of a background with sources in it.

    Median and MAD (times 1.4826) of the pixels within 3 sigma of the median, iterated until no
    pixel leaves: sources are clipped, so the level is that of the sky between them.

    Parameters
    ----------
    pixels : ndarray of float, any shape
        Image units; NaN and inf are left out.

    Returns
    -------
    median, sigma : float
        Image units; NaN where no finite pixel is left.
    """
    sample = pixels[np.isfinite(pixels)].astype(np.float64, copy=False)
    median = sigma = float("nan")
    for _ in range(_CLIP_ROUNDS):
        if sample.size == 0:
            break
        median = float(np.median(sample))
        sigma = float(MAD_TO_SIGMA * np.median(np.abs(sample - median)))
        kept = np.abs(sample - median) <= _CLIP_SIGMA * sigma
        if kept.all():
            break
        sample = sample[kept]
    return median, sigma


def sample_blocks(
    shape_yx: tuple[int, int], size: int = 512, count: int = 32
) -> list[tuple[slice, slice]]:
    """Choose blocks spread evenly over an image, aligned to chunks; always the same.

    Parameters
    ----------
    shape_yx : tuple of int
        Rows and columns of the image.
    size : int
        Edge of a block, px.
    count : int
        Largest number of blocks.
    """
    grid_y, grid_x = (-(-edge // size) for edge in shape_yx)
    count_y = min(grid_y, max(1, round((count * grid_y / grid_x) ** 0.5)), count)
    count_x = min(grid_x, count // count_y)
    return [
        (slice(iy * size, (iy + 1) * size), slice(ix * size, (ix + 1) * size))
        for iy in _spread(grid_y, count_y)
        for ix in _spread(grid_x, count_x)
    ]


def _spread(total: int, count: int) -> list[int]:
    """Return the centres of ``count`` equal parts of ``range(total)``."""
    return [int((number + 0.5) * total / count) for number in range(count)]
