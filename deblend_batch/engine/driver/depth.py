"""How many tiles an actor holds at a time: more while a remote store's answers keep its model waiting."""

from __future__ import annotations

GROWTH = 4
"""Most tiles that an actor may come to hold, as a multiple of ``engine.tiles_in_flight``."""
_MOST_IDLE = 0.1


class Depth:
    """The number of tiles that one actor holds at a time, the same for all actors of a run.

    Parameters
    ----------
    tiles : int
        How many at first.

    Attributes
    ----------
    tiles : int
        How many now.

    Examples
    --------
    >>> depth = Depth(1)
    >>> depth.allow(4)
    >>> for _ in range(2):
    ...     depth.learn(busy_seconds=0.5, idle_seconds=0.5, actors=1)
    >>> depth.tiles
    2
    """

    def __init__(self, tiles: int) -> None:
        self.tiles = tiles
        self._most = tiles
        self._forget()

    def allow(self, most: int) -> None:
        """Let the number grow."""
        self._most = most

    def lower(self) -> None:
        """Go down by one, for good: memory did not suffice."""
        self.tiles = self._most = max(1, self.tiles - 1)

    def learn(self, busy_seconds: float, idle_seconds: float, actors: int) -> None:
        """Take note of a finished tile.

        Tiles that were begun before the last change say nothing of it; of as many again the mean decides.

        Parameters
        ----------
        busy_seconds, idle_seconds : float
            How long its actor's model computed, and waited, since the actor finished the tile before.
        actors : int
            Actors that finish tiles.
        """
        self._finished += 1
        in_flight = self.tiles * max(actors, 1)
        if self._finished <= in_flight:
            return
        self._busy += busy_seconds
        self._idle += idle_seconds
        if self._finished == 2 * in_flight:
            if self._idle > _MOST_IDLE * (self._busy + self._idle):
                self.tiles = min(2 * self.tiles, self._most)
            self._forget()

    def _forget(self) -> None:
        self._finished, self._busy, self._idle = 0, 0.0, 0.0
