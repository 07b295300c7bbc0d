"""Describing blends: roles, neighbours, stamps, what is known of them before a pixel is read."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from deblend_batch import flags
from deblend_batch.detections.table import Detections
from deblend_batch.tiling import stamp_sizes
from deblend_batch.tiling.blends import MAX_OTHERS, MAX_OTHERS_OF_FIT, Blends
from deblend_batch.tiling.grouping import Grouping
from deblend_batch.tiling.member_hash import hash_members
from deblend_batch.tiling.sphere import separations_arcsec, unit_vectors
from deblend_batch.tiling.tile import inside_image

_COINCIDENT_PX = 1.0


@dataclass(frozen=True)
class Sky:
    """The sources of a field, and where they lie.

    Parameters
    ----------
    detections : Detections
        All detections with finite positions in and near the image.
    yx : ndarray of float64, shape (n, 2)
        Their pixel positions (y, x).
    shape_yx : tuple of int
        Rows and columns of the image.
    key : ndarray of int64, shape (n,), optional
        What tells a source from all others of the run, which blend ids are hashes of; their ids if absent.
    """

    detections: Detections
    yx: NDArray[np.float64]
    shape_yx: tuple[int, int]
    key: NDArray[np.int64] | None = None

    @property
    def keys(self) -> NDArray[np.int64]:
        """What blend ids are hashes of."""
        return self.detections.id if self.key is None else self.key


def describe_pairs(rows: NDArray[np.int64], sky: Sky, stamp_size: int) -> Blends:
    """Describe pairs, sorted by blend id, for a model whose stamps have the central in their middle.

    Parameters
    ----------
    rows : ndarray of int64, shape (n, 2)
        Row numbers [central, companion] of the detections.
    sky : Sky
        The field.
    stamp_size : int
        Edge of the model's stamps, px: decides which sources count as neighbours.

    Returns
    -------
    Blends
        Of two members.
    """
    grouping, blend_id = _sorted(Grouping.of_pairs(rows), sky.keys)
    sizes = np.full(len(grouping), stamp_size, np.int16)
    frame = _Frame(sky.yx[grouping.rows[:, 0]], sizes, MAX_OTHERS, stamp_size / 2)
    blends = _described(grouping, blend_id, frame, sky)
    crowded = flags.CROWDED.where(np.isfinite(blends.others_yx[:, 0, 0]))
    return replace(blends, flags=blends.flags | crowded[:, None])


def describe_blends(
    grouping: Grouping, sky: Sky, pixel_scale_arcsec: float, psf_fwhm_arcsec: float
) -> Blends:
    """Describe blends, sorted by blend id, each with a stamp that holds its members.

    Parameters
    ----------
    grouping : Grouping
        Their members, those that are measured first (:func:`central_first`); any blends of a field, since
        they do not depend on each other.
    sky : Sky
        The field.
    pixel_scale_arcsec : float
        Edge of a pixel.
    psf_fwhm_arcsec : float
        Full width at half maximum of the widest band's PSF: stamps hold at least that much of a source.

    Returns
    -------
    Blends
        With as many columns as the largest has members.
    """
    grouping, blend_id = _sorted(grouping, sky.keys)
    member = grouping.rows >= 0
    radius = np.where(member, sky.detections.radius_arcsec[grouping.rows], np.float32(np.nan))
    centre, extent = _extent(
        np.where(member[..., None], sky.yx[grouping.rows], np.nan),
        grouping.is_measured,
        radius / pixel_scale_arcsec,
        psf_fwhm_arcsec / pixel_scale_arcsec,
    )
    sizes = stamp_sizes.stamp_sizes(extent).astype(np.int16)
    # A stamp that turns out too small is cut again. The light of a source just beyond the edge is in it.
    reach = stamp_sizes.STAMP_SIZES_PX[-1] / 2 + stamp_sizes.MARGIN_PX
    frame = _Frame(centre, sizes, MAX_OTHERS_OF_FIT, reach)
    blends = _described(grouping, blend_id, frame, sky)
    bits = flags.GROUP_DIVIDED.where(grouping.is_divided)
    bits |= flags.LARGER_THAN_STAMP.where(stamp_sizes.is_larger(extent))
    return replace(blends, flags=np.where(member, blends.flags | bits[:, None], 0))


def central_first(grouping: Grouping, detections: Detections) -> Grouping:
    """Put the central first, and what is not measured last."""
    member = grouping.rows >= 0
    mag, ids = detections.mag[grouping.rows], detections.id[grouping.rows]
    brightness = np.where(_by_mag(grouping, detections)[:, None], mag, np.float32(0))
    order = np.lexsort((ids, brightness, ~grouping.is_measured, ~member), axis=1)
    rows = np.take_along_axis(grouping.rows, order, axis=1)
    is_measured = np.take_along_axis(grouping.is_measured, order, axis=1)
    return Grouping(rows, is_measured, grouping.is_divided)


def choose_primary(
    source_id: NDArray[np.int64],
    separation_arcsec: NDArray[np.float64],
    blend_id: NDArray[np.int64],
    is_measured: NDArray[np.bool_],
) -> NDArray[np.bool_]:
    """Mark, for each source, its row where its neighbour is closest (ties: the smaller blend id).

    Parameters
    ----------
    source_id : ndarray of int64, shape (n, m)
        Members of each blend.
    separation_arcsec : ndarray of float64, shape (n, m)
        Distance to the nearest other member; NaN where there is none.
    blend_id : ndarray of int64, shape (n,)
        Blend ids.
    is_measured : ndarray of bool, shape (n, m)
        Which members have a row.

    Returns
    -------
    ndarray of bool, shape (n, m)
        Exactly one True per source that has a row.
    """
    rows = np.flatnonzero(is_measured.ravel())
    members = source_id.ravel()[rows]
    blend = np.repeat(blend_id, source_id.shape[1])[rows]
    order = np.lexsort((blend, separation_arcsec.ravel()[rows], members))
    first = np.ones(len(order), bool)
    first[1:] = members[order][1:] != members[order][:-1]
    primary = np.zeros(source_id.size, bool)
    primary[rows[order[first]]] = True
    return primary.reshape(source_id.shape)


@dataclass(frozen=True)
class _Frame:
    """Where stamps are to be, px: middles (n, 2), edges (n,); how many others are told, within what reach."""

    centre_yx: NDArray[np.float64]
    size: NDArray[np.int16]
    n_others: int
    reach_px: float


def _described(grouping: Grouping, blend_id: NDArray[np.int64], frame: _Frame, sky: Sky) -> Blends:
    """Describe blends in the order given, of blends and of members."""
    detections, rows = sky.detections, grouping.rows
    member = rows >= 0
    n_members = member.sum(axis=1)
    radec = np.stack([detections.ra, detections.dec], axis=-1)
    place = np.where(member[..., None], sky.yx[rows], np.nan)
    radec = np.where(member[..., None], radec[rows], np.nan)
    source_id = np.where(member, detections.id[rows], 0)
    nearest = _nearest(n_members, radec, place)
    bits = flags.OUTSIDE_IMAGE.where(~inside_image(sky.yx, sky.shape_yx)[rows])
    bits |= flags.ROLE_BY_ID.where(~_by_mag(grouping, detections) & (n_members > 1))[:, None]
    bits |= flags.COINCIDENT.where(nearest.distance_px < _COINCIDENT_PX)
    return Blends(
        blend_id=blend_id,
        n_members=n_members.astype(np.int16),
        source_id=source_id,
        yx=place,
        radec=radec,
        is_measured=grouping.is_measured,
        is_primary=choose_primary(
            source_id, nearest.separation_arcsec, blend_id, grouping.is_measured
        ),
        neighbour=nearest.member,
        separation_arcsec=nearest.separation_arcsec,
        flags=np.where(member, bits, 0),
        centre_yx=frame.centre_yx,
        stamp_size=frame.size,
        others_yx=_others(rows, sky.yx, frame),
        psf_fwhm_arcsec=_psf_fwhm(rows[:, 0], detections),
    )


def _psf_fwhm(central: NDArray[np.int64], detections: Detections) -> NDArray[np.float32]:
    if detections.psf_fwhm_arcsec is None:
        return np.full((len(central), 1), np.nan, np.float32)
    return detections.psf_fwhm_arcsec[central]


def _sorted(grouping: Grouping, keys: NDArray[np.int64]) -> tuple[Grouping, NDArray[np.int64]]:
    """Sort blends by their id: of the members that they measure, in which no two are alike.

    Those stand first; of a group that was divided, or that two fields share, several blends may have the same
    members, and measure different ones.
    """
    n_measured = grouping.is_measured.sum(axis=1)
    hashes = np.empty(len(grouping), np.int64)
    for size in range(1, grouping.rows.shape[1] + 1):
        blends = n_measured == size
        hashes[blends] = hash_members(keys[grouping.rows[blends, :size]])
    order = np.argsort(hashes, kind="stable")
    return grouping[order], hashes[order]


def _by_mag(grouping: Grouping, detections: Detections) -> NDArray[np.bool_]:
    """Whether the magnitudes of all members of a blend are known."""
    known = np.isfinite(detections.mag[grouping.rows]) | (grouping.rows < 0)
    return np.asarray(known.all(axis=1))


def _extent(
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


def _others(rows: NDArray[np.int64], yx: NDArray[np.float64], frame: _Frame) -> NDArray[np.float32]:
    """Positions of the sources nearest to the middle of each stamp that are not members."""
    most = frame.n_others
    found = np.full((len(rows), most, 2), np.nan, np.float32)
    if len(rows) == 0:
        return found
    # The nearest of all hold the members, so at most as many as are told remain to be packed.
    k = min(most + rows.shape[1], len(yx))
    distance, index = cKDTree(yx).query(
        frame.centre_yx, k=[*range(1, k + 1)], p=np.inf, distance_upper_bound=frame.reach_px
    )
    wanted = np.isfinite(distance)
    for column in rows.T:
        wanted &= index != column[:, None]
    packed = np.argsort(~wanted, axis=1, kind="stable")[:, :most]
    kept = np.take_along_axis(wanted, packed, axis=1)
    index = np.take_along_axis(np.where(wanted, index, 0), packed, axis=1)
    found[:, : packed.shape[1]] = np.where(kept[..., None], yx[index], np.nan)
    return found
