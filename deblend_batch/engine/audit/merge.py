"""Merging outputs of several sites, or of parts of a survey, to one catalogue with one ledger.

Files are copied byte for byte, each tile's receipt last, and ``run.json`` says that all is there as the last
act of all. So a merge that was cut short goes on when it is run again.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import asdict, dataclass, replace
from functools import partial
from typing import Any

import numpy as np

from deblend_batch import storage
from deblend_batch.catalog.ledger import Ledger
from deblend_batch.catalog.masks import MaskStore
from deblend_batch.catalog.output import Output
from deblend_batch.catalog.parts import inner_name
from deblend_batch.catalog.records import UNPLACED, QuarantineRecord, Receipt, RunFile, as_json
from deblend_batch.catalog.tables import read_table
from deblend_batch.engine.audit.apart import check_apart
from deblend_batch.engine.audit.combining import (
    Part,
    check_combinable,
    combined_run,
    combined_totals,
)
from deblend_batch.engine.audit.verify import verify_run
from deblend_batch.errors import CatalogError, OutputConflictError
from deblend_batch.progress import Progress, silent

_TOGETHER = 8
"""Tiles that are copied at a time: of each a shard is in memory."""


@dataclass(frozen=True)
class Merge:
    """A merged catalogue.

    Parameters
    ----------
    output : str
        Where it is.
    state : str
        ``complete`` or ``complete_with_quarantine``.
    outputs : tuple of str
        The outputs that it is made of.
    tiles, pairs, rows, quarantined : int
        What it holds.
    copied : int
        Tiles that were copied now; the others were there.
    """

    output: str
    state: str
    outputs: tuple[str, ...]
    tiles: int
    pairs: int
    rows: int
    quarantined: int
    copied: int

    @property
    def exit_code(self) -> int:
        """0, or 3 where something is in quarantine."""
        return 3 if self.quarantined else 0

    def to_dict(self) -> dict[str, Any]:
        """Return the merge as JSON-able values."""
        return asdict(self)

    def to_rows(self) -> list[tuple[str, str]]:
        """Return the merge as names and texts."""
        return [
            ("output", self.output),
            ("state", self.state.replace("_", " ")),
            *(("merged", output) for output in self.outputs),
            ("pairs", f"{self.pairs:,} written, {self.quarantined:,} quarantined"),
            (
                "shards",
                f"{self.tiles:,} with {self.rows:,} rows, {self.copied:,} of them copied now",
            ),
        ]


def merge_outputs(outputs: Sequence[Output], merged: Output, progress: Progress = silent) -> Merge:
    """Merge complete outputs; run again to go on with a merge that was cut short.

    Parameters
    ----------
    outputs : sequence of Output
        Two or more.
    merged : Output
        Where the catalogue is to be: empty, or begun from the same outputs.
    progress : callable
        Told of the tiles checked, compared and copied.
    """
    storage.check_apart(merged.url, [each.url for each in outputs], merged.options)
    parts = sorted((_open(each, progress) for each in outputs), key=_order)
    check_combinable(parts)
    config = parts[0].run["config"]
    check_apart(parts, float(config.get("overlaps", {}).get("match", 0.5)), progress)
    unplaced, placed = _unplaced(parts)
    totals = combined_totals([part.run["totals"] for part in parts], placed)
    state = "complete_with_quarantine" if totals["pairs"]["quarantined"] else "complete"
    ledger, run = Ledger(merged), combined_run(parts, merged, state, totals)
    _claim(ledger, {**run, "state": "running"})
    copied = _copy(parts, ledger, progress)
    if unplaced is None:
        ledger.release(UNPLACED)
    else:
        ledger.quarantine(unplaced)
    ledger.write_run(run)
    return Merge(
        output=merged.url,
        state=state,
        outputs=tuple(part.output.url for part in parts),
        tiles=totals["tiles"]["written"],
        pairs=totals["pairs"]["written"],
        rows=totals["rows"],
        quarantined=totals["pairs"]["quarantined"],
        copied=copied,
    )


def _order(part: Part) -> str:
    return part.run["fingerprint"]


def _open(output: Output, progress: Progress) -> Part:
    """Open an output that is complete, and all it says of itself."""
    run = Ledger(output).read_run()
    if not run["state"].startswith("complete"):
        raise CatalogError(
            f"{output}: the run is {run['state']}, not complete; run it again with its config, then merge"
        )
    found = verify_run(output, recompute=0, progress=progress)
    if found.problems:
        raise CatalogError(f"{output}: {found.problems[0]}")
    return Part(output, run)


def _claim(ledger: Ledger, run: RunFile | dict[str, Any]) -> None:
    """Take the output for this merge, or take up what an earlier start of it left."""
    output = ledger.output
    if not output.exists(output.run_url):
        if names := output.names():
            raise OutputConflictError(
                f"{output}: not empty ({names[0]} is there), with no run.json to say of which merge; empty "
                "it or give another output"
            )
        if output.create(output.run_url, as_json(run)):
            return
    if ledger.read_run()["fingerprint"] != run["fingerprint"]:
        raise OutputConflictError(
            f"{output}: belongs to another run, or to a merge of other outputs; give another output"
        )


def _copy(parts: Sequence[Part], ledger: Ledger, progress: Progress) -> int:
    """Copy what is not there yet; return the number of tiles copied."""
    if any(part.run["config"].get("masks") for part in parts):
        MaskStore(ledger.output).create()
    there, left = ledger.finished(), []
    for part in parts:
        _copy_indexes(part, ledger.output)
        tiles = sorted(Ledger(part.output).finished())
        same = _same_receipts(part, ledger, [t for t in tiles if f"{part.prefix}{t}" in there])
        left += [(part, tile) for tile in tiles if tile not in same]
    _together([partial(_copy_tile, part, tile, ledger) for part, tile in left], progress)
    _copy_quarantine(parts, ledger)
    return len(left)


def _copy_indexes(part: Part, target: Output) -> None:
    for name in part.output.index_files():
        to = target.index_file_url(f"{part.prefix}{name}")
        if not target.exists(to):
            target.write(to, part.output.read(part.output.index_file_url(name)))


def _same_receipts(part: Part, ledger: Ledger, tiles: Sequence[str]) -> set[str]:
    """Find the tiles whose receipt is that of the part: it is another after a retry."""
    theirs = Ledger(part.output).try_receipts(tiles)
    ours = ledger.try_receipts([f"{part.prefix}{tile}" for tile in tiles])
    return {
        tile
        for tile, one, other in zip(tiles, theirs, ours, strict=True)
        if isinstance(one, Receipt) and isinstance(other, Receipt)
        if one == replace(other, tile=tile)
    }


def _copy_quarantine(parts: Sequence[Part], ledger: Ledger) -> None:
    """Copy the quarantine records of tiles, and remove those of tiles that have been measured since."""
    target, kept = ledger.output, {UNPLACED}
    for part in parts:
        for tile in part.output.quarantined():
            if inner_name(tile) != UNPLACED:
                content = part.output.read(part.output.quarantine_url(tile))
                target.write(target.quarantine_url(f"{part.prefix}{tile}"), content)
                kept.add(f"{part.prefix}{tile}")
    for name in set(target.quarantined()) - kept:
        ledger.release(name)


def _together(jobs: Sequence[Callable[[], None]], progress: Progress) -> None:
    """Do jobs, some at a time; after a failure, or Ctrl-C, none that has not begun."""
    pool = ThreadPoolExecutor(_TOGETHER)
    try:
        futures = [pool.submit(job) for job in jobs]
        for done, future in enumerate(as_completed(futures), 1):
            future.result()
            progress("copying", done, len(jobs))
    finally:
        pool.shutdown(cancel_futures=True)


def _copy_tile(part: Part, tile: str, ledger: Ledger) -> None:
    """Copy a tile's shard and masks, then its receipt, without which nothing of it counts."""
    source, target = part.output, ledger.output
    receipt, name = Ledger(source).read_receipt(tile), f"{part.prefix}{tile}"
    (shard,) = Ledger(source).read_shards([receipt])
    if not isinstance(shard, bytes) or hashlib.sha256(shard).hexdigest() != receipt.sha256:
        raise CatalogError(f"{source.shard_url(tile)}: changed while it was read; see verify")
    target.write(target.shard_url(name), shard)
    if receipt.masks_sha256 is not None:
        MaskStore(source).copy(tile, receipt.masks_sha256, MaskStore(target), name)
    target.write(target.receipt_url(name), source.read(source.receipt_url(tile)))


def _unplaced(parts: Sequence[Part]) -> tuple[QuarantineRecord | None, int]:
    """Join the records of pairs that no tile holds; what another output holds is not one of them.

    Returns
    -------
    record : QuarantineRecord, optional
        Of what is left.
    placed : int
        Pairs by which it is shorter than the records together.
    """
    records = [
        Ledger(part.output).read_quarantine(UNPLACED)
        for part in parts
        if UNPLACED in part.output.quarantined()
    ]
    every = [pair for record in records for pair in record.pairs]
    if not every:
        return None, 0
    blends = np.array(sorted({blend for blend, *_ in every}), np.int64)
    for part in parts:
        for url in part.output.indexes():
            with part.output.open_read(url) as file:
                held = read_table(file, columns=["blend_id"])["blend_id"].to_numpy()
            blends = blends[~np.isin(blends, held)]
    lost = set(blends.tolist())
    left = list({pair[0]: pair for pair in every if pair[0] in lost}.values())
    reason = "; ".join(sorted({record.reason for record in records}))
    record = QuarantineRecord(UNPLACED, reason, records[0].error, 0, left) if left else None
    return record, len(every) - len(left)
