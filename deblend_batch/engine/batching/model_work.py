"""What the threads of a model have done: counted a batch at a time, under the batcher's lock."""

from __future__ import annotations

import time
from dataclasses import dataclass


@dataclass(frozen=True)
class WorkDone:
    """What a model has done since its process began.

    Parameters
    ----------
    stamps : int
        Stamps of single bands that were measured.
    room : int
        Stamps that their batches had room for.
    batches : int
        Batches.
    busy_seconds : float
        Wall time in which at least one batch was computed.
    waiting : int
        Stamps that wait to be computed now.
    """

    stamps: int = 0
    room: int = 0
    batches: int = 0
    busy_seconds: float = 0.0
    waiting: int = 0


class ModelWork:
    """Counts what a model's threads do; whoever calls holds the lock that they share."""

    def __init__(self) -> None:
        self._stamps = self._room = self._batches = self._computing = 0
        self._busy_seconds = 0.0
        self._since = 0.0

    def begin(self) -> None:
        """Count a batch as being computed."""
        if self._computing == 0:
            self._since = time.monotonic()
        self._computing += 1

    def end(self, stamps: int, room: int) -> None:
        """Count a batch as done."""
        self._busy_seconds += self._since_last()
        self._computing -= 1
        self._stamps += stamps
        self._room += room
        self._batches += 1

    @property
    def is_busy(self) -> bool:
        """Whether a batch is being computed."""
        return self._computing > 0

    def so_far(self, waiting: int) -> WorkDone:
        """Return what has been done, with the part of a batch that is being computed."""
        if self._computing:
            self._busy_seconds += self._since_last()
        return WorkDone(self._stamps, self._room, self._batches, self._busy_seconds, waiting)

    def _since_last(self) -> float:
        now = time.monotonic()
        elapsed, self._since = now - self._since, now
        return elapsed
