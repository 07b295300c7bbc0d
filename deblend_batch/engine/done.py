"""What earlier starts of a run left in its ledger."""

from __future__ import annotations

from collections.abc import Mapping

import structlog

from deblend_batch.catalog.ledger import Ledger
from deblend_batch.catalog.records import UNPLACED, QuarantineRecord

log = structlog.get_logger()


def read_done(ledger: Ledger) -> tuple[set[str], dict[str, int]]:
    """Read which tiles are written, and which have pairs in quarantine.

    Parameters
    ----------
    ledger : Ledger
        Of the run.

    Returns
    -------
    written : set of str
        Tiles that have a shard and its receipt, but for those that have to be done again: their quarantine
        record is damaged, so that nobody knows which pairs the shard lacks, or is not that of the shard, as
        one of two drivers may leave it that was killed too early.
    held : dict of str to int
        For each tile with a quarantine record the number of pairs that it lists; 0 for those that have to be
        done again.

    Raises
    ------
    CatalogError
        If the receipt of a tile with a quarantine record is damaged.
    StorageError
        If the store refuses.
    """
    written = ledger.finished()
    tiles = [tile for tile in ledger.quarantined() if tile != UNPLACED]
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


def unsettled(ledger: Ledger, records: Mapping[str, QuarantineRecord]) -> set[str]:
    """Find finished tiles whose quarantine record does not list what their shard lacks.

    Parameters
    ----------
    ledger : Ledger
        Of the run.
    records : mapping of str to QuarantineRecord
        Of tiles that have a receipt.

    Returns
    -------
    set of str
        Their names.
    """
    receipts = ledger.read_receipts(list(records))
    return {receipt.tile for receipt in receipts if not receipt.agrees(records[receipt.tile])}
