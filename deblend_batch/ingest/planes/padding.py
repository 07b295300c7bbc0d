"""Zeros that mean "not observed": the rim that mosaicking tools leave round an image without weights."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import maximum_filter, minimum_filter

from deblend_batch.field.sky.noise import clipped_median_sigma

_BLOCK_PX = 5
_MIN_NEGATIVE = 0.1
_SKY_SIGMA = 3.0


def zero_blocks(
    image: NDArray[np.floating], within: NDArray[np.float64] | float = 0.0
) -> NDArray[np.bool_]:
    """Find pixels of zero that fill blocks of 5 x 5; single zeros are values like others.

    Parameters
    ----------
    image : ndarray of float, shape (y, x)
        Image units.
    within : ndarray of float64, shape (y, x), or float
        How far from zero a zero may be, where lossy compression has moved it.

    Returns
    -------
    ndarray of bool, shape (y, x)
        The morphological opening of ``image == 0``.
    """
    # Rounding of a float32 is added to what the compression did.
    zero: NDArray[np.bool_] = np.abs(image) <= np.asarray(within) * (1 + 1e-5)
    if not zero.any():
        return zero
    core = minimum_filter(zero, _BLOCK_PX, mode="nearest")
    return np.asarray(maximum_filter(core, _BLOCK_PX, mode="nearest") & zero)


def zero_is_missing(windows: Iterable[NDArray[np.floating]]) -> bool:
    """Tell whether blocks of zeros in an image are pixels that were never observed.

    They are where the other pixels have noise: values on both sides of zero, or a sky far from it. In
    an image without noise (simulated) zero is just the sky.

    Parameters
    ----------
    windows : iterable of ndarray of float, shape (y, x)
        A sample that includes the image's rim.
    """
    found, observed = False, []
    for window in windows:
        blocks = zero_blocks(window)
        found |= bool(blocks.any())
        rest = window[~blocks]
        observed.append(rest[np.isfinite(rest)])
    pixels = np.concatenate(observed) if observed else np.empty(0)
    if not found or pixels.size == 0:
        return False
    median, sigma = clipped_median_sigma(pixels)
    return is_noisy(pixels, median, sigma)


def is_noisy(pixels: NDArray[np.floating], median: float, sigma: float) -> bool:
    """Tell whether most pixels are noise: on both sides of zero, or of a sky far from it."""
    return bool((pixels < 0).mean() > _MIN_NEGATIVE or median > _SKY_SIGMA * sigma > 0)


def rim_blocks(shape_yx: tuple[int, int], size: int = 256) -> list[tuple[slice, slice]]:
    """Choose windows at corners, edges and centre of an image.

    Parameters
    ----------
    shape_yx : tuple of int
        Rows and columns.
    size : int
        Edge of a window, px.
    """
    rows, columns = (
        sorted({0, max(0, (edge - size) // 2), max(0, edge - size)}) for edge in shape_yx
    )
    return [
        (slice(y, min(y + size, shape_yx[0])), slice(x, min(x + size, shape_yx[1])))
        for y in rows
        for x in columns
    ]
