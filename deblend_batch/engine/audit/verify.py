"""Verification of a run: does every pair stand where the ledger says. Needs no cluster."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from itertools import chain, pairwise
from typing import Any

import numpy as np

from deblend_batch import flags
from deblend_batch.catalog.ledger import Ledger
from deblend_batch.catalog.masks import MaskStore
from deblend_batch.catalog.output import Output
from deblend_batch.catalog.records import UNPLACED, QuarantineRecord, Receipt, RunFile
from deblend_batch.engine.audit.checks import Expected, Ids, compare_pairs, read_shard, twice
from deblend_batch.engine.audit.claims import Counted, check_receipt, check_run, compare_totals
from deblend_batch.engine.audit.overlaps import check_overlaps
from deblend_batch.engine.inputs.index.file import (
    IndexReader,
    count_missing,
    read_index,
    say_lost,
)
from deblend_batch.errors import CatalogError, IrregularFileError, TooLargeError
from deblend_batch.progress import Progress, silent

_Shard = bytes | TooLargeError | IrregularFileError

RECOMPUTED_PAIRS = 16
"""Pairs that are measured again where the user does not say."""
_RECEIPTS_TOGETHER = 512
_SHARDS_TOGETHER = 16
_LINES_SHOWN = 20


@dataclass(frozen=True)
class Verification:
    """What the check of a run found.

    Parameters
    ----------
    output : str
        The run.
    tiles, pairs, rows : int
        Of the shards that could be read.
    quarantined : int
        Pairs in quarantine.
    recomputed : int
        Pairs that were measured again and compared.
    problems : tuple of str
        One line each; empty where all is well.
    notes : tuple of str
        What could not be checked, and why.
    pending_tiles, pending_pairs : int
        Of a run that has not ended: what is still to do.
    unfinished : str
        That it has not ended, what is left, and how to end it, in one line; empty where it has ended.
    """

    output: str
    tiles: int
    pairs: int
    rows: int
    quarantined: int
    recomputed: int
    problems: tuple[str, ...]
    notes: tuple[str, ...]
    pending_tiles: int = 0
    pending_pairs: int = 0
    unfinished: str = ""

    @property
    def exit_code(self) -> int:
        """0 where all is well, 2 where something is missing or damaged, 3 with quarantined pairs."""
        if self.problems or self.unfinished:
            return 2
        return 3 if self.quarantined else 0

    def to_dict(self) -> dict[str, Any]:
        """Return the findings as JSON-able values."""
        return asdict(self)

    def to_rows(self) -> list[tuple[str, str]]:
        """Return the findings as names and texts; of very many problems only the first."""
        verdict = _count_problems(len(self.problems))
        if self.unfinished:
            verdict = f"not finished; what is there: {verdict}"
        rows = [
            ("output", self.output),
            ("checked", f"{self.tiles:,} tiles, {self.pairs:,} pairs, {self.rows:,} rows"),
            ("quarantined", f"{self.quarantined:,} pairs"),
            ("recomputed", f"{self.recomputed:,} pairs"),
            ("verdict", verdict),
        ]
        if self.unfinished:
            rows.append(("not finished", self.unfinished))
        rows += [("problem", problem) for problem in self.problems[:_LINES_SHOWN]]
        if len(self.problems) > _LINES_SHOWN:
            rows.append(("problem", f"and {len(self.problems) - _LINES_SHOWN:,} more (--json)"))
        return rows + [("note", note) for note in self.notes]


def _count_problems(n: int) -> str:
    return f"{n:,} problem{'s' if n > 1 else ''}" if n else "sound"


@dataclass
class _Found:
    """What has been found so far; of each pair only its id is kept."""

    run: RunFile
    counted: Counted = field(default_factory=Counted)
    pending: dict[str, int] = field(default_factory=dict)
    blends: list[Ids] = field(default_factory=list)
    written: dict[str, int] = field(default_factory=dict)
    masks: dict[str, str | None] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)

    @property
    def ended(self) -> bool:
        return self.run["state"].startswith("complete")


@dataclass(frozen=True)
class _Listing:
    """The names in an output folder."""

    shards: frozenset[str]
    receipts: frozenset[str]
    records: frozenset[str]

    @classmethod
    def of(cls, output: Output) -> _Listing:
        names = (output.shards(), output.receipts(), output.quarantined())
        return cls(*map(frozenset, names))

    def is_whole(self, tile: str) -> bool:
        return tile in self.shards and tile in self.receipts

    def orphans(self, tiles: frozenset[str]) -> list[str]:
        kinds = {
            "shard": self.shards,
            "receipt": self.receipts,
            "quarantine record": self.records - {UNPLACED},
        }
        return [
            f"{kind} {name}: orphan, no tile of this run; remove it"
            for kind, names in kinds.items()
            for name in sorted(names - tiles)
        ]


def verify_run(
    output: Output,
    *,
    recompute: int = RECOMPUTED_PAIRS,
    seed: int | None = None,
    progress: Progress = silent,
) -> Verification:
    """Check every shard of a run: present, whole, unaltered, each pair once, totals that add up.

    Parameters
    ----------
    output : Output
        Output folder.
    recompute : int
        Pairs, drawn at random, that are measured again from the inputs and compared; 0 for none.
    seed : int, optional
        Of that draw; by default the run's fingerprint decides.
    progress : callable
        Told of the tiles checked.
    """
    ledger = Ledger(output)
    run = ledger.read_run()
    listing, found = _Listing.of(output), _Found(run, problems=check_run(run))
    indexes = output.indexes()
    missing = count_missing(run, indexes)
    tiles: set[str] = set()
    n_tiles = run["totals"]["tiles"]["expected"] or None
    for some in _tile_groups(ledger, indexes, found.counted):
        tiles.update(name for name, _ in some)
        _check_tiles(ledger, listing, some, found)
        progress("checking", len(tiles), n_tiles)
    counted = found.counted
    counted.tiles = len(tiles)
    if UNPLACED in listing.records:
        _check_unplaced(ledger, found)
    if missing and (found.ended or listing.receipts):
        found.problems.insert(0, say_lost(missing))
    elif not missing:
        found.problems += listing.orphans(frozenset(tiles))
        found.problems += compare_totals(run, counted)
    if run["config"].get("masks"):
        found.problems += _check_masks(ledger, found, progress)
    found.problems += twice(found.blends)
    found.problems += check_overlaps(output, indexes)
    again, problems, notes = _recompute(ledger, run, found, recompute, seed, progress)
    return Verification(
        output=output.url,
        tiles=len(found.blends),
        pairs=counted.written,
        rows=counted.rows,
        quarantined=counted.quarantined,
        recomputed=again,
        problems=(*found.problems, *problems),
        notes=notes,
        pending_tiles=len(found.pending),
        pending_pairs=sum(found.pending.values()),
        unfinished="" if found.ended else _what_is_left(run["state"], found.pending, missing),
    )


def _what_is_left(state: str, pending: Mapping[str, int], unindexed: int) -> str:
    if unindexed:
        left = f"the pairs of {unindexed:,} fields are not known yet"
    else:
        left = f"{sum(pending.values()):,} pairs in {len(pending):,} of its tiles are still to do"
    wait = ", unless its driver still works on it" if state == "running" else ""
    return f"the run is {state}, {left}; run again with the same config to finish it{wait}"


def _recompute(
    ledger: Ledger,
    run: RunFile,
    found: _Found,
    n_pairs: int,
    seed: int | None,
    progress: Progress,
) -> tuple[int, tuple[str, ...], tuple[str, ...]]:
    if not n_pairs or not found.written:
        return 0, (), ()
    if (parts := run.get("parts")) is not None:
        return 0, (), (f"not recomputed: merged of {len(parts)} outputs; verify each of them",)
    from deblend_batch.engine.audit.recompute import recompute  # torch and the model's code

    if seed is None:
        seed = int(run["fingerprint"][:16], 16)
    result = recompute(ledger, run, found.written, n_pairs, seed, progress)
    return result.pairs, result.problems, result.notes


def _tile_groups(
    ledger: Ledger, indexes: Sequence[str], counted: Counted
) -> Iterator[list[tuple[str, Expected]]]:
    """Read the tiles of a run with what each should hold, some at a time, field by field."""
    for url in indexes:
        index, reader = read_index(ledger.output, url), IndexReader(ledger.output, url)
        counted.expected += index.n_blends
        counted.detections.update(index.detections)
        counted.deferred.update(index.deferred)
        counted.refined.update(index.refined)
        rows = list(pairwise(index.starts.tolist()))
        for start in range(0, len(rows), _RECEIPTS_TOGETHER):
            some = slice(start, start + _RECEIPTS_TOGETHER)
            yield [
                (name, Expected.of(reader.read(*own)))
                for name, own in zip(index.tile_names[some], rows[some], strict=True)
            ]


def _check_tiles(
    ledger: Ledger, listing: _Listing, tiles: Sequence[tuple[str, Expected]], found: _Found
) -> None:
    there = [name for name, _ in tiles if listing.is_whole(name)]
    receipts = dict(zip(there, ledger.try_receipts(there), strict=True))
    shards = _shards(ledger, [each for each in receipts.values() if isinstance(each, Receipt)])
    recorded = [name for name, _ in tiles if name in listing.records]
    records = dict(zip(recorded, ledger.try_quarantines(recorded), strict=True))
    for name, expected in tiles:
        record, receipt = records.get(name), receipts.get(name)
        shard = next(shards) if isinstance(receipt, Receipt) else b""
        if isinstance(record, CatalogError) or isinstance(receipt, CatalogError):
            damaged = [each for each in (record, receipt) if isinstance(each, CatalogError)]
            found.problems += map(str, damaged)
        elif receipt is not None:
            _check_written(name, expected, receipt, shard, record, found)
        elif record is not None:
            _check_quarantined(name, expected, record, found)
        else:
            _check_absent(name, expected, listing, found)


def _shards(ledger: Ledger, receipts: Sequence[Receipt]) -> Iterator[_Shard]:
    return chain.from_iterable(
        ledger.read_shards(receipts[start : start + _SHARDS_TOGETHER])
        for start in range(0, len(receipts), _SHARDS_TOGETHER)
    )


def _check_absent(tile: str, expected: Expected, listing: _Listing, found: _Found) -> None:
    """Tell a tile that has been lost from one that is still to do: its receipt is the last to be written."""
    if not found.ended and tile not in listing.receipts:
        found.pending[tile] = len(expected)
        return
    lost = [
        kind
        for kind, names in (("shard", listing.shards), ("receipt", listing.receipts))
        if tile not in names
    ]
    found.problems.append(
        f"tile {tile}: {len(expected)} pairs, no {' and '.join(lost)}; run again to make it"
    )


def _check_unplaced(ledger: Ledger, found: _Found) -> None:
    (record,) = ledger.try_quarantines([UNPLACED])
    if isinstance(record, CatalogError):
        found.problems.append(str(record))
    else:
        found.counted.quarantined += len(record.pairs)
        found.counted.expected += len(record.pairs)


def _check_written(
    tile: str,
    expected: Expected,
    receipt: Receipt,
    content: _Shard,
    record: QuarantineRecord | None,
    found: _Found,
) -> None:
    blends, problems = read_shard(expected, tile, receipt, content)
    if blends is None:
        found.problems += problems
        return
    held = _listed(record)
    if set(held.tolist()) == set(expected.blend_id.tolist()) == set(blends.tolist()):
        held = held[:0]  # it was given up, and finished after all: the shard counts
    problems += check_receipt(tile, receipt, found.run)
    problems += compare_pairs(tile, expected.blend_id, receipt.pairs, blends, held)
    found.blends.append(blends)
    counted = found.counted
    counted.tiles_written += 1
    counted.written += len(blends)
    counted.rows += receipt.rows
    counted.quarantined += len(held)
    counted.flags = flags.add_counts([counted.flags, receipt.flags])
    found.problems += problems
    if not problems:
        found.written[tile] = len(blends)
        found.masks[tile] = receipt.masks_sha256


def _check_quarantined(
    tile: str, expected: Expected, record: QuarantineRecord, found: _Found
) -> None:
    held = _listed(record)
    if len(held) < len(expected) and not found.ended:
        found.pending[tile] = len(expected)  # its worker was stopped before it wrote the others
        return
    found.counted.quarantined += len(held)
    if len(held) < len(expected):
        found.problems.append(
            f"tile {tile}: {len(held)} of its {len(expected)} pairs in quarantine, and no shard of "
            "the others; run again to make it"
        )
    else:
        found.problems += compare_pairs(tile, expected.blend_id, 0, expected.blend_id[:0], held)


def _listed(record: QuarantineRecord | None) -> Ids:
    return np.array([blend for blend, *_ in record.pairs] if record else [], np.int64)


def _check_masks(ledger: Ledger, found: _Found, progress: Progress) -> list[str]:
    """Compare the masks of tiles that are sound otherwise with what their receipts say."""
    store, problems = MaskStore(ledger.output), []
    for done, (tile, sha256) in enumerate(sorted(found.masks.items()), 1):
        try:
            store.check(tile, sha256 or "", found.written[tile])
        except CatalogError as error:
            problems.append(str(error))
        progress("masks", done, len(found.masks))
    return problems
