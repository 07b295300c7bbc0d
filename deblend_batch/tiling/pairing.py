"""Pairing: which detections blend, who is central, which row of a source is the one to use.

Everything here depends on the detections alone, never on tiles, so that a catalogue does not depend on how
the field was divided.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from deblend_batch import flags
from deblend_batch.detections.table import Detections
from deblend_batch.errors import TooLargeError
from deblend_batch.tiling.member_hash import hash_members
from deblend_batch.tiling.pairs import MAX_NEIGHBOURS, Pairs
from deblend_batch.tiling.sphere import separations_arcsec, unit_vectors
from deblend_batch.tiling.tile import inside_image

_COINCIDENT_PX = 1.0
_FREE_PAIRS = 1_000_000
_PAIRS_PER_SOURCE = 8
_OPTION = "pairs.max_separation"
_MIXED = np.array([1, 0x9E3779B97F4A7C15 - (1 << 64), 0x94D049BB133111EB - (1 << 64)], np.int64)
"""Makes one number of a cell's three; two cells with the same one only count as more crowded."""


def blend_ids(first: NDArray[np.int64], second: NDArray[np.int64]) -> NDArray[np.int64]:
    """Hash two member ids to the id of their blend, the same in every run and in either order.

    As :func:`deblend_batch.tiling.member_hash.hash_members` does for any number.

    Parameters
    ----------
    first, second : ndarray of int64, shape (n,)
        Member ids, in any order.

    Returns
    -------
    ndarray of int64, shape (n,)
        Non-negative blend ids.
    """
    return hash_members(np.stack([first, second], axis=-1))


def match_within(
    ra_deg: NDArray[np.float64], dec_deg: NDArray[np.float64], max_separation_arcsec: float
) -> NDArray[np.int64]:
    """Find every unordered pair of positions that are close on the sky.

    Parameters
    ----------
    ra_deg, dec_deg : ndarray of float64, shape (n,)
        ICRS degrees, finite.
    max_separation_arcsec : float
        Largest separation, inclusive.

    Returns
    -------
    ndarray of int64, shape (m, 2)
        Row numbers of the two members.
    """
    if len(ra_deg) < 2:
        return np.empty((0, 2), np.int64)
    vectors = unit_vectors(ra_deg, dec_deg)
    # A hair more than asked for: rounding of the chord must not decide; the exact angle does, below.
    chord = 2 * np.sin(np.radians(max_separation_arcsec / 3600) / 2) * (1 + 1e-9)
    found = cKDTree(vectors).query_pairs(chord, output_type="ndarray")
    rows: NDArray[np.int64] = np.asarray(found, np.int64)
    close = separations_arcsec(vectors[rows[:, 0]], vectors[rows[:, 1]])
    return rows[close <= max_separation_arcsec * (1 + 1e-12)]


def check_crowding(
    ra_deg: NDArray[np.float64],
    dec_deg: NDArray[np.float64],
    max_separation_arcsec: float,
    option: str = _OPTION,
) -> None:
    """Refuse positions of which so many are close that no sky has them, before their pairs are listed.

    Parameters
    ----------
    ra_deg, dec_deg : ndarray of float64, shape (n,)
        ICRS degrees, finite.
    max_separation_arcsec : float
        How close two of a pair are.
    option : str
        What sets it, for the message.

    Raises
    ------
    TooLargeError
        If they make more than a million pairs, and more than eight a source: in the most crowded fields of
        the Milky Way there are 0.5 within 2 arcsec.
    """
    vectors = unit_vectors(ra_deg, dec_deg)
    chord = 2 * np.sin(np.radians(max_separation_arcsec / 3600) / 2) * (1 + 1e-9)
    # A pair lies in one cell or in two that touch: 27 cells about each source hold its partners. Where there
    # is hardly more than one source in a cell, as in every sky, there is nothing to count.
    cells = np.floor(vectors / chord).astype(np.int64) @ _MIXED
    in_cell = np.unique(cells, return_counts=True)[1].astype(np.float64)
    if (in_cell**2).sum() <= max(_FREE_PAIRS * 2 / 27, 2 * len(vectors)):
        return
    tree = cKDTree(vectors)
    check_number((int(tree.count_neighbors(tree, chord)) - len(vectors)) // 2, len(vectors), option)


def check_number(n_pairs: int, n_sources: int, option: str = _OPTION) -> None:
    """Refuse more pairs than the sources of any sky make; see :func:`check_crowding`."""
    if n_pairs > most_pairs(n_sources):
        raise TooLargeError(
            f"{n_pairs:,} pairs of {n_sources:,} sources, more than any sky has; remove repeated sources, or "
            f"choose a smaller {option}"
        )


def most_pairs(n_sources: int) -> int:
    """Return how many pairs are listed before they are refused."""
    return max(_FREE_PAIRS, _PAIRS_PER_SOURCE * n_sources)


def order_members(rows: NDArray[np.int64], detections: Detections) -> NDArray[np.int64]:
    """Put the central first: the brighter where both magnitudes are known, else the smaller id.

    Parameters
    ----------
    rows : ndarray of int64, shape (m, 2)
        Row numbers in ``detections``.
    detections : Detections
        The detections.

    Returns
    -------
    ndarray of int64, shape (m, 2)
        Row numbers [central, companion].
    """
    mag, ids = detections.mag[rows], detections.id[rows]
    by_mag = np.isfinite(mag).all(axis=1) & (mag[:, 0] != mag[:, 1])
    second_first = np.where(by_mag, mag[:, 1] < mag[:, 0], ids[:, 1] < ids[:, 0])
    return np.where(second_first[:, None], rows[:, ::-1], rows)


def choose_primary(
    source_id: NDArray[np.int64],
    separation_arcsec: NDArray[np.float64],
    blend_id: NDArray[np.int64],
) -> NDArray[np.bool_]:
    """Mark, for each source, its row in the closest of its pairs (ties: the smaller blend id).

    Parameters
    ----------
    source_id : ndarray of int64, shape (n, 2)
        Members of each pair.
    separation_arcsec : ndarray of float64, shape (n,)
        Separations.
    blend_id : ndarray of int64, shape (n,)
        Blend ids.

    Returns
    -------
    ndarray of bool, shape (n, 2)
        Exactly one True per source.
    """
    members = source_id.ravel()
    order = np.lexsort((np.repeat(blend_id, 2), np.repeat(separation_arcsec, 2), members))
    first = np.ones(len(order), bool)
    first[1:] = members[order][1:] != members[order][:-1]
    primary = np.zeros(len(order), bool)
    primary[order[first]] = True
    return primary.reshape(-1, 2)


def build_pairs(
    rows: NDArray[np.int64],
    detections: Detections,
    yx: NDArray[np.float64],
    shape_yx: tuple[int, int],
    stamp_size: int,
) -> Pairs:
    """Describe pairs, sorted by blend id.

    Parameters
    ----------
    rows : ndarray of int64, shape (m, 2)
        Row numbers [central, companion] in ``detections``.
    detections : Detections
        All detections with finite positions in and near the image.
    yx : ndarray of float64, shape (n, 2)
        Their pixel positions (y, x).
    shape_yx : tuple of int
        Rows and columns of the image.
    stamp_size : int
        Edge of the model's stamps, px: decides which sources count as neighbours.
    """
    ids = detections.id[rows]
    blend = blend_ids(ids[:, 0], ids[:, 1])
    order = np.argsort(blend, kind="stable")
    rows, ids, blend = rows[order], ids[order], blend[order]
    radec = np.stack([detections.ra, detections.dec], axis=-1)[rows]
    vectors = unit_vectors(radec[..., 0], radec[..., 1])
    separation = separations_arcsec(vectors[:, 0], vectors[:, 1])
    neighbours = _neighbours(rows, yx, stamp_size)
    return Pairs(
        blend_id=blend,
        source_id=ids,
        yx=yx[rows],
        radec=radec,
        separation_arcsec=separation,
        is_primary=choose_primary(ids, separation, blend),
        neighbours_yx=neighbours,
        flags=_early_flags(rows, detections, yx, neighbours, shape_yx),
    )


def _neighbours(
    rows: NDArray[np.int64], yx: NDArray[np.float64], stamp_size: int
) -> NDArray[np.float32]:
    """Positions of the nearest sources in the central's stamp that are not members."""
    found = np.full((len(rows), MAX_NEIGHBOURS, 2), np.nan, np.float32)
    if len(rows) == 0:
        return found
    centre = yx[rows[:, 0]]
    reach = stamp_size / 2
    k = min(MAX_NEIGHBOURS + 2, len(yx))
    distance, index = cKDTree(yx).query(centre, k=k, p=np.inf, distance_upper_bound=reach)
    wanted = np.isfinite(distance) & (index != rows[:, :1]) & (index != rows[:, 1:])
    # Nearest first; the k nearest hold the members, so at most MAX_NEIGHBOURS others remain to be packed.
    packed = np.argsort(~wanted, axis=1, kind="stable")[:, :MAX_NEIGHBOURS]
    kept = np.take_along_axis(wanted, packed, axis=1)
    index = np.take_along_axis(np.where(wanted, index, 0), packed, axis=1)
    found[:, : packed.shape[1]] = np.where(kept[..., None], yx[index], np.nan)
    return found


def _early_flags(
    rows: NDArray[np.int64],
    detections: Detections,
    yx: NDArray[np.float64],
    neighbours_yx: NDArray[np.float32],
    shape_yx: tuple[int, int],
) -> NDArray[np.int32]:
    bits = np.zeros((len(rows), 2), np.int32)
    outside = ~inside_image(yx, shape_yx)
    unknown_mag = np.any(~np.isfinite(detections.mag[rows]), axis=1)
    crowded = np.isfinite(neighbours_yx[:, 0, 0])
    close = np.linalg.norm(yx[rows[:, 0]] - yx[rows[:, 1]], axis=1) < _COINCIDENT_PX
    bits |= flags.OUTSIDE_IMAGE.where(outside[rows])
    bits |= flags.ROLE_BY_ID.where(unknown_mag)[:, None]
    bits |= flags.CROWDED.where(crowded)[:, None]
    bits |= flags.COINCIDENT.where(close)[:, None]
    return bits
