"""Stamps: square cut-outs of blends, with what a model must know of them."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

from deblend_batch import flags
from deblend_batch.tiling.blends import Blends
from deblend_batch.tiling.reader import TilePixels

_CENTRE_RADIUS_PX = 2
_VARIANCE_STEP_PX = 8


@dataclass(frozen=True)
class Cut:
    """What is known of blends that were cut, beside their pixels.

    Parameters
    ----------
    blends : Blends
        The blends, n of them, all with stamps of one size.
    corner_yx : ndarray of int64, shape (n, 2)
        First pixel of each stamp.
    members_yx : ndarray of float32, shape (n, m, 2)
        Positions of the members in the stamp, px; NaN in the padding.
    others_yx : ndarray of float32, shape (n, k, 2)
        Positions of other sources in the stamp, px, NaN-padded.
    sigma : ndarray of float32, shape (n, band)
        Background rms per pixel, image units.
    flags : ndarray of int32, shape (n, m)
        What is known of each member so far.
    saturated : ndarray of bool, shape (n, band, m)
        Whether a pixel at the member's position is saturated.
    """

    blends: Blends
    corner_yx: NDArray[np.int64]
    members_yx: NDArray[np.float32]
    others_yx: NDArray[np.float32]
    sigma: NDArray[np.float32]
    flags: NDArray[np.int32]
    saturated: NDArray[np.bool_]

    def __len__(self) -> int:
        return len(self.blends)

    def __getitem__(self, rows: NDArray[np.generic]) -> Cut:
        return Cut(*(getattr(self, each.name)[rows] for each in fields(self)))


@dataclass(frozen=True)
class Stamps:
    """Stamps of some blends of a tile.

    Parameters
    ----------
    cut : Cut
        What is known of them beside their pixels.
    pixels : ndarray of float32, shape (n, band, y, x)
        Image units; the pixel nearest to the middle of the blend is at ``[size // 2, size // 2]``. Bad pixels
        and those outside the image are 0, the background.
    weights : ndarray of float32, the same shape, or None
        Inverse variance; 0 where a pixel is bad, saturated or outside the image. None if not asked for.
    """

    cut: Cut
    pixels: NDArray[np.float32]
    weights: NDArray[np.float32] | None

    def __len__(self) -> int:
        return len(self.pixels)


class StampCutter:
    """Cuts stamps out of one tile's pixels; made once a tile, used for its blends in groups.

    Parameters
    ----------
    tile : TilePixels
        Pixels of the core and a halo of at least half a stamp.
    noise_sigma : ndarray of float32, shape (band,)
        Background rms where the field has no variance plane, image units.
    with_weights : bool
        Whether weights are wanted.
    """

    def __init__(
        self, tile: TilePixels, noise_sigma: NDArray[np.float32], *, with_weights: bool = False
    ) -> None:
        self._origin = np.array(tile.box.origin_yx)
        self._inside = tile.inside
        self._noise_sigma = noise_sigma
        bad = ~np.isfinite(tile.image)
        self._bad_sums = _window_sums(_bad_inside(bad, tile))
        self._saturated_sums = _saturated_sums(tile.saturated)
        self._near_star_sums = None if tile.near_star is None else _window_sums(tile.near_star)
        self._image = np.where(bad, np.float32(0), tile.image) if bad.any() else tile.image
        self._variance = tile.variance
        self._weights = _weights(tile, bad, noise_sigma) if with_weights else None

    def cut(self, blends: Blends) -> Stamps:
        """Cut the stamps of some blends of the tile, all of one size."""
        size = int(blends.stamp_size[0]) if len(blends) else 1
        centre = np.floor(blends.centre_yx + 0.5).astype(np.int64)
        corner = centre - size // 2
        local = corner - self._origin
        in_stamp = (blends.yx - corner[:, None]).astype(np.float32)
        cut = Cut(
            blends=blends,
            corner_yx=corner,
            members_yx=in_stamp,
            others_yx=(blends.others_yx - corner[:, None]).astype(np.float32),
            sigma=self._sigma(local, size),
            flags=blends.flags,
            saturated=np.zeros((len(blends), len(self._image), blends.width), bool),
        )
        weights = None if self._weights is None else _windows(self._weights, local, size)
        cut = self._with_flags(cut, local, size)
        return Stamps(cut, _windows(self._image, local, size), weights)

    def _sigma(self, local: NDArray[np.int64], size: int) -> NDArray[np.float32]:
        if self._variance is None:
            return np.broadcast_to(self._noise_sigma, (len(local), len(self._noise_sigma))).copy()
        step = _VARIANCE_STEP_PX
        windows = sliding_window_view(self._variance, (size, size), axis=(1, 2))
        sampled = windows[:, local[:, 0], local[:, 1], step // 2 :: step, step // 2 :: step]
        usable = np.where(np.isfinite(sampled) & (sampled > 0), sampled, np.nan)
        flat = usable.reshape(*usable.shape[:2], -1)
        none = np.asarray(np.isnan(flat).all(axis=-1))
        median = np.nanmedian(np.where(none[..., None], np.float32(0), flat), axis=-1)
        variance = np.where(none, self._noise_sigma[:, None] ** 2, median)
        return np.asarray(np.sqrt(variance).T.astype(np.float32))

    def _with_flags(self, cut: Cut, local: NDArray[np.int64], size: int) -> Cut:
        far, box = cut.corner_yx + size, self._inside
        edge = np.any((cut.corner_yx < (box.y0, box.x0)) | (far > (box.y1, box.x1)), axis=1)
        outside = np.any((cut.members_yx < -0.5) | (cut.members_yx > size - 0.5), axis=(1, 2))
        n_bad = _count(self._bad_sums, local, local + size)
        bits = cut.flags | flags.EDGE.where(edge)[:, None]
        bits |= flags.BAD_PIXELS.where(n_bad > 0)[:, None]
        bits |= flags.COMPANION_OUTSIDE.where(outside)[:, None]
        if n_bad.any():
            near_bad = self._count_near(self._bad_sums, cut, local, size)
            bits |= flags.BAD_CENTRE.where(np.asarray(near_bad > 0))
        saturated = cut.saturated
        if any(sums is not None for sums in self._saturated_sums):
            near = [self._count_near(sums, cut, local, size) for sums in self._saturated_sums]
            saturated = np.stack(near, axis=1) > 0
            bits |= flags.SATURATED.where(np.asarray(saturated.any(axis=1)))
        if self._near_star_sums is not None:
            # The star itself is saturated, and not beside one.
            beside = self._count_near(self._near_star_sums, cut, local, size) > 0
            bits |= flags.NEAR_BRIGHT_STAR.where(beside & ((bits & flags.SATURATED.value) == 0))
        return replace(cut, flags=np.where(cut.blends.is_member, bits, 0), saturated=saturated)

    def _count_near(
        self, sums: NDArray[np.uint32] | None, cut: Cut, local: NDArray[np.int64], size: int
    ) -> NDArray[np.int64]:
        """Count pixels within two pixels of each member's position, (n, m)."""
        place = np.where(
            cut.blends.is_member[..., None], cut.blends.yx, cut.blends.centre_yx[:, None]
        )
        centres = np.floor(place + 0.5).astype(np.int64) - self._origin
        counts = []
        for member in range(cut.blends.width):
            # Within the stamp: how far the tile's pixels reach beyond it is no property of the blend.
            low = np.clip(centres[:, member] - _CENTRE_RADIUS_PX, local, local + size)
            high = np.clip(centres[:, member] + _CENTRE_RADIUS_PX + 1, local, local + size)
            counts.append(_count(sums, low, high))
        return np.stack(counts, axis=1)


def _windows(
    image: NDArray[np.float32], local: NDArray[np.int64], size: int
) -> NDArray[np.float32]:
    windows = np.moveaxis(sliding_window_view(image, (size, size), axis=(1, 2)), 0, 2)
    stamps: NDArray[np.float32] = windows[local[:, 0], local[:, 1]]  # the one copy
    return stamps


def _weights(
    tile: TilePixels, bad: NDArray[np.bool_], noise_sigma: NDArray[np.float32]
) -> NDArray[np.float32]:
    """Inverse variance of each pixel; 0 of those that tell nothing."""
    variance = (noise_sigma**2)[:, None, None] if tile.variance is None else tile.variance
    usable = ~bad & np.isfinite(variance) & (variance > 0)
    if tile.saturated is not None:
        usable &= ~tile.saturated
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(usable, 1 / variance, np.float32(0)).astype(np.float32, copy=False)


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


def _saturated_sums(saturated: NDArray[np.bool_] | None) -> list[NDArray[np.uint32] | None]:
    return [] if saturated is None else [_window_sums(band) for band in saturated]


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


def _count(
    sums: NDArray[np.uint32] | None, low: NDArray[np.int64], high: NDArray[np.int64]
) -> NDArray[np.int64]:
    """Count pixels in windows from ``low`` to ``high``, which lie within the tile."""
    if sums is None:
        return np.zeros(len(low), np.int64)
    count: NDArray[np.uint32] = (
        sums[high[:, 0], high[:, 1]]
        - sums[low[:, 0], high[:, 1]]
        - sums[high[:, 0], low[:, 1]]
        + sums[low[:, 0], low[:, 1]]
    )
    return count.astype(np.int64)
