"""Who is blended with whom: groups of linked sources, and the blends in which they are measured.

Everything here depends on the detections alone, never on tiles or on the order of the table.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components

from deblend_batch.detections.table import Detections
from deblend_batch.tiling.blends import MOST_MEMBERS
from deblend_batch.tiling.division import Parts, divide_groups
from deblend_batch.tiling.linking import link_sources
from deblend_batch.tiling.stamp_sizes import LARGEST_EXTENT_PX, STAMP_SIZES_PX


@dataclass(frozen=True)
class BlendRules:
    """What a blend is.

    Parameters
    ----------
    link_arcsec : float
        Sources this near are linked.
    max_members : int
        Most members of a blend, 1 to :data:`~deblend_batch.tiling.blends.MOST_MEMBERS`.
    sources : {"all", "blended"}
        Whether sources that are linked to none are blends of one, or left out.
    """

    link_arcsec: float = 2.0
    max_members: int = 8
    sources: Literal["all", "blended"] = "all"

    def __post_init__(self) -> None:
        if not 1 <= self.max_members <= MOST_MEMBERS:
            raise ValueError(f"max_members is {self.max_members}; it must be 1 to {MOST_MEMBERS}")


@dataclass(frozen=True)
class Grouping:
    """Blends as lists of row numbers, those of a table of detections; row ``i`` is blend ``i``.

    Parameters
    ----------
    rows : ndarray of int64, shape (n, m)
        Members, padded with -1; those of :func:`group_sources` by ascending id.
    is_measured : ndarray of bool, shape (n, m)
        True for members that are measured here; every source is measured in one blend. The others are
        fitted beside them. False in the padding.
    is_divided : ndarray of bool, shape (n,)
        Whether the blend is a part of a group that was too large, or too wide, to be fitted at once.
    """

    rows: NDArray[np.int64]
    is_measured: NDArray[np.bool_]
    is_divided: NDArray[np.bool_]

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, rows: slice | NDArray[np.generic]) -> Grouping:
        return Grouping(self.rows[rows], self.is_measured[rows], self.is_divided[rows])

    @classmethod
    def of_pairs(cls, rows: NDArray[np.int64]) -> Grouping:
        """Take pairs, whose order of members counts, as blends of two; both members are measured."""
        return cls(rows, np.ones(rows.shape, bool), np.zeros(len(rows), bool))

    def owning(self, is_owned: NDArray[np.bool_]) -> Grouping:
        """Return the blends that measure sources of their own, and of these only those.

        Parameters
        ----------
        is_owned : ndarray of bool, one a row of the table
            Whether a source is to be measured here.
        """
        measured = self.is_measured & is_owned[self.rows]
        kept = measured.any(axis=1)
        return Grouping(self.rows[kept], measured[kept], self.is_divided[kept])


def group_sources(
    detections: Detections,
    yx: NDArray[np.float64],
    pixel_scale_arcsec: float,
    rules: BlendRules,
) -> Grouping:
    """Find the blends of a field.

    Sources that are linked (:func:`deblend_batch.tiling.linking.link_sources`), directly or through others,
    are a group. A group of at most ``max_members`` that a stamp holds is a blend; a larger one is divided
    (:mod:`deblend_batch.tiling.division`).

    Parameters
    ----------
    detections : Detections
        All detections with finite positions in and near the image.
    yx : ndarray of float64, shape (n, 2)
        Their pixel positions (y, x).
    pixel_scale_arcsec : float
        Edge of a pixel.
    rules : BlendRules
        What a blend is.

    Returns
    -------
    Grouping
        In no order that means anything.

    Raises
    ------
    TooLargeError
        If more sources are close than any sky has.
    """
    by_id = np.argsort(detections.id, kind="stable")
    detections, yx = detections[by_id], yx[by_id]
    if len(detections) == 0:
        nobody = np.empty((0, 1), np.int64)
        return Grouping(nobody, nobody.astype(bool), np.empty(0, bool))
    longest = max(rules.link_arcsec, STAMP_SIZES_PX[-1] / 2 * pixel_scale_arcsec)
    links = link_sources(detections, rules.link_arcsec, longest)
    group = _components(links.rows, len(detections))
    size = np.bincount(group)
    large = (size > rules.max_members) | (_extents(group, yx) > LARGEST_EXTENT_PX)
    kept = ~large if rules.sources == "all" else ~large & (size > 1)
    whole = _listed(group, np.flatnonzero(kept[group]))
    parts = Parts(np.empty((0, 1), np.int64), np.empty((0, 1), bool))
    if large.any():
        inner = links[np.flatnonzero(large[group[links.rows[:, 0]]])]
        sources = np.flatnonzero(large[group])
        sources = sources[np.argsort(group[sources], kind="stable")]
        parts = divide_groups(sources, inner, yx, rules.max_members, LARGEST_EXTENT_PX)
    found = _joined(whole, parts)
    return replace(found, rows=np.where(found.rows < 0, -1, by_id[found.rows]))


def _components(links: NDArray[np.int64], n: int) -> NDArray[np.int64]:
    """Return the number of each source's group."""
    ends = np.ones(len(links), bool), (links[:, 0], links[:, 1])
    labels: NDArray[np.int64] = connected_components(coo_matrix(ends, (n, n)), directed=False)[1]
    return labels


def _extents(group: NDArray[np.int64], yx: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the longer edge of the box round each group's positions, px."""
    order = np.argsort(group, kind="stable")
    starts = np.flatnonzero(np.diff(group[order], prepend=-1))
    low, high = (f.reduceat(yx[order], starts) for f in (np.minimum, np.maximum))
    return np.asarray((high - low).max(axis=1))


def _listed(group: NDArray[np.int64], sources: NDArray[np.int64]) -> NDArray[np.int64]:
    """List the sources of each group in a row of its own, padded with -1."""
    order = sources[np.argsort(group[sources], kind="stable")]
    starts = np.flatnonzero(np.diff(group[order], prepend=-1))
    sizes = np.diff(starts, append=len(order))
    rows = np.full((len(starts), max(sizes.max(initial=1), 1)), -1, np.int64)
    which = np.repeat(np.arange(len(starts)), sizes)
    rows[which, np.arange(len(order)) - starts[which]] = order
    return rows


def _joined(whole: NDArray[np.int64], parts: Parts) -> Grouping:
    """Put groups that are blends and the parts of those that are divided under each other."""
    n, width = len(whole), max(whole.shape[1], parts.rows.shape[1])
    rows = np.full((n + len(parts.rows), width), -1, np.int64)
    rows[:n, : whole.shape[1]] = whole
    rows[n:, : parts.rows.shape[1]] = parts.rows
    is_measured = rows >= 0
    is_measured[n:, : parts.rows.shape[1]] = parts.is_measured
    return Grouping(rows, is_measured, np.arange(len(rows)) >= n)
