"""The light of galaxies larger than a stamp: what lies in it must stand above it to be a source.

On so wide a plateau, and along its rim, noise alone makes peaks and isophotes by the hundred.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import find_objects, label, maximum, median_filter
from skimage.measure import block_reduce

from deblend_batch.tiling.stamp_sizes import STAMP_SIZES_PX

BIN_PX = 8
"""Bins of the light: tiles begin at a multiple, so that they have the same ones."""
_BINS = 9
"""The light is the median of so many bins each way: galaxies of usual size are not in it."""
_LEAST = 1.0
"""Of the filtered image's noise; less is what noise and faint galaxies leave."""

Array = NDArray[np.float64]
Labels = NDArray[np.int32]


@dataclass(frozen=True)
class WideLight:
    """The light of an image's large galaxies.

    Parameters
    ----------
    islands : ndarray of int32, shape (y, x)
        Isophotes less those that do not stand above it.
    where : ndarray of bool, shape (y, x)
        Pixels that it is in.
    rest : ndarray of float64, shape (y, x)
        The filtered image less the light.
    stands : ndarray of bool, shape (y, x)
        Where a peak may be: out of that light, or well above it.
    tops : ndarray of int64, shape (k, 2)
        Where the light of each isophote that is larger than a stamp is brightest, (y, x): a pixel of it.
    """

    islands: Labels
    where: NDArray[np.bool_]
    rest: Array
    stands: NDArray[np.bool_]
    tops: NDArray[np.int64]


def find_wide_light(islands: Labels, smooth: Array, threshold: float) -> WideLight | None:
    """Find the light of large galaxies; None where no isophote is larger than the largest stamp.

    Parameters
    ----------
    islands : ndarray of int32, shape (y, x)
        Isophotes, from 1.
    smooth : ndarray of float64, shape (y, x)
        The filtered image, in units of its noise.
    threshold : float
        By how much a source must stand above the light, in the same units.
    """
    boxes = find_objects(islands)
    wide = [number for number, box in enumerate(boxes, 1) if _is_wide(box)]
    if not wide:
        return None
    light = wide_light(smooth)
    where = _around(light > _LEAST, islands, wide)
    rest = np.where(where, smooth - light, smooth)
    kept = np.asarray(maximum(rest, islands, np.arange(len(boxes) + 1)) > threshold)
    kept[0], kept[wide] = False, True
    numbers = np.where(kept, np.cumsum(kept), 0).astype(np.int32)
    tops = [_top(islands[boxes[n - 1]] == n, light, boxes[n - 1]) for n in wide]
    stands = ~where | (rest > threshold)
    return WideLight(numbers[islands], where, rest, stands, np.array(tops, np.int64))


def wide_light(image: NDArray[np.floating]) -> Array:
    """Return what of an image is wider than galaxies of usual size.

    Parameters
    ----------
    image : ndarray of float, shape (y, x)
        Of any unit; finite.
    """
    bins = block_reduce(np.asarray(image, np.float64), BIN_PX, np.mean)
    wide = median_filter(bins, _BINS, mode="nearest")
    height, width = image.shape
    return np.asarray(wide.repeat(BIN_PX, axis=0).repeat(BIN_PX, axis=1)[:height, :width])


def _is_wide(box: tuple[slice, slice]) -> bool:
    return all(edge.stop - edge.start > STAMP_SIZES_PX[-1] for edge in box)


def _around(is_light: NDArray[np.bool_], islands: Labels, wide: list[int]) -> NDArray[np.bool_]:
    """Return the light that hangs together with a wide isophote: what is elsewhere in a tile has no say."""
    pieces, count = label(is_light)
    theirs = np.zeros(count + 1, bool)
    theirs[np.unique(pieces[np.isin(islands, wide)])] = True
    theirs[0] = False
    return np.asarray(theirs[pieces])


def _top(mine: NDArray[np.bool_], light: Array, box: tuple[slice, slice]) -> tuple[int, int]:
    y, x = np.unravel_index(np.where(mine, light[box], -np.inf).argmax(), mine.shape)
    return int(y) + box[0].start, int(x) + box[1].start
