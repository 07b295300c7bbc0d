"""A run seen from its output alone: how far it is, and its publication. Needs no cluster."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from datetime import datetime
from itertools import pairwise
from statistics import median_low
from typing import Any

import numpy as np

from deblend_batch.catalog.ledger import Ledger
from deblend_batch.catalog.publish import Publication, publish_shards
from deblend_batch.catalog.records import UNPLACED, QuarantineRecord, Receipt
from deblend_batch.engine.index import list_indexes, read_index
from deblend_batch.engine.progress import clock
from deblend_batch.engine.verify import verify_run
from deblend_batch.engine.workload import count_held
from deblend_batch.errors import CatalogError

_RATE_OF = 200


@dataclass(frozen=True)
class RunStatus:
    """How far a run is.

    Parameters
    ----------
    output, state, updated_at : str
        Where, and what ``run.json`` last said, when.
    pairs_expected, pairs_written, pairs_quarantined : int
        Pairs, of the fields whose pairs are known so far.
    tiles_expected, tiles_written, tiles_quarantined : int
        Tiles of those fields; one that is written may lack pairs, which are in quarantine.
    pairs_per_second : float
        From the receipts of the last tiles; 0 where there are too few.
    eta_seconds : float, optional
        Time left at that rate; None where the run is over, or the rate unknown.
    failures : dict
        Quarantine records by class of error, and retries by class of failure.
    """

    output: str
    state: str
    updated_at: str
    pairs_expected: int
    pairs_written: int
    pairs_quarantined: int
    tiles_expected: int
    tiles_written: int
    tiles_quarantined: int
    pairs_per_second: float
    eta_seconds: float | None
    failures: dict[str, int]

    def to_dict(self) -> dict[str, Any]:
        """Return the status as JSON-able values."""
        return asdict(self)

    def to_line(self) -> str:
        """Return the status as one line of a log."""
        parts = [
            self.state,
            f"tiles {self.tiles_written:,}/{self.tiles_expected:,}",
            f"pairs {self.pairs_written:,}/{self.pairs_expected:,}",
            f"quarantined {self.pairs_quarantined:,}",
            f"{self.pairs_per_second:,.0f} pairs/s",
        ]
        if self.eta_seconds is not None:
            parts.append(f"ETA {clock(self.eta_seconds)}")
        return "  ".join([*parts, *(f"{name}: {n}" for name, n in self.failures.items())])

    def to_rows(self) -> list[tuple[str, str]]:
        """Return the status as names and texts."""
        rows = [
            ("output", self.output),
            ("state", f"{self.state}, {self.updated_at}"),
            ("pairs", _of(self.pairs_written, self.pairs_expected, self.pairs_quarantined)),
            ("tiles", _of(self.tiles_written, self.tiles_expected, self.tiles_quarantined)),
            ("rate", f"{self.pairs_per_second:,.0f} pairs/s"),
        ]
        if self.eta_seconds is not None:
            rows.append(("ETA", clock(self.eta_seconds)))
        rows += [("failures", f"{name}: {count}") for name, count in self.failures.items()]
        return rows


def _of(written: int, expected: int, quarantined: int) -> str:
    return f"{written:,} of {expected:,} written, {quarantined:,} quarantined"


def read_status(output: str, options: dict[str, Any] | None = None) -> RunStatus:
    """Read how far a run is from its ledger; works while it runs, and after.

    Parameters
    ----------
    output : str
        Output folder.
    options : dict, optional
        Storage options.

    Returns
    -------
    RunStatus
        Counts, rate and ETA.

    Raises
    ------
    CatalogError
        If the folder holds no run.
    """
    return StatusReader(output, options).read()


class StatusReader:
    """Reads how far a run is, again and again: what it has read of files that do not change, it keeps.

    A look costs ``run.json``, the listings of four folders, and what is new: of receipts the newest alone.

    Parameters
    ----------
    output : str
        Output folder.
    options : dict, optional
        Storage options.
    """

    def __init__(self, output: str, options: dict[str, Any] | None = None) -> None:
        self._ledger = Ledger(output, options)
        self._pairs_of: dict[str, dict[str, int]] = {}
        self._receipts: dict[str, Receipt] = {}
        self._records: dict[str, QuarantineRecord] = {}

    def read(self) -> RunStatus:
        """Read how far the run is now.

        Returns
        -------
        RunStatus
            Counts, rate and ETA.

        Raises
        ------
        CatalogError
            If the folder holds no run.
        """
        ledger = self._ledger
        run = ledger.read_run()
        pairs_of = self._expected()
        newest = ledger.newest_receipts()
        finished = set(newest) & set(ledger.shards())
        self._read_records()
        unplaced = len(self._records[UNPLACED].pairs) if UNPLACED in self._records else 0
        held, failures = _held(self._records.values(), pairs_of, finished)
        n_held = sum(held.values())
        written = sum(pairs_of.get(name, 0) - held.get(name, 0) for name in finished)
        expected = sum(pairs_of.values()) + unplaced
        rate = self._recent_rate([tile for tile in newest if tile in finished][:_RATE_OF])
        left = expected - written - n_held - unplaced
        over = run["state"] != "running"
        failures.update({f"retried, {name}": n for name, n in run["totals"]["retries"].items()})
        return RunStatus(
            output=ledger.output,
            state=run["state"],
            updated_at=run["updated_at"],
            pairs_expected=expected,
            pairs_written=written,
            pairs_quarantined=n_held + unplaced,
            tiles_expected=len(pairs_of),
            tiles_written=len(finished),
            tiles_quarantined=len(held.keys() - finished),
            pairs_per_second=rate,
            eta_seconds=None if over or not rate else left / rate,
            failures=dict(failures),
        )

    def _expected(self) -> dict[str, int]:
        """Pairs that each tile should hold, of the fields indexed so far."""
        options = self._ledger.options
        urls = list_indexes(self._ledger.output, options)
        for url in urls:
            if url not in self._pairs_of:
                index = read_index(url, options)
                counts = np.diff(index.starts).tolist()
                self._pairs_of[url] = dict(zip(index.tile_names, counts, strict=True))
        return {name: n for url in urls for name, n in self._pairs_of[url].items()}

    def _read_records(self) -> None:
        names = self._ledger.quarantined()
        new = self._ledger.read_quarantines([name for name in names if name not in self._records])
        known = self._records | {record.tile: record for record in new}
        self._records = {name: known[name] for name in names}

    def _recent_rate(self, newest: list[str]) -> float:
        """Pairs per second over the receipts that were written last, back to the last pause."""
        unread = [tile for tile in newest if tile not in self._receipts]
        self._receipts = {tile: self._receipts[tile] for tile in newest if tile in self._receipts}
        self._receipts.update(zip(unread, self._ledger.read_receipts(unread), strict=True))
        receipts = sorted(self._receipts.values(), key=_written)
        receipts = receipts[_after_last_pause(receipts) :]
        if len(receipts) < 2:
            return 0.0
        times = [_written(receipt) for receipt in receipts]
        began = min(
            time - sum(receipt.seconds.values())
            for time, receipt in zip(times, receipts, strict=True)
        )
        return sum(receipt.pairs for receipt in receipts) / max(max(times) - began, 1e-3)


def _held(
    records: Iterable[QuarantineRecord], pairs_of: dict[str, int], finished: set[str]
) -> tuple[dict[str, int], Counter[str]]:
    """Pairs in quarantine of each tile that has some, and their records by class of error."""
    held: dict[str, int] = {}
    errors: Counter[str] = Counter()
    for record in records:
        name = record.tile
        listed = len(record.pairs)
        counted = count_held(pairs_of.get(name, listed), listed, written=name in finished)
        if counted:
            errors[record.error] += 1
        if counted and name in pairs_of:
            held[name] = counted
    return held, errors


def _written(receipt: Receipt) -> float:
    return datetime.fromisoformat(receipt.written_at).timestamp()


def _after_last_pause(receipts: list[Receipt]) -> int:
    """Return where the receipts begin that no pause, as between two starts of a run, divides."""
    gaps = [_written(after) - _written(before) for before, after in pairwise(receipts)]
    if not gaps:
        return 0
    # Tiles may finish in bursts: what one tile takes is no pause.
    longest = max(sum(receipt.seconds.values()) for receipt in receipts)
    pause = max(10 * median_low(gaps), longest)
    return max((number for number, gap in enumerate(gaps, start=1) if gap > pause), default=0)


def publish_run(output: str, options: dict[str, Any] | None = None) -> Publication:
    """Publish a complete run as a HATS catalogue under ``<output>/catalog``.

    Parameters
    ----------
    output : str
        Output folder.
    options : dict, optional
        Storage options.

    Returns
    -------
    Publication
        Where it is.

    Raises
    ------
    CatalogError
        If the run is not complete, or a shard is missing or damaged.
    """
    ledger = Ledger(output, options)
    state = ledger.read_run()["state"]
    if not state.startswith("complete"):
        raise CatalogError(f"{ledger.output}: the run is {state}, not complete; run it again first")
    found = verify_run(output, options, recompute=0)
    if found.problems:
        raise CatalogError(f"{ledger.output}: {found.problems[0]}")
    shards = [ledger.shard_url(tile) for tile in ledger.shards()]
    return publish_shards(ledger.output, shards, found.rows, options)
