"""Reading and cutting a few tiles of a run, to learn what they cost."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from deblend_batch.engine.inputs.work import RunContext, TileSpec, load_blends
from deblend_batch.engine.inputs.workload import FieldTiles
from deblend_batch.engine.worker.cut import cut_parts
from deblend_batch.errors import BadDataError

_SHARE = 0.01
SECONDS = 20.0
"""Time after which no further tile is sampled."""


@dataclass(frozen=True)
class Sample:
    """What reading and cutting some tiles took.

    Parameters
    ----------
    tiles, pairs : int
        How many were read and cut.
    seconds : float
        Time of one core.
    unreadable : tuple of str
        Tiles whose pixels cannot be decoded, and why.
    """

    tiles: int = 0
    pairs: int = 0
    seconds: float = 0.0
    unreadable: tuple[str, ...] = ()

    def __add__(self, other: Sample) -> Sample:
        return Sample(
            self.tiles + other.tiles,
            self.pairs + other.pairs,
            self.seconds + other.seconds,
            self.unreadable + other.unreadable,
        )

    @property
    def seconds_per_pair(self) -> float:
        """Time of one core for a pair; 0 where nothing was read."""
        return self.seconds / self.pairs if self.pairs else 0.0


def sample_tiles(tiles: FieldTiles, context: RunContext, seconds: float = SECONDS) -> Sample:
    """Read and cut one in a hundred of a field's tiles, from the emptiest to the most crowded.

    Parameters
    ----------
    tiles : FieldTiles
        The field's tiles.
    context : RunContext
        The run.
    seconds : float
        Time to spend; the first tile is read in any case, unless it is 0.
    """
    total = Sample()
    for number, spec in enumerate(_chosen(tiles)):
        if total.seconds >= seconds:
            break
        total += _measure(spec, context, warm=number > 0)
    return total


def _chosen(tiles: FieldTiles) -> Iterator[TileSpec]:
    rows = set(tiles_to_sample(np.diff(tiles.index.starts)).tolist())
    return (spec for number, spec in enumerate(tiles.specs()) if number in rows)


def tiles_to_sample(pairs: NDArray[np.int64]) -> NDArray[np.int64]:
    """Choose one tile in a hundred, at least one, so that their mean cost is that of all.

    Parameters
    ----------
    pairs : ndarray of int64, shape (t,)
        Pairs of each tile.

    Returns
    -------
    ndarray of int64
        Numbers of tiles: those in the middle of equal shares of the tiles, by number of pairs.

    Examples
    --------
    >>> tiles_to_sample(np.array([5, 1, 3]))
    array([2])
    """
    if not len(pairs):
        return np.empty(0, np.int64)
    n = int(np.ceil(_SHARE * len(pairs)))
    middles = ((np.arange(n) + 0.5) * len(pairs) / n).astype(np.int64)
    chosen: NDArray[np.int64] = np.argsort(pairs, kind="stable")[middles].astype(np.int64)
    return chosen


def _measure(spec: TileSpec, context: RunContext, *, warm: bool) -> Sample:
    try:
        if not warm:  # opening the field and loading what reads it is not a tile's cost
            next(iter(cut_parts(spec, load_blends(spec, context)[:1], context)))
        started = time.perf_counter()
        for _ in cut_parts(spec, load_blends(spec, context), context):
            pass
    except BadDataError as error:
        return Sample(unreadable=(f"tile {spec.name}: {error}",))
    return Sample(1, spec.n_blends, time.perf_counter() - started)
