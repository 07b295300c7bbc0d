"""Tiles: boxes of pixels that share a field between workers."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Box:
    """A half-open rectangle of pixels.

    Parameters
    ----------
    y0, x0 : int
        First row and column.
    y1, x1 : int
        Row and column after the last.
    """

    y0: int
    x0: int
    y1: int
    x1: int

    @property
    def shape_yx(self) -> tuple[int, int]:
        """Rows and columns."""
        return self.y1 - self.y0, self.x1 - self.x0

    @property
    def origin_yx(self) -> tuple[int, int]:
        """First row and column."""
        return self.y0, self.x0

    @property
    def slices(self) -> tuple[slice, slice]:
        """Rows and columns, of an image whose first pixel is (0, 0)."""
        return slice(self.y0, self.y1), slice(self.x0, self.x1)

    def shifted(self, by_yx: tuple[int, int]) -> Box:
        """Return the box so many rows and columns further."""
        dy, dx = by_yx
        return Box(self.y0 + dy, self.x0 + dx, self.y1 + dy, self.x1 + dx)

    def grown(self, margin_px: int) -> Box:
        """Return the box with ``margin_px`` more on every side."""
        return Box(
            self.y0 - margin_px, self.x0 - margin_px, self.y1 + margin_px, self.x1 + margin_px
        )

    def clipped(self, shape_yx: tuple[int, int]) -> Box:
        """Return the part of the box inside an image of ``shape_yx``."""
        height, width = shape_yx
        # Plain integers: np.clip is ten times slower, and a run has a box for every tile.
        return Box(
            min(max(self.y0, 0), height),
            min(max(self.x0, 0), width),
            min(max(self.y1, 0), height),
            min(max(self.x1, 0), width),
        )


def inside_image(yx: NDArray[np.float64], shape_yx: tuple[int, int]) -> NDArray[np.bool_]:
    """Tell which positions lie on a pixel of an image.

    Parameters
    ----------
    yx : ndarray of float64, shape (n, 2)
        Pixel positions (y, x); a pixel reaches half a pixel round its centre. NaN lies nowhere.
    shape_yx : tuple of int
        Rows and columns.

    Returns
    -------
    ndarray of bool, shape (n,)
        True inside.
    """
    inside: NDArray[np.bool_] = np.all((yx >= -0.5) & (yx < np.array(shape_yx) - 0.5), axis=1)
    return inside


@dataclass(frozen=True)
class TileGrid:
    """The tiles of a field: square cores that cover it once, without overlap.

    Parameters
    ----------
    shape_yx : tuple of int
        Rows and columns of the image.
    size : int
        Edge of a core, px; cores at the far edges are smaller.
    """

    shape_yx: tuple[int, int]
    size: int

    @property
    def counts_yx(self) -> tuple[int, int]:
        """Number of tiles along y and x."""
        return -(-self.shape_yx[0] // self.size), -(-self.shape_yx[1] // self.size)

    def __len__(self) -> int:
        return self.counts_yx[0] * self.counts_yx[1]

    def owner(self, yx: NDArray[np.float64]) -> NDArray[np.int64]:
        """Find the tile whose core holds each position.

        Parameters
        ----------
        yx : ndarray of float64, shape (n, 2)
            Pixel positions (y, x), finite. A pixel reaches half a pixel round its centre; positions
            outside the image belong to the nearest tile.

        Returns
        -------
        ndarray of int64, shape (n,)
            Row-major numbers of the tiles.
        """
        pixel = np.clip(np.floor(yx + 0.5), 0, np.array(self.shape_yx) - 1).astype(np.int64)
        tile_yx = pixel // self.size
        owner: NDArray[np.int64] = tile_yx[:, 0] * self.counts_yx[1] + tile_yx[:, 1]
        return owner

    def core(self, number: int) -> Box:
        """Return the core of a tile."""
        iy, ix = divmod(number, self.counts_yx[1])
        return Box(
            iy * self.size, ix * self.size, (iy + 1) * self.size, (ix + 1) * self.size
        ).clipped(self.shape_yx)

    def reach(self, number: int, stamp_size: int) -> Box:
        """Return the pixels that the stamps of a tile may reach: its core and a halo, within the image."""
        return self.core(number).grown(stamp_size // 2 + 1).clipped(self.shape_yx)

    def name(self, number: int) -> str:
        """Return the name of a tile, the same in every run."""
        iy, ix = divmod(number, self.counts_yx[1])
        return f"y{iy:04d}x{ix:04d}"


def compact_order(yx: NDArray[np.float64], largest: int = 1) -> NDArray[np.int64]:
    """Order positions so that ranges of them are compact on the image.

    The positions are halved at the median along their longer extent, and so on, down to ranges of at most
    ``largest``, in which the given order stays. The ranges of :func:`halves` are among those.

    Parameters
    ----------
    yx : ndarray of float64, shape (n, 2)
        Pixel positions (y, x), finite.
    largest : int
        Length of a range that is not divided further.

    Returns
    -------
    ndarray of int64, shape (n,)
        Rows of ``yx``; ties keep the given order.
    """
    rows = np.arange(len(yx), dtype=np.int64)
    for start, stop in halves(len(yx), largest, inner=True):
        part = rows[start:stop]
        axis = int(np.argmax(np.ptp(yx[part], axis=0)))
        rows[start:stop] = part[np.argsort(yx[part, axis], kind="stable")]
    for start, stop in halves(len(yx), largest):
        rows[start:stop].sort()
    return rows


def halves(n: int, largest: int, *, inner: bool = False) -> list[tuple[int, int]]:
    """Halve a range until no part is longer than ``largest``."""
    found, waiting = [], [(0, n)]
    while waiting:
        start, stop = waiting.pop()
        divided = stop - start > largest
        if divided == inner and stop > start:
            found.append((start, stop))
        if divided:
            middle = (start + stop) // 2
            waiting += [(middle, stop), (start, middle)]
    return found
