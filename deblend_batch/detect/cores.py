"""Cores of saturated stars, flat or a hole of masked pixels: each is one peak, whatever its pixels say."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import (
    binary_dilation,
    center_of_mass,
    label,
    maximum,
    maximum_filter,
)

_EIGHT = np.ones((3, 3), bool)
_FLAT_SIGMA = 0.1
"""How far apart pixels of a clipped top are: noise would set them further apart."""
_FLAT_PIXELS = 4
_BRIGHT_SIGMA = 50.0

Array = NDArray[np.float64]
Mask = NDArray[np.bool_]


@dataclass(frozen=True)
class Cores:
    """Saturated cores of an image.

    Parameters
    ----------
    labels : ndarray of int32, shape (y, x)
        Number of each pixel's core and its surroundings, from 1; 0 where there is none.
    yx : ndarray of float64, shape (n, 2)
        Their middles.
    """

    labels: NDArray[np.int32]
    yx: Array

    def levelled(self, image: Array) -> Array:
        """Return an image in which each core is a plateau as high as its highest pixel."""
        if not len(self.yx):
            return image
        height = maximum(image, self.labels, np.arange(1, len(self.yx) + 1))
        return np.where(self.labels > 0, np.concatenate([[0.0], height])[self.labels], image)

    def owners(self, segments: NDArray[np.int32]) -> NDArray[np.int64]:
        """Return the number of the source, from 0, that holds each core; -1 where none does."""
        y, x = np.rint(self.yx).astype(np.int64).T
        return np.asarray(segments[y, x].astype(np.int64) - 1)


def find_cores(saturated: Mask, fwhm_px: float) -> Cores:
    """Find the saturated cores of an image; those whose surroundings touch are one.

    Parameters
    ----------
    saturated : ndarray of bool, shape (y, x)
        Which pixels are.
    fwhm_px : float
        Width of the PSF: filters ring that far round a flat top.
    """
    if not saturated.any():
        return Cores(np.zeros(saturated.shape, np.int32), np.empty((0, 2)))
    grown = binary_dilation(saturated, _EIGHT, iterations=max(1, round(fwhm_px)))
    labels, n = label(grown, _EIGHT)
    middle = center_of_mass(saturated, labels, np.arange(1, n + 1))
    return Cores(labels.astype(np.int32), np.array(middle, np.float64).reshape(-1, 2))


def flat_tops(snr: Array) -> Mask:
    """Recognise the clipped tops of stars, where nobody says at which level pixels saturate.

    Parameters
    ----------
    snr : ndarray of float64, shape (y, x)
        The image over its noise.
    """
    if not (snr > _BRIGHT_SIGMA).any():
        return np.zeros(snr.shape, bool)
    high = (snr > _BRIGHT_SIGMA) & (maximum_filter(snr, 5) - snr < _FLAT_SIGMA)
    labels, n = label(high, _EIGHT)
    large = np.bincount(labels.ravel(), minlength=n + 1) >= _FLAT_PIXELS
    large[0] = False
    return np.asarray(large[labels])


def fill_cores(snr: Array, saturated: Mask, masked: Mask) -> Array:
    """Give saturated pixels that are masked the highest value beside them: a star has no hole.

    Parameters
    ----------
    snr : ndarray of float64, shape (y, x)
        The image over its noise, 0 where it is masked.
    saturated, masked : ndarray of bool, shape (y, x)
        Which pixels are.
    """
    holes = saturated & masked
    if not holes.any():
        return snr
    labels, n = label(binary_dilation(holes, _EIGHT), _EIGHT)
    height = np.asarray(maximum(np.where(masked, 0.0, snr), labels, np.arange(n + 1)))
    height[0] = 0.0
    return np.where(holes, height[labels], snr)
