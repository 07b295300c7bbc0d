"""Dividing groups that are larger than a fit takes, or wider than a stamp.

Sources are joined to clusters, the closest first, up to half of what a fit takes; each cluster is measured in
a blend of its own, beside the sources that it is linked to. So every source is measured once, and never
without its nearest neighbour.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from deblend_batch.tiling.linking import Links


@dataclass(frozen=True)
class Parts:
    """The blends that groups were divided into, as a list of who is in which.

    Parameters
    ----------
    rows : ndarray of int64, shape (b, m)
        Row numbers of the members, by ascending id, padded with -1.
    is_measured : ndarray of bool, shape (b, m)
        True for the members that this blend, and no other, measures.
    """

    rows: NDArray[np.int64]
    is_measured: NDArray[np.bool_]


def divide_groups(
    sources: NDArray[np.int64],
    links: Links,
    yx: NDArray[np.float64],
    max_members: int,
    max_extent_px: float,
) -> Parts:
    """Divide groups into blends.

    What becomes of a group depends on the positions of its sources and on their order alone.

    Parameters
    ----------
    sources : ndarray of int64, shape (k,)
        Row numbers of the sources of all groups that are to be divided, group by group, by ascending id.
    links : Links
        All links between them, and none to others.
    yx : ndarray of float64, shape (n, 2)
        Pixel positions (y, x) of all sources.
    max_members : int
        Most members of a blend.
    max_extent_px : float
        Largest distance of two members along y or x.

    Returns
    -------
    Parts
        Each source is measured once.
    """
    number = np.full(len(yx), -1, np.int64)
    number[sources] = np.arange(len(sources))
    own = _shortest(
        Links(np.sort(number[links.rows], axis=1), links.separation_arcsec), max_members
    )
    place = yx[sources]
    cluster = _join(own.rows, place, max(max_members // 2, 1), max_extent_px)
    beside = _beside(own, cluster, place, max_members, max_extent_px)
    mine = np.stack([cluster, np.arange(len(sources))], axis=1)
    members = np.concatenate([mine, beside])
    measured = np.arange(len(members)) < len(mine)
    return _merged(_padded(members, measured, sources))


def _shortest(links: Links, most: int) -> Links:
    """Keep each source's shortest links, and put the shortest first.

    A blend has no room for more, and a crowd may have a hundred a source. Of equal ones those to the next
    ids are kept: were it the smallest, all sources of one place would be linked to the same few.
    """
    way = np.concatenate([links.rows, links.rows[:, ::-1]])
    apart = np.concatenate([links.separation_arcsec] * 2)
    order = np.lexsort((way[:, 1], np.abs(way[:, 1] - way[:, 0]), apart, way[:, 0]))
    kept = order[place_in_run(way[order, 0]) < most] % len(links.rows)
    links = links[np.unique(kept)]
    return links[np.lexsort((links.rows[:, 1], links.rows[:, 0], links.separation_arcsec))]


def _join(
    rows: NDArray[np.int64], yx: NDArray[np.float64], most: int, max_extent_px: float
) -> NDArray[np.int64]:
    """Join sources along their links, the first link first; returns a number for each source's cluster."""
    parent, size = list(range(len(yx))), [1] * len(yx)
    y0, x0 = (column.tolist() for column in yx.T)
    y1, x1 = y0.copy(), x0.copy()

    def root(source: int) -> int:
        while parent[source] != source:
            parent[source] = source = parent[parent[source]]
        return source

    for first, second in rows.tolist():
        a, b = root(first), root(second)
        if a == b or size[a] + size[b] > most:
            continue
        bottom, top = min(y0[a], y0[b]), max(y1[a], y1[b])
        left, right = min(x0[a], x0[b]), max(x1[a], x1[b])
        if max(top - bottom, right - left) <= max_extent_px:
            parent[b], size[a] = a, size[a] + size[b]
            y0[a], y1[a], x0[a], x1[a] = bottom, top, left, right
    roots = np.array([root(source) for source in range(len(yx))], np.int64)
    return np.asarray(np.unique(roots, return_inverse=True)[1], np.int64)


def _beside(
    links: Links,
    cluster: NDArray[np.int64],
    yx: NDArray[np.float64],
    max_members: int,
    max_extent_px: float,
) -> NDArray[np.int64]:
    """Choose who is fitted beside each cluster: of each of its sources the nearest, then the second, ..."""
    way = np.concatenate([links.rows, links.rows[:, ::-1]])
    apart = np.concatenate([links.separation_arcsec] * 2)
    home, other = cluster[way[:, 0]], way[:, 1]
    leads_out = (home != cluster[other]) & _fits(home, other, cluster, yx, max_extent_px)
    way, apart, home, other = (each[leads_out] for each in (way, apart, home, other))
    by_source = np.lexsort((other, apart, way[:, 0]))
    rank = np.empty(len(way), np.int64)
    rank[by_source] = place_in_run(way[by_source, 0])
    order = np.lexsort((other, apart, rank, home))
    chosen = np.stack([home, other], axis=1)[order]
    return first_with_room(chosen, max_members - np.bincount(cluster))


def first_with_room(pairs: NDArray[np.int64], room: NDArray[np.int64]) -> NDArray[np.int64]:
    """Keep, of pairs of a blend and a source beside it, as many of each blend as it has room for.

    A source may be beside several members of a blend: its first place counts.
    """
    pairs = pairs[np.sort(np.unique(pairs, axis=0, return_index=True)[1])]
    kept: NDArray[np.int64] = pairs[place_in_run(pairs[:, 0]) < room[pairs[:, 0]]]
    return kept


def _fits(
    home: NDArray[np.int64],
    other: NDArray[np.int64],
    cluster: NDArray[np.int64],
    yx: NDArray[np.float64],
    max_extent_px: float,
) -> NDArray[np.bool_]:
    """Whether a source may stand beside a cluster, on whatever sides of it others do."""
    order = np.argsort(cluster, kind="stable")
    starts = np.flatnonzero(np.diff(cluster[order], prepend=-1))
    low = np.minimum.reduceat(yx[order], starts)
    high = np.maximum.reduceat(yx[order], starts)
    return are_held(yx[other], low[home], high[home], max_extent_px)


def are_held(
    yx: NDArray[np.float64],
    low: NDArray[np.float64],
    high: NDArray[np.float64],
    max_extent_px: float,
) -> NDArray[np.bool_]:
    """Whether places are so near to the boxes of blends that stamps hold both, on whatever sides."""
    beyond = np.maximum(low - yx, yx - high)
    return np.asarray((beyond <= (max_extent_px - (high - low)) / 2).all(axis=1))


def place_in_run(values: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return for each element of sorted values how many equal ones stand before it."""
    starts = np.flatnonzero(np.diff(values, prepend=values[:1] - 1))
    return np.arange(len(values)) - np.repeat(starts, np.diff(starts, append=len(values)))


def _padded(
    members: NDArray[np.int64], measured: NDArray[np.bool_], sources: NDArray[np.int64]
) -> Parts:
    """From (cluster, source) to one row a cluster."""
    order = np.lexsort((members[:, 1], members[:, 0]))
    cluster, member = members[order].T
    place = place_in_run(cluster)
    shape = int(cluster[-1]) + 1, int(place.max()) + 1
    rows, is_measured = np.full(shape, -1, np.int64), np.zeros(shape, bool)
    rows[cluster, place] = sources[member]
    is_measured[cluster, place] = measured[order]
    return Parts(rows, is_measured)


def _merged(parts: Parts) -> Parts:
    """Make one blend of those with the same members: they would be fitted twice, under one id."""
    rows, which = np.unique(parts.rows, axis=0, return_inverse=True)
    is_measured = np.zeros(rows.shape, bool)
    np.logical_or.at(is_measured, which.ravel(), parts.is_measured)
    return Parts(rows, is_measured)
