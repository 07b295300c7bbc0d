"""What the driver of a run tells: the ledger's counts, what is under way, and when it will be done."""

from __future__ import annotations

import time
from datetime import datetime
from typing import Protocol

from deblend_batch.catalog.records import Receipt
from deblend_batch.cluster.metrics import Meters
from deblend_batch.engine.account.tally import Tally
from deblend_batch.failure import Failure
from deblend_batch.progress import ProgressMeter


class DriverLike(Protocol):
    """What is asked of the driver: see :class:`deblend_batch.engine.driver.loop.Driver`."""

    @property
    def tiles_in_flight(self) -> int:
        """Tiles that actors hold."""

    @property
    def actors_ready(self) -> int:
        """Actors that take tiles."""

    @property
    def actors_starting(self) -> int:
        """Actors that do not yet."""


class RunMetrics:
    """The metrics of a run's driver.

    Parameters
    ----------
    run : str
        The run's id.
    tally : Tally
        What the run counts.
    meter : ProgressMeter
        Knows rate and ETA.
    deadline : datetime or float, optional
        When the run should be done, or how many seconds after now.
    """

    def __init__(
        self, run: str, tally: Tally, meter: ProgressMeter, deadline: datetime | float | None
    ) -> None:
        self._meters = Meters(run)
        self._tally = tally
        self._meter = meter
        self._driver: DriverLike | None = None
        self._seen = 0
        self._progressed = time.time()
        if isinstance(deadline, datetime):
            deadline = deadline.timestamp()
        elif deadline is not None:
            deadline += self._progressed
        self._deadline = deadline

    def watch(self, driver: DriverLike) -> None:
        """Tell of a driver from now on."""
        self._driver = driver

    def add_receipt(self, receipt: Receipt) -> None:
        """Count how long a tile took."""
        for stage, seconds in receipt.seconds.items():
            self._meters.observe("deblend_batch_tile_duration_seconds", seconds, stage=stage)

    def publish(self) -> None:
        """Set every metric to what it is now."""
        meters, tally = self._meters, self._tally
        done = tally.pairs.written + tally.pairs.quarantined
        if done != self._seen:
            self._seen, self._progressed = done, time.time()
        meters.set("deblend_batch_last_progress_timestamp_seconds", self._progressed)
        meters.set("deblend_batch_deadline_timestamp_seconds", self._deadline)
        meters.count_up_to("deblend_batch_written_pairs_total", tally.pairs_here)
        for failure in Failure:
            retries = tally.retries[failure.value]
            meters.set("deblend_batch_retries", retries, failure=failure.value)
        if self._driver is not None:
            meters.set("deblend_batch_actors", self._driver.actors_ready, state="ready")
            meters.set("deblend_batch_actors", self._driver.actors_starting, state="starting")
        if tally.counted:
            self._publish_counts()

    def _publish_counts(self) -> None:
        """Tell what the ledger holds, once it is known what there is to do."""
        meters, pairs, tiles = self._meters, self._tally.pairs, self._tally.tiles
        pair_states = {
            "expected": pairs.expected,
            "written": pairs.written,
            "quarantined": pairs.quarantined,
            "pending": pairs.pending,
        }
        for state, count in pair_states.items():
            meters.set("deblend_batch_pairs", count, state=state)
        in_flight = 0 if self._driver is None else self._driver.tiles_in_flight
        waiting = max(tiles.pending - in_flight, 0)
        states = {
            "expected": tiles.expected,
            "written": tiles.written,
            "quarantined": tiles.quarantined,
            "in_flight": in_flight,
            "waiting": waiting,
        }
        for state, count in states.items():
            meters.set("deblend_batch_tiles", count, state=state)
        meters.set("deblend_batch_eta_seconds", self._meter.eta_seconds)
