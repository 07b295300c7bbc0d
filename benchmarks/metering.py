"""Meters: when the parts of a run happened, and the CPU time and memory of its processes."""

from __future__ import annotations

import math
import os
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import psutil

from deblend_batch.engine.account.summary import RunSummary
from deblend_batch.engine.run import process_field
from deblend_batch.progress import ProgressMeter

_SAMPLE_SECONDS = 0.1
_SHORTEST_SPAN_SECONDS = 2.0


class Meter(ProgressMeter):
    """A progress meter that tells nobody, and remembers when things happened."""

    def __init__(self) -> None:
        self._nowhere = open(os.devnull, "w")  # noqa: SIM115  # closed with the meter
        super().__init__("pairs", self._nowhere)
        self.made = time.monotonic()
        self.planned: float | None = None
        self.ready: float | None = None
        self.advances: list[tuple[float, int]] = []
        self.on_plan: Callable[[], None] = lambda: None

    def expect(self, total: int, done: int) -> None:
        """Remember when the plan was there, in seconds since the meter was made."""
        self.planned = self.planned or time.monotonic() - self.made
        self.on_plan()
        super().expect(total, done)

    def start(self) -> None:
        """Remember when the first actor was ready."""
        self.ready = self.ready or time.monotonic() - self.made
        super().start()

    def advance(self, items: int, prefix: str) -> None:
        """Remember when pairs were done, and how many."""
        self.advances.append((time.monotonic() - self.made, items))
        super().advance(items, prefix)

    def close(self) -> None:
        """Close the meter's stream."""
        super().close()
        self._nowhere.close()


@dataclass(frozen=True)
class Cost:
    """What a run took.

    Parameters
    ----------
    summary : RunSummary
        What the run says of itself.
    meter : Meter
        When things happened.
    cpu_seconds : float
        CPU time of the process tree.
    peak_mb : dict of str to float
        Largest resident memory by kind of process (``driver``, ``actor``, ``task``).
    cpu_seconds_by : sequence of (float, float)
        CPU time so far at times of the meter's clock.
    """

    summary: RunSummary
    meter: Meter
    cpu_seconds: float
    peak_mb: dict[str, float]
    cpu_seconds_by: Sequence[tuple[float, float]]

    @property
    def pairs(self) -> int:
        """Pairs written in all."""
        return int(self.summary.totals["pairs"]["written"])

    def steady(self) -> tuple[float, float]:
        """Measure between the first and the last tile that was done, where start-up is over.

        Returns
        -------
        seconds_per_pair, cpu_seconds_per_pair : float
            Wall and CPU time; NaN where the span is too short for the sampled CPU time to mean anything.
        """
        (first, _), *rest = self.meter.advances
        last, pairs = rest[-1][0], sum(items for _, items in rest)
        if last - first < _SHORTEST_SPAN_SECONDS:
            return math.nan, math.nan
        times, cpu = np.array(self.cpu_seconds_by).T
        used = np.interp([first, last], times, cpu)
        return (last - first) / pairs, float(used[1] - used[0]) / pairs


def run_pipeline(config: dict[str, Any], loader: Any = None) -> Cost:
    """Run the whole pipeline, and measure.

    Parameters
    ----------
    config : dict
        Of :func:`deblend_batch.process_field`.
    loader : callable, optional
        Makes the model; the shipped one if None.

    Returns
    -------
    Cost
        What it took.
    """
    meter = Meter()
    with measured_tree() as tree:
        summary = process_field(
            config, progress=meter, **({} if loader is None else {"loader": loader})
        )
    by = [(at - meter.made, cpu) for at, cpu in tree.history]
    return Cost(summary, meter, tree.cpu_seconds, tree.peak_mb, by)


class ProcessTree:
    """CPU time and memory of this process and all below it, sampled: of those that end meanwhile, too."""

    def __init__(self) -> None:
        self._me = psutil.Process()
        self._seen: dict[psutil.Process, float] = {}
        self.peak_mb: dict[str, float] = {}
        self.history: list[tuple[float, float]] = []
        self._own = self._before = 0.0
        self.sample()
        self._before, self._own = self._total(), 0.0
        self.history.clear()

    @property
    def cpu_seconds(self) -> float:
        """CPU time since the tree was first looked at, without that of looking."""
        return self._total() - self._before - self._own

    def sample(self) -> None:
        """Look at every process."""
        started = time.thread_time()
        for process in [self._me, *self._me.children(recursive=True)]:
            try:
                with process.oneshot():
                    times, memory = process.cpu_times(), process.memory_info().rss / 1e6
                    kind = kind_of(process, self._me)
            except psutil.Error:
                continue
            self._seen[process] = times.user + times.system
            self.peak_mb[kind] = max(self.peak_mb.get(kind, 0.0), memory)
        self._own += time.thread_time() - started
        self.history.append((time.monotonic(), self.cpu_seconds))

    def _total(self) -> float:
        return sum(self._seen.values())


def kind_of(process: psutil.Process, driver: psutil.Process) -> str:
    """Tell what a process is to a run: ``driver``, ``actor``, ``task`` (a worker of Ray's), or ``other``."""
    if process == driver:
        return "driver"
    title = (process.cmdline() or [""])[0]
    if title.startswith("ray::ModelActor"):
        return "actor"
    return "task" if title.startswith("ray::") else "other"


@contextmanager
def measured_tree(every: float = _SAMPLE_SECONDS) -> Iterator[ProcessTree]:
    """Sample the process tree for as long as the context is open.

    Parameters
    ----------
    every : float
        Seconds between samples; what a process computes after its last one is lost.

    Yields
    ------
    ProcessTree
        To be read at any time.
    """
    tree, over = ProcessTree(), threading.Event()

    def look() -> None:
        while not over.wait(every):
            tree.sample()

    thread = threading.Thread(target=look, daemon=True)
    thread.start()
    try:
        yield tree
    finally:
        over.set()
        thread.join()
        tree.sample()


def actor_pids() -> list[int]:
    """Return the processes of the model actors that this process's cluster runs, ascending."""
    me, found = psutil.Process(), []
    for process in me.children(recursive=True):
        try:
            if kind_of(process, me) == "actor":
                found.append(process.pid)
        except psutil.Error:
            continue
    return sorted(found)
