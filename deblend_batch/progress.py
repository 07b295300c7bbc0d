"""Progress of a long job: a bar on a terminal, a line now and then in a log."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TextIO

import structlog
from rich.console import Console
from rich.progress import BarColumn, TaskID, TextColumn, TimeElapsedColumn
from rich.progress import Progress as Bar

from deblend_batch.logs import chosen_format

log = structlog.get_logger()

_LINE_SECONDS = 5.0

Progress = Callable[[str, int, int | None], None]
"""Called with the stage of a long job, how much of it is done, and how much there is, if that is known."""


def silent(_stage: str, _done: int, _total: int | None) -> None:
    """Say nothing of it."""


@contextmanager
def telling(unit: str) -> Iterator[Progress]:
    """Tell a long job's progress on the standard error.

    Parameters
    ----------
    unit : str
        What is counted, plural.
    """
    meter = ProgressMeter(unit)
    try:
        yield meter.reach
    finally:
        meter.close()


def clock(seconds: float) -> str:
    """Format seconds as ``h:mm:ss``.

    Examples
    --------
    >>> clock(3725)
    '1:02:05'
    """
    whole = round(seconds)
    return f"{whole // 3600}:{whole // 60 % 60:02d}:{whole % 60:02d}"


def _rounded(rate: float) -> str:
    return f"{rate:,.0f}" if rate >= 10 else f"{rate:.2g}"


class ProgressMeter:
    """Counts finished items, and tells rate and ETA.

    Parameters
    ----------
    unit : str
        What is counted, plural.
    stream : file
        Where to tell; a redrawn bar where it is a terminal, lines elsewhere.
    """

    def __init__(self, unit: str, stream: TextIO | None = None) -> None:
        self._unit = unit
        self._to_log = stream is None and chosen_format() == "json"
        self._stream = stream or sys.stderr
        self._started = time.monotonic()
        self._said = self._started
        self._total: int | None = None
        self._done = 0
        self._before = 0
        self._prefix = ""
        self._last: tuple[str, int, int | None] | None = None
        self._bar: Bar | None = None
        self._task: TaskID | None = None
        if self._stream.isatty() and not self._to_log:
            self._bar = Bar(
                TextColumn("{task.description}"),
                BarColumn(),
                TextColumn("{task.fields[rate]}"),
                TimeElapsedColumn(),
                console=Console(file=self._stream),
                transient=True,
            )
            self._task = self._bar.add_task(f"{unit}", total=None, rate="")
            self._bar.start()

    @property
    def rate(self) -> float:
        """Items per second since :meth:`start`."""
        return (self._done - self._before) / max(time.monotonic() - self._started, 1e-9)

    @property
    def eta_seconds(self) -> float | None:
        """Time left at that rate; None where it is not known yet."""
        if self._done == self._before or self._total is None:
            return None
        return (self._total - self._done) / self.rate

    def start(self) -> None:
        """Start the clock: what came before was preparation."""
        self._started = time.monotonic()

    def expect(self, total: int, done: int) -> None:
        """Set how many items there will be in all, and how many an earlier start has done."""
        self._total, self._done, self._before = total, done, done

    def advance(self, items: int, prefix: str) -> None:
        """Count items as done."""
        self._done += items
        self._prefix = f"{prefix}  "
        self.tick()

    def reach(self, stage: str, done: int, total: int | None) -> None:
        """Set how far a stage is, for jobs that count by themselves.

        Parameters
        ----------
        stage : str
            What is being done.
        done, total : int
            Items finished and in all; None where that is not known.
        """
        if self._prefix and self._prefix != f"{stage}  ":
            self.start()
        self._prefix, self._done, self._total = f"{stage}  ", done, total
        self.tick()

    def tick(self) -> None:
        """Redraw the bar, or say a line if the last one is old and the counts are not."""
        if self._bar is not None and self._task is not None:
            self._bar.update(self._task, completed=self._done, total=self._total, rate=self._text())
        elif time.monotonic() - self._said >= _LINE_SECONDS:
            self.say()

    def say(self) -> None:
        """Say a line now, where there is no bar and the counts differ from the last line's."""
        counts = (self._prefix, self._done, self._total)
        if self._bar is None and counts != self._last:
            self._last = counts
            self._said = time.monotonic()
            if self._to_log:
                self._log()
            else:
                print(self._text(), file=self._stream, flush=True)

    def _log(self) -> None:
        known: dict[str, float] = {}
        if (left := self.eta_seconds) is not None:
            known = {"per_second": round(self.rate, 2), "eta_seconds": round(left, 1)}
        counts = {"unit": self._unit, "done": self._done, "total": self._total}
        log.info("progress", stage=self._prefix.strip(), **counts, **known)

    def _text(self) -> str:
        total = "?" if self._total is None else f"{self._total:,}"
        text = f"{self._prefix}{self._unit} {self._done:,}/{total}"
        if (left := self.eta_seconds) is not None:
            text += f"  {_rounded(self.rate)} {self._unit}/s  ETA {clock(left)}"
        return text

    def close(self) -> None:
        """Take the bar away, or say the last line."""
        if self._bar is not None:
            self._bar.stop()
        elif self._done > self._before:
            self.say()
