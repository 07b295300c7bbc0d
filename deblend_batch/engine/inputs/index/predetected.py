"""Pre-detected pairs, read part by part: none may repeat anywhere in their table."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from deblend_batch.config import PairsConfig
from deblend_batch.detections.table import read_pairs_table, repeated_pairs
from deblend_batch.detections.unique import Repeated, UniqueKeys
from deblend_batch.engine.inputs.index.file import UnplacedPair
from deblend_batch.errors import DetectionsError, TooLargeError
from deblend_batch.storage import Options
from deblend_batch.tiling.pairing import blend_ids

MOST_UNPLACED = 100_000
"""Pairs of a table that no field may hold: each stands in the index and in a quarantine record."""

Ids = NDArray[np.int64]


def read_predetected(config: PairsConfig, options: Options) -> Iterator[Ids]:
    """Read the pairs of a run's table.

    Yields
    ------
    ndarray of int64, shape (n, 2)
        Ids of centrals and companions.
    """
    url = str(config.table)
    with UniqueKeys() as keys:
        for central, companion in read_pairs_table(url, config.columns, options):
            _check(keys.add(blend_ids(central, companion)), config, options)
            yield np.stack([central, companion], axis=-1)
        _check(keys.finish(), config, options)


def _check(found: Repeated | None, config: PairsConfig, options: Options) -> None:
    """Refuse a blend id that occurs twice; the table is read again to say of which pair."""
    if found is None:
        return
    url = str(config.table)
    for central, companion in read_pairs_table(url, config.columns, options):
        same = np.flatnonzero(blend_ids(central, companion) == found.first)
        if len(same):
            members = sorted((int(central[same[0]]), int(companion[same[0]])))
            raise repeated_pairs(found.n, (members[0], members[1]), url)
    raise DetectionsError(f"{url}: changed while it was read; try again")


class Unplaced:
    """Collects the pairs of a table that no tile can hold.

    Parameters
    ----------
    url : str
        The table, for the message.
    """

    def __init__(self, url: str) -> None:
        self._url = url
        self.pairs: list[UnplacedPair] = []

    def add(self, members: Ids, reason: str) -> None:
        """Add pairs."""
        if len(self.pairs) + len(members) > MOST_UNPLACED:
            raise TooLargeError(
                f"{self._url}: more than {MOST_UNPLACED:,} pairs that no field can hold ({reason}); give the "
                "pairs of this survey alone"
            )
        self.pairs += [UnplacedPair(one, other, reason) for one, other in members.tolist()]
