"""The summary of a run: how it ended, in numbers and in words."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from deblend_batch import flags
from deblend_batch.catalog.output import Output
from deblend_batch.catalog.records import UNPLACED, Totals
from deblend_batch.config import PairsConfig, RunConfig
from deblend_batch.detections.counted import say_counts
from deblend_batch.engine.account.tally import Tally
from deblend_batch.engine.needs.memory import MemoryUse

_FIELDS_SHOWN = 10


@dataclass(frozen=True)
class RunSummary:
    """How a run ended.

    Parameters
    ----------
    output : str
        Where the catalogue is.
    state : str
        ``complete`` or ``complete_with_quarantine``.
    totals : dict
        As in ``run.json``.
    seconds : float
        Wall time of the tiles, from the first ready actor on; 0 where nothing was left to do.
    pairs_per_second : float
        Rate of this call; 0 where nothing was left to do.
    unused : tuple of str
        Files that list detections which could not be used.
    notes : tuple of str
        What else a reader should know, one line each.
    memory : MemoryUse, optional
        Peak memory beside what was projected; None where nothing was left to do.
    """

    output: str
    state: str
    totals: Totals
    seconds: float
    pairs_per_second: float
    unused: tuple[str, ...]
    notes: tuple[str, ...]
    memory: MemoryUse | None = None

    def to_dict(self) -> dict[str, Any]:
        """Return the summary as JSON-able values."""
        return asdict(self)

    def to_rows(self) -> list[tuple[str, str]]:
        """Return the summary as names and texts."""
        pairs, tiles = self.totals["pairs"], self.totals["tiles"]
        found, refined = self.totals["detections"], self.totals.get("refined", {})
        flagged = [f"{name} {n:,}" for name, n in self.totals["flags"].items()]
        rows = [
            ("state", self.state.replace("_", " ")),
            ("detections", f"{found.get('used', 0):,} used of {found.get('read', 0):,}"),
            *([("refined", say_counts(refined))] if refined else []),
            ("pairs", f"{pairs['written']:,} written, {pairs['quarantined']:,} quarantined"),
            ("shards", f"{tiles['written']:,} with {self.totals['rows']:,} rows"),
            ("flags", ", ".join(flagged) or "none"),
        ]
        deferred = sorted(self.totals.get("deferred", {}).items())
        rows += [("deferred", f"{n:,} to field {name}") for name, n in deferred[:_FIELDS_SHOWN]]
        if len(deferred) > _FIELDS_SHOWN:
            rows.append(("deferred", f"to {len(deferred) - _FIELDS_SHOWN:,} more fields (--json)"))
        if self.seconds:
            rate = f"{self.pairs_per_second:,.0f} pairs/s over {self.seconds:.1f} s"
            rows.append(("rate", rate))
        if self.memory is not None:
            rows.append(("peak memory", str(self.memory)))
        rows.append(("catalogue", Output(self.output).shards_url))
        rows += [("not used", f"detections listed in {url}") for url in self.unused]
        return rows + [("note", note) for note in self.notes]

    @property
    def exit_code(self) -> int:
        """0, or 3 where something is in quarantine."""
        return 3 if self.totals["pairs"]["quarantined"] else 0


def notes_on(config: RunConfig, tally: Tally) -> tuple[str, ...]:
    """Say what the numbers of a finished run leave open."""
    notes = []
    if not tally.pairs.expected:
        notes.append(no_pairs(config.pairs, tally.detections, tally.nearest_arcsec))
    elif tally.tiles.expected and not tally.workers:
        notes.append(_nothing_left(config.output, tally))
    without = tally.flags.get(flags.NO_DATA.name, 0)
    if 2 * without > tally.rows:
        notes.append(
            f"{without:,} of {tally.rows:,} rows have no data (flag {flags.NO_DATA.name}): "
            "the field's pixels are missing or masked there; look at its image"
        )
    if tally.unplaced:
        notes.append(
            f"{tally.unplaced:,} of the pairs in quarantine cannot be retried: no field holds them "
            f"({Output(config.output).quarantine_url(UNPLACED)} lists them); add their field to the "
            "survey, or mend the detections or the pairs table, and give a new output"
        )
    return tuple(notes)


def _nothing_left(output: str, tally: Tally) -> str:
    pairs, tiles = tally.pairs, tally.tiles
    there = f"{pairs.written:,} pairs in {tiles.written:,} shards were already there"
    held = f"; tiles in quarantine: {tiles.quarantined:,} (deblend-batch retry {output})"
    return f"nothing left to do: {there}{held if tiles.quarantined else ''}"


def no_pairs(
    pairs: PairsConfig, detections: Mapping[str, int], nearest_arcsec: float | None
) -> str:
    """Say why there is no pair.

    Parameters
    ----------
    pairs : PairsConfig
        Where pairs were to come from.
    detections : mapping
        Counts: ``read`` and ``used``.
    nearest_arcsec : float, optional
        Least distance between two detections; None where there are no two.
    """
    used, read = detections.get("used", 0), detections.get("read", 0)
    if pairs.table is not None:
        return f"no pairs: the table has no rows ({pairs.table})"
    found = f"no pairs within pairs.max_separation = {pairs.max_separation:g} arcsec"
    if nearest_arcsec is None:
        return f"{found}: of {read:,} detections {used:,} lie on an image, and a pair takes two"
    return f"{found}: the nearest two of {used:,} detections are {nearest_arcsec:.4g} arcsec apart"
