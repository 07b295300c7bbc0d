"""Parquet tables that are read at once, by the thread that asks for them, in bounded memory."""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import BinaryIO

import pyarrow as pa

from deblend_batch.parquet.file import BoundedParquet


def read_table(source: BinaryIO | bytes, columns: Sequence[str] | None = None) -> pa.Table:
    """Read a Parquet file.

    :func:`pyarrow.parquet.read_table` leaves a file of Python's to threads of its own, one of which may still
    hold it when the interpreter ends: that aborts the process, after all was said and done (2 in 100).

    Parameters
    ----------
    source : file or bytes
        The file, open, or its content.
    columns : sequence of str, optional
        Those that are wanted; all if None.
    """
    file = io.BytesIO(source) if isinstance(source, bytes) else source
    return BoundedParquet(file).read(columns)
