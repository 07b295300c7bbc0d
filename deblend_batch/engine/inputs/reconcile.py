"""What only all fields of a run can tell of pre-detected pairs: ids that clash, and those that none holds."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from deblend_batch.catalog.records import UNPLACED, QuarantineRecord
from deblend_batch.catalog.tables import read_table
from deblend_batch.engine.inputs.index.file import UnplacedPair
from deblend_batch.engine.inputs.index.predetected import Unplaced, read_predetected
from deblend_batch.engine.inputs.index.task import IndexTask
from deblend_batch.errors import DetectionsError
from deblend_batch.tiling.pairing import blend_ids

Ids = NDArray[np.int64]


def reconcile(tasks: Sequence[IndexTask]) -> list[UnplacedPair]:
    """Check the indexes of a survey against each other and against its pairs table."""
    first = tasks[0]
    ids = _check_apart(tasks, [_blends(task) for task in tasks])
    unplaced = Unplaced(str(first.pairs.table))
    reason = "no field of the survey holds it, or a member is not in the detection tables"
    for members in read_predetected(first.pairs, first.options):
        lost = ~np.isin(blend_ids(members[:, 0], members[:, 1]), ids)
        unplaced.add(members[lost], reason)
    return unplaced.pairs


def unplaced_record(unplaced: Sequence[UnplacedPair]) -> QuarantineRecord:
    """Make the quarantine record of pairs that no tile can hold."""
    ids = np.array([(pair.central_id, pair.companion_id) for pair in unplaced], np.int64)
    members = np.column_stack([blend_ids(ids[:, 0], ids[:, 1]), ids]).tolist()
    pairs = [(blend, central, companion) for blend, central, companion in members]
    reason = "; ".join(sorted({pair.reason for pair in unplaced}))
    return QuarantineRecord(UNPLACED, reason, "UnplacedPair", 0, pairs)


def _check_apart(tasks: Sequence[IndexTask], found: Sequence[Ids]) -> Ids:
    """Refuse fields that hold the same pairs; return those of all."""
    ids, counts = np.unique(np.concatenate(found), return_counts=True)
    if (counts > 1).any():
        twice = ids[counts > 1][0]
        tables = [
            task.entry.detections_url
            for task, own in zip(tasks, found, strict=True)
            if twice in own
        ]
        raise DetectionsError(
            f"{tables[0]} and {tables[-1]}: sources of the same ids in both, and pairs.table "
            f"({tasks[0].pairs.table}) names them by their ids; give every source of a survey its own id"
        )
    return ids


def _blends(task: IndexTask) -> Ids:
    with task.output.open_read(task.url) as file:
        column: Ids = read_table(file, columns=["blend_id"])["blend_id"].to_numpy()
    return column
