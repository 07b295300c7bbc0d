"""Whose a source is, where fields of a survey overlap: pure functions of positions and names.

Each row of a detection table is *claimed* by the fields that use the table and hold the row in their image;
the best claim counts. Rows of different tables that are one source on the sky are matched, and the row with
the best claim *stands for* the others. A claim is a matter of one row and one field, made at the row's own
position, so that all claims have one order, and whoever compares the same ones comes to the same end.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from deblend_batch.errors import TooLargeError
from deblend_batch.field.layout import Field
from deblend_batch.tiling.pairing import most_pairs
from deblend_batch.tiling.sphere import separations_arcsec, unit_vectors
from deblend_batch.tiling.tile import inside_image

IN_FOOTPRINT, NO_FOOTPRINT, BEYOND_FOOTPRINT, NOT_HELD = range(4)
"""Ranks of claims, the best first; a row that the field's image does not hold is not claimed."""
_MILLI = 1000


@dataclass(frozen=True)
class Claims:
    """What rows of detection tables are to fields, as columns.

    Parameters
    ----------
    rank : ndarray of int8, shape (n,)
        Whether the row is in the field's footprint, and in its image.
    edge_mas : ndarray of int64, shape (n,)
        Distance on the sky to the nearest edge of the image, in whole milliarcseconds, so that equal
        distances are equal whatever the rounding; 0 where the image does not hold the row.
    field : ndarray of int64, shape (n,)
        Number of the field, in the order of the fields' names.
    """

    rank: NDArray[np.int8]
    edge_mas: NDArray[np.int64]
    field: NDArray[np.int64]

    def __getitem__(self, rows: slice | NDArray[np.generic]) -> Claims:
        return Claims(*(getattr(self, each.name)[rows] for each in fields(self)))

    def __len__(self) -> int:
        return len(self.rank)

    @property
    def is_held(self) -> NDArray[np.bool_]:
        """Whether the field's image holds the row."""
        return np.asarray(self.rank < NOT_HELD)

    def beats(self, other: Claims) -> NDArray[np.bool_]:
        """Tell where these are better than others: by rank, then the edge that is farther, then the name."""
        same = self.rank == other.rank
        alike = same & (self.edge_mas == other.edge_mas)
        better = (self.rank < other.rank) | (same & (self.edge_mas > other.edge_mas))
        return np.asarray(better | (alike & (self.field < other.field)))

    def or_better(self, other: Claims) -> Claims:
        """Return for each row the better of two claims."""
        better = other.beats(self)
        return Claims(
            *(
                np.where(better, getattr(other, each.name), getattr(self, each.name))
                for each in fields(self)
            )
        )

    @classmethod
    def concatenate(cls, parts: Sequence[Claims]) -> Claims:
        """Put claims of several rows end to end."""
        return cls(
            *(np.concatenate([getattr(p, each.name) for p in parts]) for each in fields(cls))
        )


def claims_of(
    field: Field, number: int, radec: NDArray[np.float64], yx: NDArray[np.float64] | None = None
) -> Claims:
    """Return what rows are to a field.

    Parameters
    ----------
    field : Field
        The field.
    number : int
        Its number in the order of names.
    radec : ndarray of float64, shape (n, 2)
        Positions of the rows, ICRS degrees.
    yx : ndarray of float64, shape (n, 2), optional
        The same in the field's pixels, where they are known.
    """
    yx = field.world_to_pixel(radec[:, 0], radec[:, 1]) if yx is None else yx
    held = inside_image(yx, field.shape_yx)
    rank = np.full(len(radec), NOT_HELD, np.int8)
    rank[held] = NO_FOOTPRINT
    if field.meta.footprint is not None:
        own = field.meta.footprint.holds(radec[held])
        rank[held] = np.where(own, IN_FOOTPRINT, BEYOND_FOOTPRINT)
    edge = np.zeros(len(radec), np.int64)
    edge[held] = _edge_mas(field, radec[held], yx[held])
    return Claims(rank, edge, np.full(len(radec), number, np.int64))


def _edge_mas(
    field: Field, radec: NDArray[np.float64], yx: NDArray[np.float64]
) -> NDArray[np.int64]:
    """Return how far each position is from the nearest of the four edges, on the sky."""
    height, width = field.shape_yx
    nearest = np.full(len(yx), np.inf)
    here = unit_vectors(*radec.T)
    for axis, places in ((0, (-0.5, height - 0.5)), (1, (-0.5, width - 0.5))):
        for place in places:
            foot = yx.copy()
            foot[:, axis] = place
            edge = field.pixel_to_world(foot)
            # An edge that the projection does not show is none.
            apart = np.nan_to_num(separations_arcsec(here, unit_vectors(*edge.T)), nan=np.inf)
            nearest = np.minimum(nearest, apart)
    milli = np.rint(np.where(np.isfinite(nearest), nearest, 0) * _MILLI)
    return np.asarray(milli, np.int64)


@dataclass(frozen=True)
class TableRows:
    """Rows of several detection tables, as columns, each with its best claim.

    Parameters
    ----------
    table : ndarray of int64, shape (n,)
        Number of the table, in the order of the tables' names.
    id : ndarray of int64, shape (n,)
        Ids in that table.
    radec : ndarray of float64, shape (n, 2)
        ICRS degrees, finite.
    claims : Claims
        The best one of each.
    tables : tuple of str
        The tables' names, in order.
    """

    table: NDArray[np.int64]
    id: NDArray[np.int64]
    radec: NDArray[np.float64]
    claims: Claims
    tables: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.id)


def find_stand_ins(rows: TableRows, match_arcsec: float) -> NDArray[np.int64]:
    """Find for each row the one that stands for it in the catalogue: itself, or a match with a better claim.

    Rows of two tables are one source where each is the nearest of its table to the other, within
    ``match_arcsec`` (of equal distances the smaller id counts). Of more than two tables each two are matched.

    Parameters
    ----------
    rows : TableRows
        The rows.
    match_arcsec : float
        Largest distance of a match, inclusive.

    Returns
    -------
    ndarray of int64, shape (n,)
        Row numbers; a row that stands for itself stands in the catalogue.
    """
    place = np.empty(len(rows), np.int64)  # in one order of all: by claim, then table, then id
    claims = rows.claims
    order = np.lexsort((rows.id, rows.table, claims.field, -claims.edge_mas, claims.rank))
    place[order] = np.arange(len(rows))
    best = place.copy()
    links = _matches(rows, match_arcsec)
    np.minimum.at(best, links[:, 0], place[links[:, 1]])
    stand_in = order[best]
    while (stand_in[stand_in] != stand_in).any():  # who stands for it has a better one itself
        stand_in = stand_in[stand_in]
    return np.asarray(stand_in, np.int64)


def _matches(rows: TableRows, match_arcsec: float) -> NDArray[np.int64]:
    """Return the matches of rows of different tables, each in both directions; shape (k, 2)."""
    vectors = unit_vectors(*rows.radec.T)
    near = _within(vectors, match_arcsec)
    near = near[rows.table[near[:, 0]] != rows.table[near[:, 1]]]
    near = np.concatenate([near, near[:, ::-1]])
    apart = separations_arcsec(vectors[near[:, 0]], vectors[near[:, 1]])
    near, apart = near[kept := apart <= match_arcsec * (1 + 1e-12)], apart[kept]
    # Of each row and each other table the nearest.
    asking, asked = near.T
    order = np.lexsort((rows.id[asked], apart, rows.table[asked], asking))
    near = near[order]
    groups = np.stack([near[:, 0], rows.table[near[:, 1]]], axis=1)
    first = np.ones(len(near), bool)
    first[1:] = (np.diff(groups, axis=0) != 0).any(axis=1)
    nearest = near[first]
    pair = nearest[:, 0] * len(rows) + nearest[:, 1]
    back = nearest[:, 1] * len(rows) + nearest[:, 0]
    return np.asarray(nearest[np.isin(pair, back)], np.int64)


def _within(vectors: NDArray[np.float64], arcsec: float) -> NDArray[np.int64]:
    if len(vectors) < 2:
        return np.empty((0, 2), np.int64)
    chord = 2 * np.sin(np.radians(arcsec / 3600) / 2) * (1 + 1e-9)
    tree = cKDTree(vectors)
    n_pairs = (int(tree.count_neighbors(tree, chord)) - len(vectors)) // 2
    if n_pairs > most_pairs(len(vectors)):
        raise TooLargeError(
            f"{n_pairs:,} matches of {len(vectors):,} sources where fields overlap, more than any sky has; "
            "choose a smaller overlaps.match"
        )
    return np.asarray(tree.query_pairs(chord, output_type="ndarray"), np.int64).reshape(-1, 2)
