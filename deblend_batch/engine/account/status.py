"""How far a run is, as a person, a log or a program reads it."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from deblend_batch.progress import clock

STALLED_SECONDS = 300.0
"""A running driver writes ``run.json`` every 30 seconds; after so long without a sign it may have died."""
_LINES_SHOWN = 5


@dataclass(frozen=True)
class RunStatus:
    """How far a run is.

    Parameters
    ----------
    output, state : str
        Where, and what ``run.json`` last said.
    updated_at : str
        When ``run.json`` or a receipt was written last; UTC, ISO 8601.
    idle_seconds : float
        How long ago that was, by this machine's clock.
    pairs_expected, pairs_written, pairs_quarantined : int
        Pairs, of the fields whose pairs are known so far.
    tiles_expected, tiles_written, tiles_quarantined : int
        Tiles of those fields; one that is written may lack pairs, which are in quarantine.
    pairs_per_second : float
        From the receipts of the last tiles; 0 where there are too few, or the run has stalled.
    eta_seconds : float, optional
        Time left at that rate; None where the run is over, or the rate unknown.
    failures : dict
        Quarantine records by class of error, and retries by class of failure.
    problems : tuple of str
        Files that are missing or damaged, and what to do about them, one line each.
    """

    output: str
    state: str
    updated_at: str
    idle_seconds: float
    pairs_expected: int
    pairs_written: int
    pairs_quarantined: int
    tiles_expected: int
    tiles_written: int
    tiles_quarantined: int
    pairs_per_second: float
    eta_seconds: float | None
    failures: dict[str, int]
    problems: tuple[str, ...]

    @property
    def stalled(self) -> bool:
        """Whether the run should be going on, but has given no sign for long."""
        return is_stalled(self.state, self.idle_seconds)

    def to_dict(self) -> dict[str, Any]:
        """Return the status as JSON-able values."""
        return {**asdict(self), "stalled": self.stalled}

    def to_line(self) -> str:
        """Return the status as one line of a log."""
        idle = f" (nothing new for {clock(self.idle_seconds)}: its driver may have died)"
        parts = [
            f"{self.state}{idle if self.stalled else ''}",
            f"tiles {self.tiles_written:,}/{self.tiles_expected:,}",
            f"pairs {self.pairs_written:,}/{self.pairs_expected:,}",
            f"quarantined {self.pairs_quarantined:,}",
        ]
        if not self.stalled:
            parts.append(f"{self.pairs_per_second:,.0f} pairs/s")
        if self.eta_seconds is not None:
            parts.append(f"ETA {clock(self.eta_seconds)}")
        if self.problems:
            parts.append(f"damaged: {len(self.problems):,}")
        return "  ".join([*parts, *(f"{name}: {n}" for name, n in self.failures.items())])

    def to_rows(self) -> list[tuple[str, str]]:
        """Return the status as names and texts; of very many problems only the first."""
        rows = [
            ("output", self.output),
            ("state", self._state()),
            ("pairs", _of(self.pairs_written, self.pairs_expected, self.pairs_quarantined)),
            ("tiles", _of(self.tiles_written, self.tiles_expected, self.tiles_quarantined)),
        ]
        if not self.stalled and self.pairs_per_second:
            rows.append(("rate", f"{self.pairs_per_second:,.0f} pairs/s"))
        if self.eta_seconds is not None:
            rows.append(("ETA", clock(self.eta_seconds)))
        rows += [("failures", f"{name}: {count}") for name, count in self.failures.items()]
        rows += [("damaged", problem) for problem in self.problems[:_LINES_SHOWN]]
        if len(self.problems) > _LINES_SHOWN:
            rows.append(("damaged", f"and {len(self.problems) - _LINES_SHOWN:,} more (--json)"))
        return rows

    def _state(self) -> str:
        if self.stalled:
            return (
                f"{self.state}, but nothing has moved since {self.updated_at} ({clock(self.idle_seconds)} "
                "ago): its driver may have died; if so, run again to go on"
            )
        if self.state == "running":
            return f"{self.state}, last update {clock(self.idle_seconds)} ago ({self.updated_at})"
        return f"{self.state}, {self.updated_at}"


def is_stalled(state: str, idle_seconds: float) -> bool:
    """Tell whether a run in this state should have given a sign of life meanwhile."""
    return state == "running" and idle_seconds > STALLED_SECONDS


def _of(written: int, expected: int, quarantined: int) -> str:
    return f"{written:,} of {expected:,} written, {quarantined:,} quarantined"
