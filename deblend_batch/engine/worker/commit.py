"""Committing a tile: done twice, or by two workers at once, it leaves the same shard, record and receipt.

The shard is created once and stands, unless it is damaged. A worker that finds a shard there already writes
its receipt and its quarantine record for that shard and not for its own rows. So each blend ends in one place
even if two drivers work on a tile and one of them cannot measure a blend that the other has measured.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from deblend_batch.catalog.compare import CUDA_TOLERANCE, differences
from deblend_batch.catalog.ledger import Ledger
from deblend_batch.catalog.masks import MaskStore
from deblend_batch.catalog.records import QuarantineRecord, Receipt
from deblend_batch.catalog.shard import encode
from deblend_batch.catalog.tables import read_table
from deblend_batch.engine.inputs.work import TileSpec
from deblend_batch.engine.worker.poison import Poison, quarantine_record
from deblend_batch.errors import (
    CatalogError,
    NotFoundError,
    TooLargeError,
    TransientStorageError,
)
from deblend_batch.tiling.blends import Blends

_TRIES = 5
_MASKS = b"masks_sha256"
_ELSEWHERE = "could not be measured by another writer of its tile"

Ids = NDArray[np.int64]
Describe = Callable[[pa.Table, bytes, list[int], str | None], Receipt]


@dataclass(frozen=True)
class TileResult:
    """What measuring a tile gave.

    Parameters
    ----------
    spec : TileSpec
        The tile.
    blends : Blends
        All its blends, sorted by blend id.
    rows : pyarrow.Table
        Catalogue rows of those that could be measured.
    masks : ndarray of uint8, shape (n, 3, y, x), or None
        Of the same blends, where they are kept.
    poison : sequence of Poison
        The blends that could not be measured.
    """

    spec: TileSpec
    blends: Blends
    rows: pa.Table
    masks: NDArray[np.uint8] | None
    poison: Sequence[Poison]

    @property
    def measured(self) -> Ids:
        """Blend ids of those that could be measured, sorted."""
        return _blends(self.rows)

    def rows_of(self, blends: Ids) -> pa.Table:
        """Return the catalogue rows of some of the blends that could be measured."""
        chosen = np.isin(self.rows["blend_id"].to_numpy(), blends)
        return self.rows.filter(pa.array(chosen))


class Committer:
    """Writes what tiles leave.

    Parameters
    ----------
    ledger : Ledger
        Of the output.
    masks : MaskStore
        Of the output.
    """

    def __init__(self, ledger: Ledger, masks: MaskStore) -> None:
        self._ledger = ledger
        self._masks = masks

    def commit(
        self, result: TileResult, describe: Describe
    ) -> tuple[Receipt, QuarantineRecord | None]:
        """Write a tile's quarantine record, masks, shard and receipt, in this order; the receipt commits.

        Parameters
        ----------
        result : TileResult
            What measuring gave; at least one blend could be measured.
        describe : callable
            Makes the receipt of a shard: of its rows, its bytes, the blend ids that it does not hold, and the
            sha256 of its masks or None.

        Returns
        -------
        receipt : Receipt
            Of the shard that stands.
        record : QuarantineRecord or None
            The quarantine record that stands beside it.
        """
        tile, own = result.spec.name, None
        if result.poison:
            own = quarantine_record(tile, result.blends, result.poison)
            self._ledger.quarantine(own)  # before a shard without these blends can be seen
        rows, shard, masks = self._settle(result)
        lost = np.setdiff1d(result.blends.blend_id, _blends(rows))
        receipt = describe(rows, shard, lost.tolist(), masks)
        if not self._ledger.create_receipt(receipt) and not self._stands(receipt):
            self._ledger.replace_receipt(receipt)  # it is damaged, or of a shard that is no more
        return receipt, self._conclude(result, own, receipt)

    def _settle(self, result: TileResult) -> tuple[pa.Table, bytes, str | None]:
        """Create masks and shard; return rows, bytes and masks' sha256 of the shard that stands."""
        tile, masks = result.spec.name, None
        if result.masks is not None:
            masks = self._masks.write(tile, result.measured, result.masks)
        own = _with_masks(result.rows, masks)
        shard = encode(own)
        for _ in range(_TRIES):
            standing = self._ledger.create_shard(tile, shard)
            rows = own if standing == shard else _read(standing)
            if rows is not None and _fits(result, rows):
                if masks is not None and masks != _masks_of(rows):
                    self._masks.remove(tile, masks)
                return rows, standing, _masks_of(rows)
            self._ledger.discard(tile)
        url = self._ledger.output.shard_url(tile)
        raise TransientStorageError(
            f"{url}: whatever is written here comes back damaged; check the store"
        )

    def _stands(self, receipt: Receipt) -> bool:
        """Tell whether the receipt that is there is of the same shard and masks."""
        try:
            there = self._ledger.read_receipt(receipt.tile)
        except (NotFoundError, CatalogError):  # taken away, or damaged
            return False
        return _content(there) == _content(receipt)

    def _conclude(
        self, result: TileResult, own: QuarantineRecord | None, receipt: Receipt
    ) -> QuarantineRecord | None:
        """Make the quarantine record list what the shard that stands does not hold, and nothing else."""
        tile = result.spec.name
        if not receipt.left_out:
            if own is not None or result.spec.recorded:
                self._ledger.release(tile)
            return None
        there = self._record(tile)
        if there is not None and receipt.agrees(there):
            return there
        blends = result.blends.blend_id
        known = {int(blends[poison.row]): poison for poison in result.poison}
        rows = {int(blend): row for row, blend in enumerate(blends)}
        poison = [
            known.get(blend) or Poison(rows[blend], _ELSEWHERE, "LeftOut")
            for blend in receipt.left_out
        ]
        record = quarantine_record(tile, result.blends, poison)
        self._ledger.quarantine(record)
        return record

    def _record(self, tile: str) -> QuarantineRecord | None:
        try:
            return self._ledger.read_quarantine(tile)
        except (NotFoundError, CatalogError):
            return None


def _fits(result: TileResult, standing: pa.Table) -> bool:
    """Tell whether a shard is what a writer of this tile makes on any machine; else it is damaged, or old."""
    if standing.schema.names != result.rows.schema.names:
        return False
    if (result.masks is None) != (_masks_of(standing) is None):
        return False
    blends = _blends(standing)
    whole = result.blends[np.flatnonzero(np.isin(result.blends.blend_id, blends))]
    if len(whole) != len(blends) or len(standing) != int(whole.is_measured.sum()):
        return False
    both = np.intersect1d(blends, result.measured)
    shared = standing.filter(pa.array(np.isin(standing["blend_id"].to_numpy(), both)))
    return not differences(shared, result.rows_of(both), CUDA_TOLERANCE)


def _with_masks(rows: pa.Table, sha256: str | None) -> pa.Table:
    """Put the digest of its masks into a shard: a tile may have several masks, of several workers."""
    if sha256 is None:
        return rows
    return rows.replace_schema_metadata({**(rows.schema.metadata or {}), _MASKS: sha256})


def _masks_of(rows: pa.Table) -> str | None:
    found = (rows.schema.metadata or {}).get(_MASKS)
    return None if found is None else found.decode()


def _content(receipt: Receipt) -> tuple[Any, ...]:
    return (receipt.sha256, receipt.masks_sha256, receipt.fingerprint, *receipt.left_out)


def _read(shard: bytes) -> pa.Table | None:
    try:
        return read_table(shard)
    except (pa.ArrowException, OSError, KeyError, TooLargeError):
        return None


def _blends(rows: pa.Table) -> Ids:
    found: Ids = np.unique(rows["blend_id"].to_numpy())
    return found
