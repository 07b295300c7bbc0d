"""What a model actor tells beside the driver."""

from __future__ import annotations

from deblend_batch.arrays.counting import bytes_read
from deblend_batch.cluster.metrics import Meters
from deblend_batch.engine.batching.batcher import Batcher


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
