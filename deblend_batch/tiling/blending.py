"""Describing blends: roles, neighbours, extent, what is known of them before a pixel is read."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from deblend_batch import flags
from deblend_batch.detections.table import Detections
from deblend_batch.tiling import stamp_sizes
from deblend_batch.tiling.blends import MAX_OTHERS, Blends
from deblend_batch.tiling.grouping import Grouping
from deblend_batch.tiling.member_hash import hash_members
from deblend_batch.tiling.sphere import separations_arcsec, unit_vectors
from deblend_batch.tiling.tile import inside_image

_COINCIDENT_PX = 1.0


def describe_blends(
    grouping: Grouping,
    detections: Detections,
    yx: NDArray[np.float64],
    shape_yx: tuple[int, int],
    pixel_scale_arcsec: float,
    psf_fwhm_arcsec: float,
) -> Blends:
    """Describe blends, sorted by blend id.

    Parameters
    ----------
    grouping : Grouping
        Their members; any of those of a field, since they do not depend on each other.
    detections : Detections
        All detections with finite positions in and near the image.
    yx : ndarray of float64, shape (n, 2)
        Their pixel positions (y, x).
    shape_yx : tuple of int
        Rows and columns of the image.
    pixel_scale_arcsec : float
        Edge of a pixel.
    psf_fwhm_arcsec : float
        Full width at half maximum of the widest band's PSF: stamps hold at least that much of a source.

    Returns
    -------
    Blends
        With as many columns as the largest has members.
    """
    grouping, blend_id = _sorted(grouping, detections.id)
    grouping, by_mag = _ordered(grouping, detections)
    member = grouping.rows >= 0
    place = np.where(member[..., None], yx[grouping.rows], np.nan)
    radec = np.stack([detections.ra, detections.dec], axis=-1)
    radius = np.where(member, detections.radius_arcsec[grouping.rows], np.float32(np.nan))
    centre, extent = _frame(
        place,
        grouping.is_measured,
        radius / pixel_scale_arcsec,
        psf_fwhm_arcsec / pixel_scale_arcsec,
    )
    sky = np.where(member[..., None], radec[grouping.rows], np.nan)
    nearest = _nearest(member.sum(axis=1), sky, place)
    bits = flags.OUTSIDE_IMAGE.where(~inside_image(yx, shape_yx)[grouping.rows])
    bits |= flags.ROLE_BY_ID.where(~by_mag & (member.sum(axis=1) > 1))[:, None]
    bits |= flags.COINCIDENT.where(nearest.distance_px < _COINCIDENT_PX)
    bits |= flags.GROUP_DIVIDED.where(grouping.is_divided)[:, None]
    bits |= flags.LARGER_THAN_STAMP.where(stamp_sizes.is_larger(extent))[:, None]
    return Blends(
        blend_id=blend_id,
        n_members=member.sum(axis=1).astype(np.int16),
        source_id=np.where(member, detections.id[grouping.rows], 0),
        yx=place,
        radec=sky,
        is_measured=grouping.is_measured,
        mag=np.where(member, detections.mag[grouping.rows], np.float32(np.nan)),
        radius_arcsec=radius,
        neighbour=nearest.member,
        separation_arcsec=nearest.separation_arcsec,
        flags=np.where(member, bits, 0),
        centre_yx=centre,
        extent_px=extent,
        others_yx=_others(grouping.rows, yx, centre, stamp_sizes.stamp_sizes(extent)),
    )


def _sorted(grouping: Grouping, ids: NDArray[np.int64]) -> tuple[Grouping, NDArray[np.int64]]:
    """Sort blends by their id."""
    n_members = (grouping.rows >= 0).sum(axis=1)
    hashes = np.empty(len(grouping), np.int64)
    for size in range(1, grouping.rows.shape[1] + 1):
        blends = n_members == size
        hashes[blends] = hash_members(ids[grouping.rows[blends, :size]])
    order = np.argsort(hashes, kind="stable")
    return grouping[order], hashes[order]


def _ordered(grouping: Grouping, detections: Detections) -> tuple[Grouping, NDArray[np.bool_]]:
    """Put the central first, and what is not measured last; say where magnitudes decided."""
    member = grouping.rows >= 0
    mag, ids = detections.mag[grouping.rows], detections.id[grouping.rows]
    by_mag = np.all(np.isfinite(mag) | ~member, axis=1)
    brightness = np.where(by_mag[:, None], mag, np.float32(0))
    order = np.lexsort((ids, brightness, ~grouping.is_measured, ~member), axis=1)
    rows = np.take_along_axis(grouping.rows, order, axis=1)
    is_measured = np.take_along_axis(grouping.is_measured, order, axis=1)
    return Grouping(rows, is_measured, grouping.is_divided), by_mag


def _frame(
    yx: NDArray[np.float64],
    is_measured: NDArray[np.bool_],
    radius_px: NDArray[np.floating],
    psf_fwhm_px: float,
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the middle of each blend and the edge of the square about it that a stamp should hold."""
    if len(yx) == 0:
        return np.empty((0, 2)), np.empty(0)
    centre = (np.nanmin(yx, axis=1) + np.nanmax(yx, axis=1)) / 2
    offset = np.abs(yx - centre[:, None]).max(axis=2)
    # Of those that are only fitted beside the others, the middle is enough.
    reach = np.where(is_measured, stamp_sizes.reach_px(radius_px, psf_fwhm_px), psf_fwhm_px)
    return centre, stamp_sizes.extent_of(offset, reach)


@dataclass(frozen=True)
class _Nearest:
    """Of each member the one that is nearest, shape (n, m)."""

    member: NDArray[np.int8]
    separation_arcsec: NDArray[np.float64]
    distance_px: NDArray[np.float64]


def _nearest(
    n_members: NDArray[np.int64], radec: NDArray[np.float64], yx: NDArray[np.float64]
) -> _Nearest:
    shape = yx.shape[:2]
    found = _Nearest(np.full(shape, -1, np.int8), np.full(shape, np.nan), np.full(shape, np.inf))
    for size in range(2, shape[1] + 1):
        blends = np.flatnonzero(n_members == size)
        vectors = unit_vectors(*np.moveaxis(radec[blends, :size], -1, 0))
        itself = np.eye(size, dtype=bool)
        apart = separations_arcsec(vectors[:, :, None], vectors[:, None])
        apart = np.where(itself, np.inf, apart)
        pixels = np.linalg.norm(yx[blends, :size, None] - yx[blends, None, :size], axis=-1)
        found.member[blends, :size] = apart.argmin(axis=2)
        found.separation_arcsec[blends, :size] = apart.min(axis=2)
        found.distance_px[blends, :size] = np.where(itself, np.inf, pixels).min(axis=2)
    return found


def _others(
    rows: NDArray[np.int64],
    yx: NDArray[np.float64],
    centre_yx: NDArray[np.float64],
    sizes: NDArray[np.int64],
) -> NDArray[np.float32]:
    """Positions of the nearest sources in each stamp that are not members."""
    found = np.full((len(rows), MAX_OTHERS, 2), np.nan, np.float32)
    if len(rows) == 0:
        return found
    tree = cKDTree(yx)
    for size in np.unique(sizes):
        blends = np.flatnonzero(sizes == size)
        k = min(MAX_OTHERS + rows.shape[1], len(yx))
        distance, index = tree.query(
            centre_yx[blends], k=[*range(1, k + 1)], p=np.inf, distance_upper_bound=size / 2
        )
        wanted = np.isfinite(distance)
        for column in rows[blends].T:
            wanted &= index != column[:, None]
        packed = np.argsort(~wanted, axis=1, kind="stable")[:, :MAX_OTHERS]
        kept = np.take_along_axis(wanted, packed, axis=1)
        index = np.take_along_axis(np.where(wanted, index, 0), packed, axis=1)
        found[blends, : packed.shape[1]] = np.where(kept[..., None], yx[index], np.nan)
    return found
