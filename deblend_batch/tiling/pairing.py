"""Pairing: which detections are close, and who is central.

Everything here depends on the detections alone, never on tiles, so that a catalogue does not depend on how
the field was divided.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from deblend_batch.detections.table import Detections
from deblend_batch.errors import TooLargeError
from deblend_batch.tiling.member_hash import hash_members
from deblend_batch.tiling.sphere import separations_arcsec, unit_vectors

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
