"""What the processes of a run tell beside the driver: model actors, and the CPU tasks that cut stamps."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache

from deblend_batch.arrays.counting import bytes_read
from deblend_batch.cluster.metrics import Meters
from deblend_batch.engine.worker.batcher import Batcher


class ActorMetrics:
    """The metrics of a model actor.

    Parameters
    ----------
    run : str
        The run's id.
    batcher : Batcher
        Of its model.
    """

    def __init__(self, run: str, batcher: Batcher) -> None:
        self._meters = Meters(run)
        self._batcher = batcher

    def publish(self) -> None:
        """Set every metric to what it is now."""
        done, meters = self._batcher.work(), self._meters
        meters.count_up_to("deblend_batch_stamps_total", done.stamps)
        meters.count_up_to("deblend_batch_stamps_room_total", done.room)
        meters.count_up_to("deblend_batch_batches_total", done.batches)
        meters.count_up_to("deblend_batch_busy_seconds_total", done.busy_seconds)
        meters.set("deblend_batch_queued_stamps", done.waiting)
        meters.set("deblend_batch_batch_size_stamps", self._batcher.rows_at_once)
        meters.count_up_to("deblend_batch_read_bytes_total", bytes_read())


@contextmanager
def reads_counted(run: str) -> Iterator[None]:
    """Count what a CPU task reads while the context is open.

    Parameters
    ----------
    run : str
        The run's id.
    """
    before = bytes_read()
    try:
        yield
    finally:
        _meters_of(run).count("deblend_batch_read_bytes_total", bytes_read() - before)


@lru_cache(maxsize=8)
def _meters_of(run: str) -> Meters:
    """Return the meters of a run in this process: to make one is to register it anew with Ray's agent."""
    return Meters(run)
