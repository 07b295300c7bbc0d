"""Which pixels belong to which source: isophotes, divided at the saddles between peaks of a sharper image.

A filter as wide as the PSF finds faint sources best, but melts two that are nearer than about 1.5 widths into
one peak. So isophotes are drawn on that image, and peaks are looked for on one whose PSF is narrower.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import find_objects, label, maximum_filter
from skimage.morphology import h_maxima
from skimage.segmentation import watershed

from deblend_batch.detect.wide import WideLight

_EIGHT = np.ones((3, 3), np.int8)
_RIPPLE = 0.03
"""What a bright source leaves about it on the sharper image, over its height: no PSF is known better."""
_FAR_RIPPLE = 0.003
"""The same three times as far out, where the PSF has rings and spikes."""
_MIDDLE_PX = 48
"""How far the middle of a large galaxy may be from where its light is brightest, which is known in bins."""

Array = NDArray[np.float64]
Labels = NDArray[np.int32]


@dataclass(frozen=True)
class Peaks:
    """What tells two peaks apart.

    Parameters
    ----------
    least_sigma : float
        Height of a peak, in units of the sharper image's noise.
    prominence_sigma : float
        Height above the saddle to any higher peak, in the same units, where the image is faint.
    contrast : float
        The same as a share of the saddle's height, where it is bright: clumps of a galaxy are less prominent.
    reach_px : int
        How far the wings of the PSF reach: within it a peak must be more than their ripple.
    has_rings : bool
        Whether the PSF has rings and spikes beyond that: a telescope's in space.
    """

    least_sigma: float
    prominence_sigma: float
    contrast: float
    reach_px: int
    has_rings: bool = False


def find_islands(smooth: Array, threshold: float, min_area_px: int) -> Labels:
    """Give the isophotes of a filtered image, in units of its noise, numbers; small ones are none."""
    islands, n_islands = label(smooth > threshold, _EIGHT)
    return _large(islands, n_islands, min_area_px)


def divide(
    islands: Labels,
    smooth: Array,
    sharp: Array,
    peaks: Peaks,
    min_area_px: int,
    wide: WideLight | None = None,
) -> Labels:
    """Divide isophotes into sources.

    Parameters
    ----------
    islands : ndarray of int32, shape (y, x)
        Numbers of the isophotes, from 1.
    smooth, sharp : ndarray of float64, shape (y, x)
        The image by a filter as wide as the PSF, and as it would be with a sharper one; of unit noise.
    peaks : Peaks
        What tells two peaks apart.
    min_area_px : int
        Pixels of a source.
    wide : WideLight, optional
        The light of galaxies larger than a stamp.

    Returns
    -------
    ndarray of int32, shape (y, x)
        Number of each pixel's source, from 1; 0 where there is none.
    """
    if not islands.any():
        return islands
    markers = _markers(islands, smooth, sharp, peaks, wide)
    found = watershed(-sharp, markers, connectivity=_EIGHT, mask=islands > 0)
    return _large(found, int(found.max()), min_area_px)


def peak_positions(segments: Labels, sharp: Array) -> Array:
    """Return the highest place of each source on the sharper image, between pixels, (y, x), shape (n, 2)."""
    pixel = np.flatnonzero(segments)
    if not len(pixel):
        return np.empty((0, 2))
    number = segments.ravel()[pixel]
    order = np.lexsort((-pixel, sharp.ravel()[pixel], number))
    last = np.flatnonzero(np.diff(number[order], append=number.max() + 1))
    top = np.stack(np.unravel_index(pixel[order[last]], segments.shape), axis=1)
    around = np.clip(top, 1, np.array(sharp.shape) - 2)
    middle = sharp[around[:, 0], around[:, 1]]
    offset = np.zeros(top.shape)
    for axis, (dy, dx) in enumerate(((1, 0), (0, 1))):
        before = sharp[around[:, 0] - dy, around[:, 1] - dx]
        after = sharp[around[:, 0] + dy, around[:, 1] + dx]
        bend = before - 2 * middle + after
        step = 0.5 * (before - after) / np.where(bend < 0, bend, -np.inf)
        offset[:, axis] = np.clip(step, -0.5, 0.5)
    return np.asarray(np.where(top == around, top + offset, top), np.float64)


def _markers(
    islands: Labels,
    smooth: Array,
    sharp: Array,
    peaks: Peaks,
    wide: WideLight | None,
) -> Labels:
    """Give the peaks that count numbers; an isophote without one has its brightest pixel."""
    scale = peaks.prominence_sigma / max(peaks.contrast, 1e-6)
    markers = np.zeros(islands.shape, np.int32)
    least = np.full(sharp.shape, peaks.least_sigma)
    for reach, share in ((1, _RIPPLE), (3, _FAR_RIPPLE))[: 1 + peaks.has_rings]:
        highest = maximum_filter(sharp, 2 * reach * peaks.reach_px + 1)
        least = np.maximum(least, share * highest)
    count = 0
    for number, box in enumerate(find_objects(islands), 1):
        mine = islands[box] == number
        here = np.where(mine, sharp[box], 0.0)
        tops = mine & (here > least[box]) & (maximum_filter(here, footprint=_EIGHT) == here)
        if np.count_nonzero(tops) > 1:
            # Heights on this scale differ by the prominence where faint, and by its share where bright.
            height = scale * np.arcsinh(here / scale)
            tops &= h_maxima(height, peaks.prominence_sigma, _EIGHT).astype(bool)
        if wide is not None:
            tops = _with_middle(tops, here, mine, wide, box)
        if not tops.any():
            tops = _brightest(np.where(mine, smooth[box], -np.inf))
        found, n = label(tops, _EIGHT)
        markers[box][tops] = found[tops] + count
        count += n
    return markers


def _with_middle(
    tops: NDArray[np.bool_],
    here: Array,
    mine: NDArray[np.bool_],
    wide: WideLight,
    box: tuple[slice, slice],
) -> NDArray[np.bool_]:
    """Return the peaks that stand above the light of a large galaxy, and the one that is its middle."""
    found = tops & wide.stands[box]
    for y, x in wide.tops - [box[0].start, box[1].start]:
        if not (0 <= y < mine.shape[0] and 0 <= x < mine.shape[1] and mine[y, x]):
            continue
        around = tuple(slice(max(at - _MIDDLE_PX, 0), at + _MIDDLE_PX + 1) for at in (y, x))
        if not found[around].any():
            near = tops[around] if tops[around].any() else mine[around]
            found[around] |= _brightest(np.where(near, here[around], -np.inf))
    return found


def _brightest(image: Array) -> NDArray[np.bool_]:
    """Return where the highest pixel is, one of them where there are several."""
    found = np.zeros(image.shape, bool)
    found.flat[int(image.argmax())] = True
    return found


def _large(labels: Labels, n: int, least: int) -> Labels:
    """Drop what has too few pixels, and number the rest from 1, in the order of the numbers."""
    kept = np.bincount(labels.ravel(), minlength=n + 1) >= least
    kept[0] = False
    return np.where(kept, np.cumsum(kept), 0).astype(np.int32)[labels]
