"""Numbers that mean "not observed": zeros that mosaicking leaves round an image, and -999 and its like."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import maximum_filter, minimum_filter

from deblend_batch.field.noise import clipped_median_sigma

_BLOCK_PX = 5
_MIN_NEGATIVE = 0.1
_SKY_SIGMA = 3.0
_LEAST_COPIES = 25
_BELOW_SIGMA = 20.0
"""No sky is so far below itself."""
_IN_BLOCKS = 0.99
_ABOVE_SIGMA = 1e9
"""No detector has so much range: what is saturated is far less."""
_MOST_NUMBERS = 4
_ROUNDING = 1e-5
"""Of a float32, and of the factor."""


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


def missing_numbers(windows: Sequence[NDArray[np.floating]]) -> tuple[float, ...]:
    """Find numbers that stand for "no data", such as -999, -32768 or 1e30, in an image with noise.

    It is the least or the largest of them, stands there many times, and lies where neither sky nor light
    does; or it fills blocks of 5 x 5 and hardly stands elsewhere, which no noise does, and is not above the
    sky, as what is saturated is.

    Parameters
    ----------
    windows : sequence of ndarray of float, shape (y, x)
        A sample that includes the image's rim.

    Returns
    -------
    tuple of float
        Image units; none in most images. Zeros are the matter of :func:`zero_is_missing`.
    """
    pixels = np.concatenate([window.ravel() for window in windows]).astype(np.float64)
    pixels = pixels[np.isfinite(pixels) & (pixels != 0)]
    filling = [
        each for each in _filling(windows) if _lies_out(each, pixels, below_sigma=-_BELOW_SIGMA)
    ]
    pixels = pixels[~np.isin(pixels, filling)]
    found = filling[:_MOST_NUMBERS]
    while pixels.size and len(found) < _MOST_NUMBERS:
        ends = (float(pixels.min()), float(pixels.max()))
        number = next((each for each in ends if _lies_out(each, pixels, _BELOW_SIGMA)), None)
        if number is None:
            break
        found.append(number)
        pixels = pixels[pixels != number]
    return tuple(found)


def _lies_out(number: float, pixels: NDArray[np.float64], below_sigma: float) -> bool:
    """Tell whether a number stands there many times, and below or far above all light of a noisy image."""
    copies = pixels == number
    rest = pixels[~copies]
    if copies.sum() < _LEAST_COPIES or rest.size == 0:
        return False
    level, sigma = clipped_median_sigma(rest)
    far = level - number > below_sigma * sigma or number - level > _ABOVE_SIGMA * sigma
    return bool(far) and is_noisy(rest, level, sigma)


def _filling(windows: Sequence[NDArray[np.floating]]) -> list[float]:
    """Return the numbers that stand in blocks of 5 x 5, and hardly elsewhere."""
    copies: Counter[float] = Counter()
    inside: Counter[float] = Counter()
    for window in windows:
        known = np.where(np.isfinite(window) & (window != 0), window, np.inf)
        same = minimum_filter(known, _BLOCK_PX) == maximum_filter(known, _BLOCK_PX)
        block = maximum_filter(same, _BLOCK_PX)
        for number in np.unique(known[same & np.isfinite(known)])[:_MOST_NUMBERS].tolist():
            copies[number] += int((known == number).sum())
            inside[number] += int(((known == number) & block).sum())
    return [number for number, count in inside.items() if count >= _IN_BLOCKS * copies[number]]


def is_number(
    image: NDArray[np.floating], numbers: Iterable[float], factor: float = 1.0
) -> NDArray[np.bool_]:
    """Tell which pixels hold one of the numbers that stand for "no data".

    Parameters
    ----------
    image : ndarray of float, shape (y, x)
        Image units, times the factor.
    numbers : iterable of float
        Of :func:`missing_numbers`.
    factor : float
        What the pixels were multiplied by.
    """
    found = np.zeros(image.shape, bool)
    for number in numbers:
        value = number * factor
        found |= np.abs(image - value) <= _ROUNDING * abs(value)
    return found


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
