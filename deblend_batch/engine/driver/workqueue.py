"""What the driver still has to hand out: the lazy stream of tiles, and those to be tried again."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass, replace

from deblend_batch.engine.driver.recovery import FRESH, State
from deblend_batch.engine.inputs.work import TileSpec


@dataclass(frozen=True, eq=False)
class Work:
    """A tile on its way.

    Parameters
    ----------
    spec : TileSpec
        The tile.
    state : Whole, InPieces, Searching or WithoutKillers
        What is to be done to it next, and what has been learnt of it.
    """

    spec: TileSpec
    state: State = FRESH


class WorkQueue:
    """The stream of tiles with those to be tried again put in front, once their back-off is over.

    Parameters
    ----------
    tiles : iterator of TileSpec
        Drawn only when asked for.
    """

    def __init__(self, tiles: Iterator[TileSpec]) -> None:
        self._tiles = tiles
        self._again: dict[Work, float] = {}
        self._next: Work | None = None
        self._dry = False

    def peek_suspect(self) -> Work | None:
        """Return the next tile that may start now and needs an actor to itself."""
        return next((work for work in self._ready() if work.state.suspect), None)

    def peek(self) -> Work | None:
        """Return the next other tile that may start now."""
        again = next((work for work in self._ready() if not work.state.suspect), None)
        if again is not None:
            return again
        if self._next is None and not self._dry:
            spec = next(self._tiles, None)
            self._next = None if spec is None else Work(spec)
            self._dry = spec is None
        return self._next

    def _ready(self) -> Iterator[Work]:
        now = time.monotonic()
        return (work for work, not_before in self._again.items() if not_before <= now)

    def take(self, work: Work) -> None:
        """Drop what was peeked at."""
        if self._next is work:
            self._next = None
        else:
            del self._again[work]

    def put_back(self, work: Work, state: State, delay_seconds: float = 0.0) -> None:
        """Take a tile that is to be tried again, after a delay; a try may have left a quarantine record."""
        again = Work(replace(work.spec, recorded=True), state)
        self._again[again] = time.monotonic() + delay_seconds

    def left(self) -> bool:
        """Tell whether any tile has not started."""
        return bool(self._again) or self.peek() is not None
