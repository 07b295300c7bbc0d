"""What earlier starts of a run left in its ledger."""

from __future__ import annotations

from collections.abc import Mapping

import structlog

from deblend_batch.catalog.ledger import Ledger
from deblend_batch.catalog.masks import MaskStore
from deblend_batch.catalog.records import UNPLACED, QuarantineRecord
from deblend_batch.errors import CatalogError, NotFoundError

log = structlog.get_logger()


def read_done(ledger: Ledger) -> tuple[set[str], dict[str, int]]:
    """Read which tiles are written, and which have pairs in quarantine."""
    written = ledger.finished()
    tiles = [tile for tile in ledger.output.quarantined() if tile != UNPLACED]
    records = dict(zip(tiles, ledger.try_quarantines(tiles), strict=True))
    sound = {
        tile: record for tile, record in records.items() if isinstance(record, QuarantineRecord)
    }
    for tile in records.keys() - sound.keys():
        log.warning("a damaged quarantine record: its tile is done again", tile=tile)
    both = {tile: record for tile, record in sound.items() if tile in written}
    again = (records.keys() - sound.keys()) | unsettled(ledger, both)
    held = {tile: len(record.pairs) for tile, record in sound.items()} | dict.fromkeys(again, 0)
    return written - again, held


def reopen(ledger: Ledger, masks: MaskStore) -> None:
    """Make every tile with a quarantine record one that is done again: see :meth:`Ledger.reopen`."""
    for tile in ledger.output.quarantined():
        if tile == UNPLACED:
            continue
        try:
            sha256 = ledger.read_receipt(tile).masks_sha256
        except (NotFoundError, CatalogError):
            sha256 = None
        ledger.reopen(tile)
        if sha256 is not None:
            masks.remove(tile, sha256)


def unsettled(ledger: Ledger, records: Mapping[str, QuarantineRecord]) -> set[str]:
    """Find finished tiles whose quarantine record does not list what their shard lacks."""
    receipts = ledger.try_receipts(list(records))
    return {
        tile
        for (tile, record), receipt in zip(records.items(), receipts, strict=True)
        if isinstance(receipt, CatalogError) or not receipt.agrees(record)
    }
