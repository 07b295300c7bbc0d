"""Numbers that stand for "no data" in an image, such as -999; zeros are the matter of ``padding``."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import maximum_filter, minimum_filter

from deblend_batch.field.sky.noise import clipped_median_sigma
from deblend_batch.ingest.planes.padding import is_noisy

_BLOCK_PX = 5
_LEAST_COPIES = 25
_BELOW_SIGMA = 20.0
"""No sky is so far below itself."""
_ABOVE_SIGMA = 1e9
"""No detector has so much range: what is saturated is far less."""
_IN_BLOCKS = 0.99
_MOST = 4
_ROUNDING = 1e-5
"""Of a float32, and of a factor."""


@dataclass(frozen=True)
class MissingNumbers:
    """Numbers of pixels that have no data.

    Parameters
    ----------
    numbers : tuple of float
        File units; none in most images.
    within : float
        How far from one a pixel may be, where lossy compression has moved it.
    """

    numbers: tuple[float, ...] = ()
    within: float = 0.0

    def __str__(self) -> str:
        return " and ".join(f"{each:.6g}" for each in self.numbers)

    def where(self, image: NDArray[np.floating], factor: float = 1.0) -> NDArray[np.bool_]:
        """Tell which pixels have no data.

        Parameters
        ----------
        image : ndarray of float, shape (y, x)
            File units, times the factor.
        factor : float
            What the pixels were multiplied by.
        """
        found = np.zeros(image.shape, bool)
        for number in self.numbers:
            value = number * factor
            found |= np.abs(image - value) <= self.within * factor + _ROUNDING * abs(value)
        return found

    @classmethod
    def find(cls, windows: Sequence[NDArray[np.floating]], step: float = 0.0) -> MissingNumbers:
        """Find them in an image with noise.

        It is the least or the largest number, stands there many times, and lies where neither sky nor light
        does; or it fills blocks of 5 x 5 and hardly stands elsewhere, which no noise does, and is not above
        the sky, as what is saturated is.

        Parameters
        ----------
        windows : sequence of ndarray of float, shape (y, x)
            A sample that includes the image's rim, file units.
        step : float
            Quantisation step of a lossy compression.
        """
        pixels = np.concatenate([window.ravel() for window in windows]).astype(np.float64)
        pixels = pixels[np.isfinite(pixels) & (pixels != 0)]
        found = [each for each in _filling(windows) if _lies_out(each, pixels, 0.0, -_BELOW_SIGMA)]
        pixels = pixels[~np.isin(pixels, found)]
        while pixels.size and len(found) < _MOST:
            ends = (_middle(pixels, each, step) for each in (pixels.min(), pixels.max()))
            number = next((each for each in ends if _lies_out(each, pixels, step)), None)
            if number is None:
                break
            found.append(number)
            pixels = pixels[~_is(number, pixels, step)]
        return cls(tuple(found[:_MOST]), step if found else 0.0)


NO_NUMBERS = MissingNumbers()
"""As of most images."""


def _middle(pixels: NDArray[np.float64], end: float, step: float) -> float:
    """Return a number that is the least or the largest, in the middle of what compression made of it."""
    near = pixels[np.abs(pixels - end) <= step]
    return float(near.min() / 2 + near.max() / 2)


def _is(number: float, pixels: NDArray[np.float64], step: float) -> NDArray[np.bool_]:
    return np.asarray(np.abs(pixels - number) <= step)


def _lies_out(
    number: float, pixels: NDArray[np.float64], step: float, below_sigma: float = _BELOW_SIGMA
) -> bool:
    """Tell whether a number stands there many times, and below or far above all light of a noisy image."""
    copies = _is(number, pixels, step)
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
        for number in np.unique(known[same & np.isfinite(known)])[:_MOST].tolist():
            copies[number] += int((known == number).sum())
            inside[number] += int(((known == number) & block).sum())
    return [number for number, count in inside.items() if count >= _IN_BLOCKS * copies[number]]
