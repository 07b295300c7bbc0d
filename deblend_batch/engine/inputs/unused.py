"""The list of detections that a field cannot use: beside its index, as far as anyone would read it."""

from __future__ import annotations

import io

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from deblend_batch.catalog.output import Output

MOST_LISTED = 1_000_000
"""Rows of the list; those behind are counted and not listed."""


class UnusedList:
    """Collects the ids of detections that cannot be used, with the reason, up to :data:`MOST_LISTED`."""

    def __init__(self) -> None:
        self._parts: list[pa.Table] = []
        self._listed = 0

    def add(self, ids: NDArray[np.int64], finite: NDArray[np.bool_]) -> None:
        """List detections; those whose position is finite lie outside of the image."""
        room = MOST_LISTED - self._listed
        if not len(ids) or not room:
            return
        reason = np.where(finite[:room], "outside the image", "position is not finite").astype(str)
        self._parts.append(pa.table({"id": ids[:room], "reason": reason}))
        self._listed += len(reason)

    def write(self, output: Output, name: str) -> None:
        """Write the list of a field's index into an output, if there is anything in it."""
        if self._parts:
            sink = io.BytesIO()
            pq.write_table(pa.concat_tables(self._parts), sink)
            output.write(output.unused_url(name), sink.getvalue())
