"""How far hats-import is, from the tasks that it gives to Dask: its own bar is for terminals alone."""

from __future__ import annotations

from collections import Counter
from typing import Any

from dask.utils import key_split
from distributed import WorkerPlugin

from deblend_batch.progress import Progress

_OF_SHARDS = {"map_to_pixels": "counting", "split_pixels": "sorting"}
_OF_PARTITIONS = {
    "reduce_pixel_shards": "writing partitions",
    "map_pixel_shards": "margins",
    "reduce_margin_shards": "writing margins",
}


class TaskCounter(WorkerPlugin):
    """Counts the tasks of an import.

    Parameters
    ----------
    progress : callable
        Told of them.
    n_shards : int
        Of the run: how many tasks its first two stages have.
    """

    def __init__(self, progress: Progress, n_shards: int) -> None:
        self._progress = progress
        self._n_shards = n_shards
        self._done: Counter[str] = Counter()

    def transition(self, key: Any, start: str, finish: str, **_: Any) -> None:  # noqa: ARG002
        """Count a task that has ended."""
        name = key_split(key)
        if finish != "memory" or name not in {**_OF_SHARDS, **_OF_PARTITIONS}:
            return
        self._done[name] += 1
        if name in _OF_SHARDS:
            self._progress(_OF_SHARDS[name], self._done[name], self._n_shards)
        else:
            self._progress(_OF_PARTITIONS[name], self._done[name], None)
