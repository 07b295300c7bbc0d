"""Which sources are linked: too close to be measured apart from each other."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from deblend_batch.detections.table import Detections
from deblend_batch.errors import TooLargeError
from deblend_batch.tiling.pairing import check_crowding, check_number, match_within, most_pairs
from deblend_batch.tiling.sphere import separations_arcsec, unit_vectors

ISOPHOTE_RADII = 2.0
"""Where a source's isophote is taken to lie, in half-light radii.

An exponential profile has there 3 % of its central surface brightness, and 15 % of its light outside.
"""
_OPTION = "blends.link"


@dataclass(frozen=True)
class Links:
    """Linked sources.

    Parameters
    ----------
    rows : ndarray of int64, shape (k, 2)
        Row numbers of the two, the smaller first; each link once.
    separation_arcsec : ndarray of float64, shape (k,)
        Their distance on the sky.
    """

    rows: NDArray[np.int64]
    separation_arcsec: NDArray[np.float64]

    def __getitem__(self, rows: NDArray[np.generic]) -> Links:
        return Links(self.rows[rows], self.separation_arcsec[rows])


def link_sources(detections: Detections, link_arcsec: float, longest_arcsec: float) -> Links:
    """Find every two sources that are linked.

    They are where they are within ``link_arcsec`` on the sky, or where their isophotes overlap: where they
    are nearer than :data:`ISOPHOTE_RADII` times the sum of their half-light radii, of which an unknown one
    counts as nothing.

    Parameters
    ----------
    detections : Detections
        With finite sky positions.
    link_arcsec : float
        Largest separation of a link, inclusive.
    longest_arcsec : float
        Largest separation of a link by isophotes: no stamp holds both beyond it.

    Returns
    -------
    Links
        The links.

    Raises
    ------
    TooLargeError
        If there are more than any sky has; see :func:`deblend_batch.tiling.pairing.check_crowding`.
    """
    check_crowding(detections.ra, detections.dec, link_arcsec, _OPTION)
    vectors = unit_vectors(detections.ra, detections.dec)
    near = match_within(detections.ra, detections.dec, link_arcsec)
    wide = _overlapping(vectors, known_radii(detections.radius_arcsec), link_arcsec, longest_arcsec)
    rows = np.sort(np.concatenate([near, *wide]), axis=1)
    check_number(len(rows), len(vectors), _OPTION)
    return Links(rows, separations_arcsec(vectors[rows[:, 0]], vectors[rows[:, 1]]))


def known_radii(radius_arcsec: NDArray[np.floating]) -> NDArray[np.float64]:
    """Radii, 0 where unknown or no number that a radius can be."""
    radius = np.asarray(radius_arcsec, np.float64)
    return np.where(np.isfinite(radius) & (radius > 0), radius, 0.0)


def _overlapping(
    vectors: NDArray[np.float64],
    radius: NDArray[np.float64],
    link_arcsec: float,
    longest_arcsec: float,
) -> list[NDArray[np.int64]]:
    """Links by isophotes alone. The larger of two finds the other, within twice its own isophote.

    Sources of about one size are asked together, so that a large one does not cost the small ones a search
    as wide as its own.
    """
    found: list[NDArray[np.int64]] = []
    reach = np.minimum(2 * ISOPHOTE_RADII * radius, longest_arcsec)
    tree, upper = cKDTree(vectors), longest_arcsec
    while upper > link_arcsec:
        lower = max(upper / 2, link_arcsec)
        asking = np.flatnonzero((reach > lower) & (reach <= upper))
        if len(asking):
            pairs = _within(tree, vectors, asking, upper)
            apart = separations_arcsec(vectors[pairs[:, 0]], vectors[pairs[:, 1]])
            isophotes = ISOPHOTE_RADII * radius[pairs].sum(axis=1)
            linked = (apart < isophotes) & (apart <= longest_arcsec)
            linked &= apart > link_arcsec * (1 + 1e-12)  # the others are linked already
            found.append(pairs[linked & _larger_first(pairs, radius)])
        upper = lower
    return found


def _within(
    tree: cKDTree, vectors: NDArray[np.float64], asking: NDArray[np.int64], arcsec: float
) -> NDArray[np.int64]:
    """Row numbers of each source that asks and of each source near it, itself included."""
    chord = 2 * np.sin(np.radians(arcsec / 3600) / 2) * (1 + 1e-9)
    mine = cKDTree(vectors[asking])
    # As many as each asks about itself are no pairs.
    n_pairs = int(mine.count_neighbors(tree, chord)) - len(asking)
    if n_pairs > most_pairs(tree.n):
        raise TooLargeError(
            f"{len(asking):,} sources whose isophotes reach {arcsec:.3g} arcsec have {n_pairs:,} others "
            "within, more than any sky has; give 'radius' in arcsec, or leave it out"
        )
    near = mine.sparse_distance_matrix(tree, chord, output_type="ndarray")
    return np.stack([asking[near["i"]], near["j"]], axis=1).astype(np.int64)


def _larger_first(pairs: NDArray[np.int64], radius: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Keep one of the two ways in which two sources of about one size find each other."""
    mine, other = radius[pairs].T
    return np.asarray((mine > other) | ((mine == other) & (pairs[:, 0] < pairs[:, 1])))
