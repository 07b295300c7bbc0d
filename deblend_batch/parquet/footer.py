"""The footer of a Parquet file: read up to a size, and counted before a library makes objects of it.

A column chunk takes three bytes of a footer at the least, and 700 of memory.
"""

from __future__ import annotations

import os
from typing import BinaryIO

import pyarrow as pa
import pyarrow.parquet as pq

from deblend_batch.errors import TooLargeError
from deblend_batch.parquet.thrift import LIST, Compact

_MAX_BYTES = 1 << 26
_MAX_CHUNKS = 500_000
"""A thousand row groups of 500 columns."""
_MAX_ELEMENTS = 100_000
"""Columns of a file, or its row groups."""
_LEAST_CHUNK_BYTES = 3
_MAGIC = b"PAR1"
_TAIL = 8
_ROW_GROUPS, _COLUMNS = 4, 1
"""Numbers of the fields of FileMetaData and of RowGroup."""
_FIRST_READ = 1 << 16


def read_footer(file: BinaryIO) -> tuple[pq.FileMetaData, int]:
    """Read what a Parquet file says of itself.

    Parameters
    ----------
    file : file object
        Seekable.

    Returns
    -------
    metadata : pyarrow.parquet.FileMetaData
        The footer's content.
    start : int
        Where the footer begins, and so the data end.

    Raises
    ------
    TooLargeError
        If it is larger than any real one.
    pyarrow.ArrowInvalid
        If it is no Parquet file, or damaged.
    """
    size = file.seek(0, os.SEEK_END)
    tail = _read_at(file, max(size - _FIRST_READ, 0), min(size, _FIRST_READ))
    if len(tail) < len(_MAGIC) + _TAIL or not tail.endswith(_MAGIC):
        raise pa.ArrowInvalid("not a Parquet file, or one that was cut")
    length = int.from_bytes(tail[-_TAIL:-4], "little")
    start = size - _TAIL - length
    if start < len(_MAGIC):
        raise pa.ArrowInvalid("its footer would begin before the file")
    if length > _MAX_BYTES:
        raise TooLargeError(
            f"a Parquet footer of {length:,} bytes, more than the {_MAX_BYTES:,} that are read; "
            "write it again with larger row groups"
        )
    footer = (
        tail[-_TAIL - length :]
        if length + _TAIL <= len(tail)
        else _read_at(file, start, length + _TAIL)
    )
    if length > _LEAST_CHUNK_BYTES * _MAX_CHUNKS:
        _check_chunks(footer)
    with pq.ParquetFile(
        pa.BufferReader(_MAGIC + footer),
        pre_buffer=False,
        thrift_container_size_limit=_MAX_ELEMENTS,
    ) as opened:
        return opened.metadata, start


def _read_at(file: BinaryIO, start: int, size: int) -> bytes:
    file.seek(start)
    return file.read(size)


def _check_chunks(footer: bytes) -> None:
    """Count the column chunks of all row groups."""
    message, n_chunks = Compact(footer), 0
    try:
        for number, kind in message.struct():
            if number != _ROW_GROUPS or kind != LIST:
                message.skip(kind)
                continue
            for _ in range(message.list_head()[0]):
                for inner, inner_kind in message.struct():
                    if inner != _COLUMNS or inner_kind != LIST:
                        message.skip(inner_kind)
                        continue
                    n_columns, of = message.list_head()
                    n_chunks += n_columns
                    _check_count(n_chunks)
                    for _ in range(n_columns):
                        message.skip(of)
    except (IndexError, ValueError) as error:
        raise pa.ArrowInvalid(f"its footer is damaged ({error})") from error


def _check_count(n_chunks: int) -> None:
    if n_chunks > _MAX_CHUNKS:
        raise TooLargeError(
            f"a Parquet footer of more than {_MAX_CHUNKS:,} column chunks; write it again with larger row "
            "groups, or only the columns that are needed"
        )
