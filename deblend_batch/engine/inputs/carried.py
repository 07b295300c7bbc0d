"""Columns of the detections that go through to the catalogue: a file beside the index, in its order."""

from __future__ import annotations

import io
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from deblend_batch.catalog.output import Output
from deblend_batch.detections.table import Detections
from deblend_batch.engine.inputs.index import ROW_GROUP, damage
from deblend_batch.parquet.file import BoundedParquet
from deblend_batch.tiling.blends import Blends


@dataclass(frozen=True)
class Carried:
    """Columns of the members of blends.

    Parameters
    ----------
    rows : pyarrow.Table
        A row for each member of each blend, null in the padding.
    width : int
        Members that a blend has room for.
    """

    rows: pa.Table
    width: int

    def measured(self, blends: NDArray[np.int64], is_measured: NDArray[np.bool_]) -> pa.Table:
        """Return the rows of the members that are measured, of some blends."""
        places = blends[:, None] * self.width + np.arange(self.width)
        return self.rows.take(pa.array(places[is_measured]))


def carried_rows(blends: Blends, detections: Detections) -> pa.Table | None:
    """Look the members of blends up in the detections."""
    if detections.carried is None:
        return None
    order = np.argsort(detections.id)
    found = np.searchsorted(detections.id, blends.source_id.ravel(), sorter=order)
    rows = order[np.minimum(found, len(order) - 1)] if len(order) else found
    return detections.carried.take(pa.array(rows, mask=~blends.is_member.ravel()))


def write_carried(output: Output, url: str, rows: pa.Table) -> None:
    """Write the file beside an index."""
    sink = io.BytesIO()
    pq.write_table(rows, sink, row_group_size=ROW_GROUP, compression="zstd")
    output.write(url, sink.getvalue())


def read_carried(output: Output, url: str, start: int, stop: int, width: int) -> Carried:
    """Read what belongs to rows ``start`` to ``stop`` (exclusive) of the index."""
    first, last = start * width, stop * width
    with output.open_read(url) as file, damage(url):
        opened = BoundedParquet(file)
        ends = np.cumsum([0, *opened.group_rows])
        groups = range(
            int(np.searchsorted(ends, first, side="right")) - 1,
            int(np.searchsorted(ends, last, side="left")),
        )
        if last > ends[-1] or max(opened.group_rows, default=0) > ROW_GROUP:
            raise ValueError("its rows are not those of the index")
        rows = pa.concat_tables([opened.read_group(group) for group in groups])
        return Carried(rows.slice(first - int(ends[groups.start]), last - first), width)
