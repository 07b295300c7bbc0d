"""The metrics of a run, which Ray's agents export to Prometheus: their names, and who sets them.

Ray puts ``ray_`` before a name, and labels of node (``NodeAddress``) and process (``WorkerId``) beside ours.
A gauge is forgotten about 20 seconds after it was last set, and a counter cannot be set to zero. So a thread
sets every gauge once a second, also while nothing happens; what may stay zero for long, such as pairs in
quarantine, is a gauge; and the gauges of a process that has ended vanish.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal

PREFIX = "ray_"
"""What Ray puts before each name."""

_PUBLISH_SECONDS = 1.0
_TILE_SECONDS = (0.1, 0.3, 1.0, 3.0, 10.0, 30.0, 100.0, 300.0, 1000.0)


@dataclass(frozen=True)
class Metric:
    """One metric.

    Parameters
    ----------
    kind : {"counter", "gauge", "histogram"}
        As Prometheus knows them.
    meaning : str
        One line.
    labels : tuple of str
        Besides ``run``; each with a few values that are known beforehand.
    """

    kind: Literal["counter", "gauge", "histogram"]
    meaning: str
    labels: tuple[str, ...] = ()


METRICS: Mapping[str, Metric] = {
    # of the driver
    "deblend_batch_pairs": Metric(
        "gauge", "Pairs of the run: expected, written, quarantined, pending.", ("state",)
    ),
    "deblend_batch_tiles": Metric(
        "gauge", "Tiles: expected, written, quarantined, in_flight, waiting.", ("state",)
    ),
    "deblend_batch_written_pairs_total": Metric("counter", "Pairs written since this start."),
    "deblend_batch_retries": Metric(
        "gauge", "Tiles tried again since this start, by class of failure.", ("failure",)
    ),
    "deblend_batch_actors": Metric("gauge", "Model actors: ready, starting.", ("state",)),
    "deblend_batch_eta_seconds": Metric("gauge", "Time left at the mean rate of this start."),
    "deblend_batch_last_progress_timestamp_seconds": Metric(
        "gauge", "When a tile was last written or put in quarantine, Unix time."
    ),
    "deblend_batch_deadline_timestamp_seconds": Metric(
        "gauge", "When the run should be done (engine.deadline), Unix time."
    ),
    "deblend_batch_tile_duration_seconds": Metric(
        "histogram",
        "Wall time of a tile: cut (read and cut), infer (wait for the model).",
        ("stage",),
    ),
    # of each model actor
    "deblend_batch_stamps_total": Metric("counter", "Stamps of single bands that models measured."),
    "deblend_batch_stamps_room_total": Metric(
        "counter", "Stamps that the batches of these had room for."
    ),
    "deblend_batch_batches_total": Metric("counter", "Batches that models computed."),
    "deblend_batch_busy_seconds_total": Metric(
        "counter", "Time in which an actor's model computed."
    ),
    "deblend_batch_queued_stamps": Metric("gauge", "Stamps that wait for an actor's model."),
    "deblend_batch_batch_size_stamps": Metric(
        "gauge",
        "Stamps that a model computes at once; less than before where memory did not suffice.",
    ),
    # of each process that reads pixels
    "deblend_batch_read_bytes_total": Metric("counter", "Bytes of pixels read, as stored."),
}
"""Every metric, by its name without :data:`PREFIX`."""


class Meters:
    """The metrics of one run in this process.

    Parameters
    ----------
    run : str
        The run's id, which labels them all.
    """

    def __init__(self, run: str) -> None:
        self._run = run
        self._made: dict[str, Any] = {}
        self._counted: dict[str, float] = {}

    def set(self, name: str, value: float | None, **labels: str) -> None:
        """Set a gauge; None leaves it as it is.

        Parameters
        ----------
        name : str
            In :data:`METRICS`.
        value : float, optional
            Its value.
        **labels : str
            Values of its labels.
        """
        if value is not None:
            self._metric(name).set(float(value), {"run": self._run, **labels})

    def count_up_to(self, name: str, total: float) -> None:
        """Raise a counter to a total of this process; never lowers it."""
        more = total - self._counted.get(name, 0.0)
        if more > 0:
            self._counted[name] = total
            self.count(name, more)

    def count(self, name: str, more: float) -> None:
        """Raise a counter."""
        if more > 0:
            self._metric(name).inc(float(more), {"run": self._run})

    def observe(self, name: str, value: float, **labels: str) -> None:
        """Add a value to a histogram."""
        self._metric(name).observe(float(value), {"run": self._run, **labels})

    def _metric(self, name: str) -> Any:
        if name not in self._made:
            from ray.util.metrics import Counter, Gauge, Histogram

            metric = METRICS[name]
            labels = ("run", *metric.labels)
            if metric.kind == "histogram":
                made: Any = Histogram(name, metric.meaning, list(_TILE_SECONDS), labels)
            else:
                made = (Counter if metric.kind == "counter" else Gauge)(
                    name, metric.meaning, labels
                )
            self._made[name] = made
        return self._made[name]


def publish_often(publish: Callable[[], None]) -> Callable[[], None]:
    """Call a function once a second, in a thread that ends with the process."""
    over = threading.Event()

    def repeat() -> None:
        publish()
        while not over.wait(_PUBLISH_SECONDS):
            publish()
        publish()

    thread = threading.Thread(target=repeat, name="metrics", daemon=True)
    thread.start()

    def end() -> None:
        over.set()
        thread.join()

    return end


@contextmanager
def published(publish: Callable[[], None]) -> Iterator[None]:
    """Publish as :func:`publish_often` does, for as long as the context is open."""
    end = publish_often(publish)
    try:
        yield
    finally:
        end()
