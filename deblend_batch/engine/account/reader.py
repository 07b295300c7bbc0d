"""A run seen from its output alone: how far it is, and its publication. Needs no cluster."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterable
from datetime import datetime
from itertools import pairwise
from statistics import median_low

import numpy as np

from deblend_batch.catalog.ledger import Ledger
from deblend_batch.catalog.output import Output
from deblend_batch.catalog.records import UNPLACED, Counts, QuarantineRecord, R, Receipt, RunFile
from deblend_batch.engine.account.status import RunStatus, is_stalled
from deblend_batch.engine.inputs.count import Count, count_held
from deblend_batch.engine.inputs.index.file import count_missing, read_index, say_lost
from deblend_batch.errors import CatalogError

_RATE_OF = 200


def read_status(output: Output) -> RunStatus:
    """Read how far a run is from its ledger; works while it runs, and after."""
    return StatusReader(output).read()


class StatusReader:
    """Reads how far a run is, again and again: what it has read of files that do not change, it keeps.

    A look costs ``run.json``, the listings of four folders, and what is new: of receipts the newest alone.

    Parameters
    ----------
    output : Output
        Output folder.
    """

    def __init__(self, output: Output) -> None:
        self._ledger = Ledger(output)
        self._pairs_of: dict[str, dict[str, int]] = {}
        self._receipts: dict[str, Receipt] = {}
        self._records: dict[str, QuarantineRecord] = {}

    def read(self) -> RunStatus:
        """Read how far the run is now."""
        ledger = self._ledger
        run = ledger.read_run()
        pairs_of, missing = self._expected(run)
        newest, empty = ledger.newest_receipts()
        finished = set(newest) & set(ledger.output.shards())
        problems = [
            f"{ledger.output.receipt_url(tile)}: empty; run again to make it anew" for tile in empty
        ]
        problems += self._read_records() + self._read_newest(
            [tile for tile in newest if tile in finished][:_RATE_OF]
        )
        pairs, tiles, failures = self._count(pairs_of, finished)
        if missing and newest:
            problems.insert(0, say_lost(missing))
            pairs, tiles = map(_known, (run["totals"]["pairs"], run["totals"]["tiles"]))
        moments = [run["updated_at"], *(each.written_at for each in self._receipts.values())]
        updated_at = max(moments, key=_timestamp)
        idle = max(time.time() - _timestamp(updated_at), 0.0)
        stalled = is_stalled(run["state"], idle)
        rate = 0.0 if stalled else _recent_rate(self._receipts.values())
        failures.update({f"retried, {name}": n for name, n in run["totals"]["retries"].items()})
        return RunStatus(
            output=ledger.output.url,
            state=run["state"],
            updated_at=updated_at,
            idle_seconds=idle,
            pairs_expected=pairs.expected,
            pairs_written=pairs.written,
            pairs_quarantined=pairs.quarantined,
            tiles_expected=tiles.expected,
            tiles_written=tiles.written,
            tiles_quarantined=tiles.quarantined,
            pairs_per_second=rate,
            eta_seconds=pairs.pending / rate if rate and run["state"] == "running" else None,
            failures=dict(failures),
            problems=tuple(problems),
        )

    def _count(
        self, pairs_of: dict[str, int], finished: set[str]
    ) -> tuple[Count, Count, Counter[str]]:
        """Count pairs and tiles, and quarantine records by class of error."""
        unplaced = len(self._records[UNPLACED].pairs) if UNPLACED in self._records else 0
        held, failures = _held(self._records.values(), pairs_of, finished)
        written = sum(pairs_of.get(name, 0) - held.get(name, 0) for name in finished)
        pairs = Count(sum(pairs_of.values()) + unplaced, written, sum(held.values()) + unplaced)
        return pairs, Count(len(pairs_of), len(finished), len(held.keys() - finished)), failures

    def _expected(self, run: RunFile) -> tuple[dict[str, int], int]:
        """Pairs that each tile should hold, of the fields indexed so far; and how many fields are not."""
        output = self._ledger.output
        urls = output.indexes()
        for url in urls:
            if url not in self._pairs_of:
                index = read_index(output, url)
                counts = np.diff(index.starts).tolist()
                self._pairs_of[url] = dict(zip(index.tile_names, counts, strict=True))
        known = {name: n for url in urls for name, n in self._pairs_of[url].items()}
        return known, count_missing(run, urls)

    def _read_records(self) -> list[str]:
        """Read the new quarantine records; return what is wrong with those that are damaged."""
        names = self._ledger.output.quarantined()
        unread = [name for name in names if name not in self._records]
        known, problems = _sorted_out(self._ledger.try_quarantines(unread))
        known = self._records | known
        self._records = {name: known[name] for name in names if name in known}
        return problems

    def _read_newest(self, newest: list[str]) -> list[str]:
        """Read those of the last receipts that are new; return what is wrong with damaged ones."""
        unread = [tile for tile in newest if tile not in self._receipts]
        known, problems = _sorted_out(self._ledger.try_receipts(unread))
        known = self._receipts | known
        self._receipts = {tile: known[tile] for tile in newest if tile in known}
        return problems


def _sorted_out(found: Iterable[R | CatalogError]) -> tuple[dict[str, R], list[str]]:
    """Part records, by tile, from the errors that stand for damaged ones."""
    sound: dict[str, R] = {}
    problems = []
    for each in found:
        if isinstance(each, CatalogError):
            problems.append(str(each))
        else:
            sound[each.tile] = each
    return sound, problems


def _known(totals: Counts) -> Count:
    return Count(totals["expected"], totals["written"], totals["quarantined"])


def _recent_rate(newest: Iterable[Receipt]) -> float:
    """Pairs per second over the receipts that were written last, back to the last pause."""
    receipts = sorted(newest, key=_written)
    receipts = receipts[_after_last_pause(receipts) :]
    if len(receipts) < 2:
        return 0.0
    times = [_written(receipt) for receipt in receipts]
    began = min(
        end - sum(receipt.seconds.values()) for end, receipt in zip(times, receipts, strict=True)
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
    return _timestamp(receipt.written_at)


def _timestamp(iso: str) -> float:
    return datetime.fromisoformat(iso).timestamp()


def _after_last_pause(receipts: list[Receipt]) -> int:
    """Return where the receipts begin that no pause, as between two starts of a run, divides."""
    gaps = [_written(after) - _written(before) for before, after in pairwise(receipts)]
    if not gaps:
        return 0
    # Tiles may finish in bursts: what one tile takes is no pause.
    longest = max(sum(receipt.seconds.values()) for receipt in receipts)
    pause = max(10 * median_low(gaps), longest)
    return max((number for number, gap in enumerate(gaps, start=1) if gap > pause), default=0)
