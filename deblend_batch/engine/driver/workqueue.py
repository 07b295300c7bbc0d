"""What the driver still has to hand out: the lazy stream of tiles, and those to be tried again."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from deblend_batch.engine.inputs.work import TileSpec
from deblend_batch.engine.worker.bisection import Tries
from deblend_batch.engine.worker.poison import Poison

_SUSPECT_AFTER = 2


@dataclass(eq=False)
class Work:
    """A tile on its way, and what has been learnt of it.

    Parameters
    ----------
    spec : TileSpec
        The tile.
    attempts : int
        How often it failed, but for a store's fault.
    refusals : int
        How often it failed by a store's.
    not_before : float
        When it may be tried again, on the monotonic clock.
    known : sequence of Poison
        Pairs to leave out.
    tries : generator, optional
        While it is being found out which pairs kill a worker.
    rows : range, optional
        The pairs that are tried then.
    searched : bool
        Whether that has been done.
    pieces : int
        Groups of its pairs to measure one after the other.
    """

    spec: TileSpec
    attempts: int = 0
    refusals: int = 0
    not_before: float = 0.0
    known: Sequence[Poison] = ()
    tries: Tries | None = None
    rows: range | None = None
    searched: bool = False
    pieces: int = 1

    @property
    def suspect(self) -> bool:
        """Whether it may be what kills its workers: it is then given an actor to itself."""
        doubtful = self.tries is not None or self.searched or self.pieces > 1
        return doubtful or self.attempts >= _SUSPECT_AFTER


class WorkQueue:
    """The stream of tiles with those to be tried again put in front, once their back-off is over.

    Parameters
    ----------
    tiles : iterator of TileSpec
        Drawn only when asked for.
    """

    def __init__(self, tiles: Iterator[TileSpec]) -> None:
        self._tiles = tiles
        self._again: deque[Work] = deque()
        self._next: Work | None = None
        self._dry = False

    def peek_suspect(self) -> Work | None:
        """Return the next tile that may start now and needs an actor to itself."""
        return next((work for work in self._ready() if work.suspect), None)

    def peek(self) -> Work | None:
        """Return the next other tile that may start now."""
        again = next((work for work in self._ready() if not work.suspect), None)
        if again is not None:
            return again
        if self._next is None and not self._dry:
            spec = next(self._tiles, None)
            self._next = None if spec is None else Work(spec)
            self._dry = spec is None
        return self._next

    def _ready(self) -> Iterator[Work]:
        now = time.monotonic()
        return (work for work in self._again if work.not_before <= now)

    def take(self, work: Work) -> None:
        """Drop what was peeked at."""
        if self._next is work:
            self._next = None
        else:
            self._again.remove(work)

    def put_back(self, work: Work, delay_seconds: float = 0.0) -> None:
        """Take a tile that is to be tried again, after a delay; a try may have left a quarantine record."""
        work.spec = replace(work.spec, recorded=True)
        work.not_before = time.monotonic() + delay_seconds
        self._again.append(work)

    def left(self) -> bool:
        """Tell whether any tile has not started."""
        return bool(self._again) or self.peek() is not None
