"""Units of work: the pairs of a tile, or of a compact part of a crowded one."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from deblend_batch.tiling.tile import compact_order, halves


@dataclass(frozen=True)
class Units:
    """How pairs are divided.

    Parameters
    ----------
    rows : ndarray of int64, shape (n,)
        The pairs, unit by unit; within a unit in the order given.
    starts : ndarray of int64, shape (u + 1,)
        Where each unit begins; the last entry is the number of pairs.
    tiles : ndarray of int64, shape (u,)
        The tile of each unit, ascending.
    suffixes : tuple of str, length u
        What tells the units of one tile apart; empty where it has only one.
    """

    rows: NDArray[np.int64]
    starts: NDArray[np.int64]
    tiles: NDArray[np.int64]
    suffixes: tuple[str, ...]


def divide(owner: NDArray[np.int64], yx: NDArray[np.float64], max_pairs: int) -> Units:
    """Divide pairs into units of work of one tile each and at most ``max_pairs`` pairs.

    What a pair costs varies little (a stamp, and the model's time for it), so pairs are the measure of
    cost; a crowded tile is halved at the median of its pairs' positions, along its longer side, and so on.

    Parameters
    ----------
    owner : ndarray of int64, shape (n,)
        Tile of each pair.
    yx : ndarray of float64, shape (n, 2)
        Position of its central, px.
    max_pairs : int
        Largest unit.
    """
    rows = np.argsort(owner, kind="stable").astype(np.int64)
    tiles, firsts = np.unique(owner[rows], return_index=True)
    starts: list[int] = []
    unit_tiles: list[int] = []
    suffixes: list[str] = []
    for tile, first, last in zip(tiles, firsts, np.append(firsts, len(rows))[1:], strict=True):
        parts = halves(last - first, max_pairs)
        if len(parts) > 1:
            mine = rows[first:last]
            rows[first:last] = mine[compact_order(yx[mine], max_pairs)]
        starts += [int(first) + start for start, _ in parts]
        unit_tiles += [int(tile)] * len(parts)
        suffixes += [f"-{n}" for n in range(len(parts))] if len(parts) > 1 else [""]
    return Units(
        rows,
        np.array([*starts, len(rows)], np.int64),
        np.array(unit_tiles, np.int64),
        tuple(suffixes),
    )
