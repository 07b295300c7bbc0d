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

    def add(self, ids: NDArray[np.int64], reasons: NDArray[np.str_]) -> None:
        """List detections, each with its reason."""
        room = MOST_LISTED - self._listed
        if len(ids) and room:
            self._parts.append(pa.table({"id": ids[:room], "reason": reasons[:room].astype(str)}))
            self._listed += len(ids[:room])

    def write(self, output: Output, name: str) -> None:
        """Write the list of a field's index into an output, if there is anything in it."""
        if self._parts:
            sink = io.BytesIO()
            pq.write_table(pa.concat_tables(self._parts), sink)
            output.write(output.unused_url(name), sink.getvalue())
