"""The halos of saturated stars: circles of a radius that follows from the core's size and the PSF's wings.

A star's magnitude is not known where it is saturated, but its profile passes the saturation level at the
core's edge. From there wings fall as r^-2.76: masks of the Legacy Surveys grow so with the flux of a star. A
halo ends where its light is the noise of a pixel.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import label
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from deblend_batch.field.mask_bits import MaskBits

BRIGHT_STAR = "BRIGHT_STAR"
"""Name of the bit of pixels in a halo."""

_WINGS = 2.76
_LEAST_CORE_PX = 4
"""Fewer saturated pixels are a cosmic ray, or a star whose halo is hidden in its core."""
_MOST_CORES = 1_000_000
_EIGHT = np.ones((3, 3), bool)

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Halos:
    """Circles round stars.

    Parameters
    ----------
    yx : ndarray of float64, shape (n, 2)
        Their middles, px.
    radius_px : ndarray of float64, shape (n,)
        Their radii.
    """

    yx: Array
    radius_px: Array

    def __len__(self) -> int:
        return len(self.yx)

    def plane(self, rows: slice, columns: slice) -> NDArray[np.bool_]:
        """Tell which pixels of a window are in one of them.

        Parameters
        ----------
        rows, columns : slice
            The window, px.

        Returns
        -------
        ndarray of bool, shape (y, x)
            True inside.
        """
        found = np.zeros((rows.stop - rows.start, columns.stop - columns.start), bool)
        middle, radius = self.yx - [rows.start, columns.start], self.radius_px[:, None]
        low = np.maximum(np.ceil(middle - radius), 0).astype(np.int64)
        high = np.minimum(np.floor(middle + radius) + 1, found.shape).astype(np.int64)
        for here in np.flatnonzero((low < high).all(axis=1)).tolist():
            box = slice(low[here, 0], high[here, 0]), slice(low[here, 1], high[here, 1])
            y, x = np.ogrid[box]
            distance = np.hypot(y - middle[here, 0], x - middle[here, 1])
            found[box] |= distance <= self.radius_px[here]
        return found

    def marked(
        self,
        mask: NDArray[np.unsignedinteger[Any]] | NDArray[np.bool_] | None,
        bits: MaskBits,
        rows: slice,
        columns: slice,
    ) -> NDArray[np.unsignedinteger[Any]]:
        """Return a window of a mask with the bit of halos, if there is one.

        Parameters
        ----------
        mask : ndarray of unsigned int or bool, shape (y, x), or None
            As the file has it: of bits without names where pixels are bad.
        bits : MaskBits
            What the bits of the field's mask mean.
        rows, columns : slice
            The window, px.
        """
        shape = rows.stop - rows.start, columns.stop - columns.start
        found = np.zeros(shape, bits.dtype) if mask is None else mask.astype(bits.dtype)
        if BRIGHT_STAR in bits.bits and len(self):
            found[self.plane(rows, columns)] |= bits.dtype.type(1 << bits.bits[BRIGHT_STAR])
        return found


NO_HALOS = Halos(np.empty((0, 2)), np.empty(0))


class SaturatedCores:
    """Collects the saturated pixels of an image, window by window, in the order of rows and then of columns.

    Parameters
    ----------
    shape_yx : tuple of int
        Rows and columns of the image.
    """

    def __init__(self, shape_yx: tuple[int, int]) -> None:
        self._above, self._here = np.zeros((2, shape_yx[1] + 2), np.int64)
        self._left: NDArray[np.int64] = np.zeros(0, np.int64)
        self._sums: list[Array] = [np.zeros((1, 3))]
        self._links: list[NDArray[np.int64]] = [np.zeros((0, 2), np.int64)]
        self._count = 1

    def add(self, saturated: NDArray[np.bool_], rows: slice, columns: slice) -> None:
        """Take those of the next window."""
        labels = np.zeros(saturated.shape, np.int64)
        if saturated.any() and self._count < _MOST_CORES:
            labels = self._labelled(saturated, rows, columns)
        self._here[columns.start + 1 : columns.stop + 1] = labels[-1]
        self._left = np.pad(labels[:, -1], 1)
        if columns.stop == len(self._above) - 2:
            self._above, self._here = self._here, self._above

    def _labelled(
        self, saturated: NDArray[np.bool_], rows: slice, columns: slice
    ) -> NDArray[np.int64]:
        """Give the cores of a window numbers, and link them to those that they touch beyond its edges."""
        found, n = label(saturated, _EIGHT)
        y, x = np.nonzero(found)
        number = found[y, x] - 1
        sums = [
            np.bincount(number, weight, n) for weight in (y + rows.start, x + columns.start, None)
        ]
        self._sums.append(np.stack(sums, axis=1))
        labels = np.where(found > 0, found + (self._count - 1), 0).astype(np.int64)
        self._count += n
        self._link(self._above[columns.start : columns.stop + 2], labels[0])
        if columns.start:
            self._link(self._left, labels[:, 0])
        return labels

    def _link(self, beside: NDArray[np.int64], after: NDArray[np.int64]) -> None:
        """Link cores along an edge, of which ``beside`` has a pixel more at either end."""
        for shift in range(3):
            pairs = np.stack([beside[shift : shift + len(after)], after], axis=1)
            self._links.append(np.unique(pairs[(pairs > 0).all(axis=1)], axis=0))

    def halos(self, level: float, noise: float) -> Halos:
        """Return the halos of the stars; none where there are too many for a level that means saturation.

        Parameters
        ----------
        level : float
            From which pixels are saturated, above the background.
        noise : float
            Rms of a pixel, in the same units.
        """
        if self._count >= _MOST_CORES or not noise > 0 or not level > noise:
            return NO_HALOS
        links, sums = np.concatenate(self._links), np.concatenate(self._sums)
        graph = coo_array((np.ones(len(links)), links.T), shape=(len(sums), len(sums)))
        n, star = connected_components(graph, directed=False)
        y, x, area = (np.bincount(star, column, n) for column in sums.T)
        large = area >= _LEAST_CORE_PX
        yx = np.stack([y, x], axis=1)[large] / area[large, None]
        return Halos(yx, np.sqrt(area[large] / np.pi) * (level / noise) ** (1 / _WINGS))


def with_halos(bits: MaskBits | None) -> MaskBits:
    """Return the bits of a mask that marks halos, too, unless it has done so before or no bit is free."""
    known = MaskBits({"BAD": 0}, ("BAD",)) if bits is None else bits
    free = next((bit for bit in range(64) if bit not in known.bits.values()), None)
    if free is None or known.bright_value:
        return known
    return MaskBits({**known.bits, BRIGHT_STAR: free}, known.bad)
