"""Stamps: square cut-outs round the central of each pair, with what a model must know of them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

from deblend_batch import flags
from deblend_batch.tiling.pairs import Pairs
from deblend_batch.tiling.reader import TilePixels

_CENTRE_RADIUS_PX = 2
_VARIANCE_STEP_PX = 8


@dataclass(frozen=True)
class Stamps:
    """Stamps of the pairs of a tile.

    Parameters
    ----------
    pixels : ndarray of float32, shape (n, band, y, x)
        Image units; the central's nearest pixel is at ``[size // 2, size // 2]``. Bad pixels and those
        outside the image are 0, the background.
    central_yx, companion_yx : ndarray of float32, shape (n, 2)
        Positions of the members in the stamp, px.
    neighbours_yx : ndarray of float32, shape (n, 8, 2)
        Positions of other sources in the stamp, px, NaN-padded.
    sigma : ndarray of float32, shape (n, band)
        Background rms per pixel, image units.
    flags : ndarray of int32, shape (n, 2)
        What is known of each member so far.
    """

    pixels: NDArray[np.float32]
    central_yx: NDArray[np.float32]
    companion_yx: NDArray[np.float32]
    neighbours_yx: NDArray[np.float32]
    sigma: NDArray[np.float32]
    flags: NDArray[np.int32]

    def __len__(self) -> int:
        return len(self.pixels)


class StampCutter:
    """Cuts stamps out of one tile's pixels; made once a tile, used for its pairs in groups.

    Parameters
    ----------
    tile : TilePixels
        Pixels of the core and a halo of at least half a stamp.
    size : int
        Edge of a stamp, px.
    noise_sigma : ndarray of float32, shape (band,)
        Background rms where the field has no variance plane, image units.
    """

    def __init__(self, tile: TilePixels, size: int, noise_sigma: NDArray[np.float32]) -> None:
        self._origin = np.array(tile.box.origin_yx)
        self._inside = tile.inside
        self._size = size
        self._noise_sigma = noise_sigma
        bad = ~np.isfinite(tile.image)
        self._bad_sums = _window_sums(_bad_inside(bad, tile))
        self._image = np.where(bad, np.float32(0), tile.image) if bad.any() else tile.image
        self._variance = tile.variance

    def cut(self, pairs: Pairs) -> Stamps:
        """Cut the stamps of some pairs of the tile."""
        centre = np.floor(pairs.yx[:, 0] + 0.5).astype(np.int64)
        corner = centre - self._size // 2
        local = corner - self._origin
        in_stamp = (pairs.yx - corner[:, None]).astype(np.float32)
        return Stamps(
            pixels=_windows(self._image, local, self._size),
            central_yx=in_stamp[:, 0],
            companion_yx=in_stamp[:, 1],
            neighbours_yx=(pairs.neighbours_yx - corner[:, None]).astype(np.float32),
            sigma=self._sigma(local),
            flags=pairs.flags | self._flags(corner, local, pairs, in_stamp),
        )

    def _sigma(self, local: NDArray[np.int64]) -> NDArray[np.float32]:
        if self._variance is None:
            return np.broadcast_to(self._noise_sigma, (len(local), len(self._noise_sigma))).copy()
        step = _VARIANCE_STEP_PX
        windows = sliding_window_view(self._variance, (self._size, self._size), axis=(1, 2))
        sampled = windows[:, local[:, 0], local[:, 1], step // 2 :: step, step // 2 :: step]
        usable = np.where(np.isfinite(sampled) & (sampled > 0), sampled, np.nan)
        flat = usable.reshape(*usable.shape[:2], -1)
        flat = np.where(np.isnan(flat).all(axis=-1, keepdims=True), self._fallback(), flat)
        sigma: NDArray[np.float32] = np.sqrt(np.nanmedian(flat, axis=-1)).T.astype(np.float32)
        return sigma

    def _fallback(self) -> NDArray[np.float32]:
        return self._noise_sigma[:, None, None] ** 2

    def _flags(
        self,
        corner: NDArray[np.int64],
        local: NDArray[np.int64],
        pairs: Pairs,
        in_stamp: NDArray[np.float32],
    ) -> NDArray[np.int32]:
        far = corner + self._size
        box = self._inside
        edge = np.any((corner < (box.y0, box.x0)) | (far > (box.y1, box.x1)), axis=1)
        outside = np.any((in_stamp < -0.5) | (in_stamp > self._size - 0.5), axis=(1, 2))
        n_bad = self._count_bad(local, local + self._size)
        bits = np.zeros((len(pairs), 2), np.int32)
        bits |= flags.EDGE.where(edge)[:, None]
        bits |= flags.BAD_PIXELS.where(n_bad > 0)[:, None]
        bits |= flags.COMPANION_OUTSIDE.where(outside)[:, None]
        if n_bad.any():
            centres = np.floor(pairs.yx + 0.5).astype(np.int64) - self._origin
            for member in (0, 1):
                # Within the stamp: how far the tile's pixels reach beyond it is no property of the pair.
                low = np.clip(centres[:, member] - _CENTRE_RADIUS_PX, local, local + self._size)
                high = np.clip(
                    centres[:, member] + _CENTRE_RADIUS_PX + 1, local, local + self._size
                )
                bits[:, member] |= flags.BAD_CENTRE.where(self._count_bad(low, high) > 0)
        return bits

    def _count_bad(self, low: NDArray[np.int64], high: NDArray[np.int64]) -> NDArray[np.int64]:
        """Bad pixels in windows from ``low`` to ``high``, which lie within the tile."""
        sums = self._bad_sums
        if sums is None:
            return np.zeros(len(low), np.int64)
        count: NDArray[np.uint32] = (
            sums[high[:, 0], high[:, 1]]
            - sums[low[:, 0], high[:, 1]]
            - sums[high[:, 0], low[:, 1]]
            + sums[low[:, 0], low[:, 1]]
        )
        return count.astype(np.int64)


def _windows(
    image: NDArray[np.float32], local: NDArray[np.int64], size: int
) -> NDArray[np.float32]:
    windows = np.moveaxis(sliding_window_view(image, (size, size), axis=(1, 2)), 0, 2)
    stamps: NDArray[np.float32] = windows[local[:, 0], local[:, 1]]  # the one copy
    return stamps


def _bad_inside(bad: NDArray[np.bool_], tile: TilePixels) -> NDArray[np.bool_]:
    """Bad in any band, and inside the image: what lies outside is an edge, not a defect."""
    any_band: NDArray[np.bool_] = np.any(bad, axis=0)
    if tile.inside == tile.box:
        return any_band
    image = np.zeros_like(any_band)
    y0, x0 = tile.inside.y0 - tile.box.y0, tile.inside.x0 - tile.box.x0
    height, width = tile.inside.shape_yx
    image[y0 : y0 + height, x0 : x0 + width] = any_band[y0 : y0 + height, x0 : x0 + width]
    return image


def _window_sums(bad: NDArray[np.bool_]) -> NDArray[np.uint32] | None:
    """Summed-area table, so that counting bad pixels costs the same for every stamp; None if none is bad.

    Where a tile has more than 2^32 of them the sums wrap, and so do their differences: those of a stamp stay
    right.
    """
    if not bad.any():
        return None
    sums = np.zeros((bad.shape[0] + 1, bad.shape[1] + 1), np.uint32)
    inner = sums[1:, 1:]
    inner[...] = bad
    for axis in (0, 1):
        np.cumsum(inner, axis=axis, out=inner)
    return sums
