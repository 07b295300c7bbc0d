"""Blends that cannot be measured, and the quarantine record that lists them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from deblend_batch.catalog.records import QuarantineRecord
from deblend_batch.failure import Fault
from deblend_batch.tiling.blends import Blends

NO_DATA = "NoData"
"""What is put in an error's place where no usable pixel shows a blend: nothing failed."""
_LISTED = 3


@dataclass(frozen=True)
class Poison:
    """A blend that cannot be measured.

    Parameters
    ----------
    row : int
        Its place among the blends of its tile.
    reason : str
        One line.
    error : str
        Class of the error, or :data:`NO_DATA`.
    """

    row: int
    reason: str
    error: str

    @classmethod
    def of(cls, row: int, fault: Fault) -> Poison:
        """Blame a blend for a fault."""
        return cls(row, fault.reason, fault.error)


def quarantine_record(
    tile: str, blends: Blends, poison: Sequence[Poison], attempts: int = 1
) -> QuarantineRecord:
    """Make the record of the blends of a tile that cannot be measured."""
    rows = [each.row for each in poison]
    measured = [
        ids[mine].tolist()
        for ids, mine in zip(blends.source_id[rows], blends.is_measured[rows], strict=True)
    ]
    return QuarantineRecord(
        tile=tile,
        reason=_summary("; ", [each.reason for each in poison]),
        error=_summary(", ", [each.error for each in poison]),
        attempts=attempts,
        pairs=[
            (blend, *members)
            for blend, members in zip(blends.blend_id[rows].tolist(), measured, strict=True)
        ],
    )


def _summary(between: str, texts: Sequence[str]) -> str:
    different = list(dict.fromkeys(texts))
    more = f"{between}and {len(different) - _LISTED} more" if len(different) > _LISTED else ""
    return between.join(different[:_LISTED]) + more
