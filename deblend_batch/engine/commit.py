"""Committing a tile: whoever does it, at once or again, comes to the same shard, record and receipt.

The shard is created once and stands. Who finds another's there describes that one, so that two drivers, of
which one could not measure a pair that the other has measured, leave each pair in one place.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from deblend_batch.catalog.compare import differences
from deblend_batch.catalog.ledger import Ledger
from deblend_batch.catalog.masks import MaskStore
from deblend_batch.catalog.records import QuarantineRecord, Receipt
from deblend_batch.catalog.shard import encode
from deblend_batch.catalog.tables import read_table
from deblend_batch.engine.poison import Poison, quarantine_record
from deblend_batch.engine.work import TileSpec
from deblend_batch.errors import CatalogError, NotFoundError, TransientStorageError
from deblend_batch.tiling.pairs import Pairs

_ROUNDS = 8
_ELSEWHERE = "could not be measured by another driver of this run"

Ids = NDArray[np.int64]
Describe = Callable[[pa.Table, bytes, list[int], str | None], Receipt]


@dataclass(frozen=True)
class TileResult:
    """What measuring a tile gave.

    Parameters
    ----------
    spec : TileSpec
        The tile.
    pairs : Pairs
        All its pairs, sorted by blend id.
    rows : pyarrow.Table
        Catalogue rows of those that could be measured, two a pair.
    masks : ndarray of uint8, shape (n, 3, y, x), or None
        Of the same pairs, where they are kept.
    poison : sequence of Poison
        The pairs that could not be measured.
    tolerance : float
        Difference that a flux may have when it is measured again, as a share of both members'.
    """

    spec: TileSpec
    pairs: Pairs
    rows: pa.Table
    masks: NDArray[np.uint8] | None
    poison: Sequence[Poison]
    tolerance: float = 0.0

    @property
    def blends(self) -> Ids:
        """Blend ids of the pairs that could be measured, sorted."""
        return _blends(self.rows)

    def rows_of(self, blends: Ids) -> pa.Table:
        """Return the catalogue rows of some of the pairs that could be measured."""
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
        """Write a tile's quarantine record, shard, masks and receipt, in this order; the receipt commits.

        Parameters
        ----------
        result : TileResult
            What measuring gave; at least one pair could be measured.
        describe : callable
            Makes the receipt of a shard: of its rows, its bytes, the blend ids that it does not hold, and the
            sha256 of its masks or None.

        Returns
        -------
        receipt : Receipt
            Of the shard that stands.
        record : QuarantineRecord or None
            The quarantine record that stands beside it.

        Raises
        ------
        StorageError
            If the store refuses.
        """
        own = self._announce(result)
        for _ in range(_ROUNDS):
            receipt = self._write(result, own, describe)
            record = self._conclude(result, own, receipt)
            if (record is None and own is None) or self._stands(receipt):
                return receipt, record
        raise TransientStorageError(
            f"{self._ledger.shard_url(result.spec.name)}: another driver of this run keeps writing "
            "it; stop that one"
        )

    def _announce(self, result: TileResult) -> QuarantineRecord | None:
        """List what could not be measured, before a shard without it can be seen."""
        if not result.poison:
            return None
        own = quarantine_record(result.spec.name, result.pairs, result.poison)
        if not self._ledger.create_quarantine(own):
            # Whoever wrote the one that is there may be about to write its shard.
            there, known = self._record(own.tile), {blend for blend, _, _ in own.pairs}
            more = [pair for pair in there.pairs if pair[0] not in known] if there else []
            self._ledger.quarantine(replace(own, pairs=[*own.pairs, *more]))
        return own

    def _write(
        self, result: TileResult, own: QuarantineRecord | None, describe: Describe
    ) -> Receipt:
        """Write shard, masks and receipt; return the receipt of what stands."""
        rows, shard = self._settle(result, own)
        blends = _blends(rows)
        sha256 = self._write_masks(result, blends)
        lost = np.setdiff1d(result.pairs.blend_id, blends)
        receipt = describe(rows, shard, lost.tolist(), sha256)
        if not self._ledger.create_receipt(receipt) and not self._stands(receipt):
            self._write_masks(result, blends)  # others may have come in between
            self._ledger.replace_receipt(receipt)
        return receipt

    def _write_masks(self, result: TileResult, blends: Ids) -> str | None:
        if result.masks is None:
            return None
        masks = result.masks[np.isin(result.blends, blends)]
        return self._masks.write(result.spec.name, blends, masks)

    def _settle(self, result: TileResult, own: QuarantineRecord | None) -> tuple[pa.Table, bytes]:
        """Create the shard; return its rows and bytes, or those of the one that stands."""
        tile, shard = result.spec.name, encode(result.rows)
        standing = self._ledger.create_shard(tile, shard)
        if standing != shard:
            rows = _read(standing)
            if rows is not None and self._fits(result, rows, own):
                return rows, standing
            self._ledger.replace_shard(tile, shard)
        return result.rows, shard

    def _fits(self, result: TileResult, standing: pa.Table, own: QuarantineRecord | None) -> bool:
        """Tell whether a shard is what another writer of this tile makes; else it is damaged, or old."""
        if standing.schema.names != result.rows.schema.names:
            return False
        blends = _blends(standing)
        if len(standing) != 2 * len(blends) or not np.isin(blends, result.pairs.blend_id).all():
            return False
        if result.masks is not None and not np.isin(blends, result.blends).all():
            return False
        both = np.intersect1d(blends, result.blends)
        shared = standing.filter(pa.array(np.isin(standing["blend_id"].to_numpy(), both)))
        if differences(shared, result.rows_of(both), result.tolerance):
            return False
        lost = np.setdiff1d(result.pairs.blend_id, blends)
        return bool(np.isin(lost, self._listed(result.spec.name, lost, own)).all())

    def _listed(self, tile: str, lost: Ids, own: QuarantineRecord | None) -> list[int]:
        if not len(lost):
            return []
        records = [record for record in (own, self._record(tile)) if record is not None]
        return [blend for record in records for blend, _, _ in record.pairs]

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
        blends = result.pairs.blend_id
        known = {int(blends[poison.row]): poison for poison in result.poison}
        rows = {int(blend): row for row, blend in enumerate(blends)}
        poison = [
            known.get(blend) or Poison(rows[blend], _ELSEWHERE, "LeftOut")
            for blend in receipt.left_out
        ]
        record = quarantine_record(tile, result.pairs, poison)
        self._ledger.quarantine(record)
        return record

    def _record(self, tile: str) -> QuarantineRecord | None:
        try:
            return self._ledger.read_quarantine(tile)
        except (NotFoundError, CatalogError):
            return None


def _content(receipt: Receipt) -> tuple[Any, ...]:
    return (receipt.sha256, receipt.masks_sha256, receipt.fingerprint, *receipt.left_out)


def _read(shard: bytes) -> pa.Table | None:
    try:
        return read_table(shard)
    except (pa.ArrowException, OSError, KeyError):
        return None


def _blends(rows: pa.Table) -> Ids:
    found: Ids = np.unique(rows["blend_id"].to_numpy())
    return found
