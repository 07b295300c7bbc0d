"""The footer of a Parquet file: read up to a size, and counted before a library makes objects of it.

A column chunk takes three bytes of a footer at the least, and 700 of memory. What a footer says of its chunks
is read here, since pyarrow ends the process where a list in it has another length than it should.
"""

from __future__ import annotations

import os
from collections.abc import Container
from dataclasses import dataclass
from typing import BinaryIO

import pyarrow as pa
import pyarrow.parquet as pq

from deblend_batch.errors import TooLargeError
from deblend_batch.parquet.thrift import LIST, STRUCT, Compact, Fields

_MAX_BYTES = 1 << 26
_MAX_CHUNKS = 500_000
"""A thousand row groups of 500 columns."""
_MAX_ELEMENTS = 100_000
"""Columns of a file, or its row groups."""
_LEAST_CHUNK_BYTES = 3
_MAGIC = b"PAR1"
_TAIL = 8
_FIRST_READ = 1 << 16
_ROW_GROUPS, _COLUMNS, _META = 4, 1, 3
"""Numbers of the fields of FileMetaData, RowGroup and ColumnChunk."""
_N_VALUES, _SIZE, _PAGES, _DICTIONARY = 5, 7, 9, 11
"""Numbers of the fields of ColumnMetaData."""


@dataclass(frozen=True)
class Chunk:
    """The values of one column in one row group: where they are, and how many are announced."""

    start: int
    stop: int
    column: int
    n_values: int


@dataclass(frozen=True)
class Footer:
    """What a Parquet file says of itself.

    Parameters
    ----------
    metadata : pyarrow.parquet.FileMetaData
        As pyarrow has it.
    start : int
        Where the footer begins, and so the data end.
    message : bytes
        The footer.
    """

    metadata: pq.FileMetaData
    start: int
    message: bytes

    def chunks(self, columns: Container[int]) -> list[list[Chunk]]:
        """Return the chunks of some columns, by their numbers, of each row group."""
        groups = [
            [self._chunk(number, fields) for number, fields in group.items()]
            for group in _groups(self.message, columns)
        ]
        if len(groups) != self.metadata.num_row_groups:
            raise pa.ArrowInvalid("its footer is damaged (row groups)")
        return groups

    def _chunk(self, column: int, fields: Fields) -> Chunk:
        meta = fields.get(_META)
        if not isinstance(meta, dict):
            raise pa.ArrowInvalid("its footer is damaged (a column chunk without metadata)")
        n_values, size, start = (_number(meta, field) for field in (_N_VALUES, _SIZE, _PAGES))
        dictionary = _number(meta, _DICTIONARY, 0)
        start = dictionary if 0 < dictionary < start else start
        if start + size > self.start:
            raise pa.ArrowInvalid("a column chunk lies outside of the file")
        return Chunk(start, start + size, column, n_values)


def _number(meta: Fields, field: int, otherwise: int = -1) -> int:
    value = meta.get(field, otherwise)
    if not isinstance(value, int) or value < 0:
        raise pa.ArrowInvalid("its footer is damaged (a column chunk without numbers)")
    return value


def read_footer(file: BinaryIO) -> Footer:
    """Read what a Parquet file says of itself."""
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
    if length + _TAIL > len(tail):
        tail = _read_at(file, start, length + _TAIL)
    footer = tail[-_TAIL - length :]
    message = footer[:-_TAIL]
    if length > _LEAST_CHUNK_BYTES * _MAX_CHUNKS:
        _groups(message, ())
    with pq.ParquetFile(
        pa.BufferReader(_MAGIC + footer),
        pre_buffer=False,
        thrift_container_size_limit=_MAX_ELEMENTS,
    ) as opened:
        return Footer(opened.metadata, start, message)


def _read_at(file: BinaryIO, start: int, size: int) -> bytes:
    file.seek(start)
    return file.read(size)


def _groups(message: bytes, columns: Container[int]) -> list[dict[int, Fields]]:
    """Read what a footer says of some columns in each row group; count the chunks of all."""
    groups: list[dict[int, Fields]] = []
    reader, counter = Compact(message), _Counter()
    try:
        for number, kind in reader.struct():
            if (number, kind) != (_ROW_GROUPS, LIST):
                reader.skip(kind)
                continue
            n_groups, of = reader.list_head()
            _check_struct(of, n_groups)
            groups = [_group(reader, columns, counter) for _ in range(n_groups)]
    except (IndexError, ValueError) as error:
        if isinstance(error, TooLargeError):
            raise
        raise pa.ArrowInvalid(f"its footer is damaged ({error})") from error
    return groups


def _group(reader: Compact, columns: Container[int], counter: _Counter) -> dict[int, Fields]:
    chunks: dict[int, Fields] = {}
    for number, kind in reader.struct():
        if (number, kind) != (_COLUMNS, LIST):
            reader.skip(kind)
            continue
        n_columns, of = reader.list_head()
        _check_struct(of, n_columns)
        counter.add(n_columns)
        chunks = {}
        for column in range(n_columns):
            if column in columns:
                chunks[column] = reader.fields()
            else:
                reader.skip(of)
    return chunks


def _check_struct(kind: int, size: int) -> None:
    if size and kind != STRUCT:
        raise ValueError("a list of something else")


class _Counter:
    """Counts column chunks."""

    def __init__(self) -> None:
        self._n = 0

    def add(self, n: int) -> None:
        self._n += n
        if self._n > _MAX_CHUNKS:
            raise TooLargeError(
                f"a Parquet footer of more than {_MAX_CHUNKS:,} column chunks; write it again with larger "
                "row groups, or only the columns that are needed"
            )
