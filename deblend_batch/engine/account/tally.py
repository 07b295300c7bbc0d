"""The tally of a run: what it counts on its way, and ``run.json`` says."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Any

from deblend_batch import flags
from deblend_batch.catalog.records import QuarantineRecord, Receipt, Totals
from deblend_batch.engine.inputs.count import Count
from deblend_batch.engine.inputs.index.file import FieldIndex


@dataclass
class Tally:
    """Running totals.

    Parameters
    ----------
    pairs, tiles : Count
        Of all fields; what a run calls pairs are the blends that its model takes.
    counted : bool
        Whether the fields are indexed, so that ``expected`` is known.
    unplaced : int
        Of the quarantined pairs, those that no tile can hold.
    pairs_here : int
        Pairs written since this start.
    retries : Counter
        Tiles tried again, by class of failure.
    rows : int
        Rows of the catalogue.
    flags : dict
        Rows with each flag.
    flagged_tiles : int
        Tiles whose rows and flags these are.
    detections : Counter
        Rows read and used, and why others were not.
    deferred : Counter
        Sources in the images of fields that are left to other fields, by the name of that.
    refined : Counter
        Sources that were detected, added, dropped and kept before the run, as detection tables say.
    nearest_arcsec : float, optional
        Where pairs were looked for and none was found: the least distance between two detections.
    workers : list of dict
        Where the actors of this start run.
    peak_rss : int
        Largest resident memory of one of them, bytes.
    """

    pairs: Count = field(default_factory=Count)
    tiles: Count = field(default_factory=Count)
    counted: bool = False
    unplaced: int = 0
    pairs_here: int = 0
    retries: Counter[str] = field(default_factory=Counter)
    rows: int = 0
    flags: dict[str, int] = field(default_factory=dict)
    flagged_tiles: int = 0
    detections: Counter[str] = field(default_factory=Counter)
    deferred: Counter[str] = field(default_factory=Counter)
    refined: Counter[str] = field(default_factory=Counter)
    nearest_arcsec: float | None = None
    workers: list[dict[str, Any]] = field(default_factory=list)
    peak_rss: int = 0

    def add_index(self, index: FieldIndex) -> None:
        """Count a field's detections."""
        self.detections.update(index.detections)
        self.deferred.update(index.deferred)
        self.refined.update(index.refined)
        known = [d for d in (self.nearest_arcsec, index.nearest_arcsec) if d is not None]
        self.nearest_arcsec = min(known, default=None)

    def add_unplaced(self, record: QuarantineRecord) -> None:
        """Count pairs that no tile can hold."""
        self.unplaced += len(record.pairs)
        self.pairs.expected += len(record.pairs)
        self.pairs.quarantined += len(record.pairs)

    def add_receipt(self, receipt: Receipt) -> None:
        """Count a tile that has been written."""
        self.pairs_here += receipt.pairs
        self.pairs.written += receipt.pairs
        self.tiles.written += 1
        self.peak_rss = max(self.peak_rss, receipt.worker.get("peak_rss", 0))
        self.add_rows(receipt.rows, receipt.flags)

    def add_rows(self, rows: int, counts: dict[str, int], tiles: int = 1) -> None:
        """Count the rows of a shard, or of several, and those with each flag."""
        self.rows += rows
        self.flags = flags.add_counts([self.flags, counts])
        self.flagged_tiles += tiles

    def add_left_out(self, record: QuarantineRecord) -> None:
        """Count the pairs that a written tile lacks."""
        self.pairs.quarantined += len(record.pairs)

    def add_quarantine(self, record: QuarantineRecord) -> None:
        """Count a tile that has been put in quarantine."""
        self.add_left_out(record)
        self.tiles.quarantined += 1

    def totals(self) -> Totals:
        """Return the totals of ``run.json``, JSON-able."""
        return {
            "pairs": self.pairs.to_dict(),
            "rows": self.rows,
            "tiles": self.tiles.to_dict(),
            "detections": dict(self.detections),
            "deferred": dict(self.deferred),
            "refined": dict(self.refined),
            "retries": dict(self.retries),
            "flags": self.flags,
            "flagged_tiles": self.flagged_tiles,
        }
