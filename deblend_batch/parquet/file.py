"""A Parquet file, read in bounded memory."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import BinaryIO

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from deblend_batch.errors import TooLargeError
from deblend_batch.parquet.footer import read_footer
from deblend_batch.parquet.pages import CheckedPages, Chunk
from deblend_batch.storage.unpacking import FREE_BYTES, MAX_RATIO

WHOLE_RATIO = 30
"""Bytes in memory for one of a file that is held whole, beyond the free ones."""

_BUFFER_BYTES = 1 << 22
_ROWS = 1 << 19
_TEXT = "BYTE_ARRAY"
_WIDTHS = {"BOOLEAN": 1, "INT32": 4, "INT64": 8, "INT96": 12, "FLOAT": 4, "DOUBLE": 8, _TEXT: 16}
"""Bytes of a value in memory, by physical type; of a text what its place takes."""


@dataclass
class Allowance:
    """What the files of one table may unpack to, for the bytes that they are.

    Parameters
    ----------
    ratio : float
        Bytes for one of a file, beyond the first :data:`~deblend_batch.storage.unpacking.FREE_BYTES`.
    """

    ratio: float = MAX_RATIO
    _files: int = field(default=0, init=False)
    _unpacked: int = field(default=0, init=False)

    def claim(self, file: int, unpacked: int) -> None:
        """Count a file of a size that unpacks to another.

        Raises
        ------
        TooLargeError
            If what has been counted unpacks to more than it may.
        """
        self._files += file
        self._unpacked += unpacked
        if self._unpacked > FREE_BYTES + self.ratio * self._files:
            raise TooLargeError(
                f"{self._files:,} bytes of Parquet announce {self._unpacked:,} bytes of values, more than "
                f"{self.ratio:g} times as many, as no real table does; write it again without compression "
                "if you trust it"
            )


class BoundedParquet:
    """A Parquet file of a stranger, open.

    Parameters
    ----------
    file : file object
        Seekable; it stays the caller's to close.

    Raises
    ------
    TooLargeError
        If its footer is larger than any real one.
    pyarrow.ArrowInvalid
        If it is no Parquet file, or damaged.
    """

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self.metadata, self._data_stop = read_footer(file)
        self.schema: pa.Schema = self.metadata.schema.to_arrow_schema()
        groups = range(self.metadata.num_row_groups)
        self._rows: list[int] = [self.metadata.row_group(i).num_rows for i in groups]
        if min(self._rows, default=0) < 0:
            raise pa.ArrowInvalid("a row group announces less than no rows")

    @property
    def n_groups(self) -> int:
        """Number of row groups."""
        return len(self._rows)

    @property
    def n_rows(self) -> int:
        """Rows that all row groups announce."""
        return sum(self._rows)

    @property
    def group_rows(self) -> Sequence[int]:
        """Rows that each row group announces."""
        return self._rows

    def batches(self, names: Sequence[str], allowance: Allowance) -> Iterator[pa.Table]:
        """Read columns of numbers and texts, half a million rows at a time.

        Parameters
        ----------
        names : sequence of str
            Columns.
        allowance : Allowance
            Of the table that the file is part of.

        Yields
        ------
        pyarrow.Table
            The columns in the order of ``names``; at least one table, which may have no rows.

        Raises
        ------
        TooLargeError
            If the file announces, or a page unpacks to, more than any real one.
        pyarrow.ArrowInvalid
            If it is damaged.
        """
        chosen, everywhere = list(names), range(self.n_groups)
        schema = pa.schema([self.schema.field(name) for name in chosen])
        leaves, texts = self._leaves(chosen), self._texts(chosen)
        allowance.claim(self._data_stop, self._announced(leaves, everywhere))
        empty = True
        with self._opened(leaves, everywhere, texts) as opened:
            for batch in opened.iter_batches(_ROWS, columns=chosen, use_threads=False):
                empty = False
                part = pa.Table.from_batches([batch]).select(chosen)
                _claim_texts(part, texts, allowance)
                yield part.cast(schema)
        if empty:
            yield schema.empty_table()

    def read(self, names: Sequence[str] | None = None) -> pa.Table:
        """Read columns whole, of any type, all if None, with the file's metadata in the schema.

        Raises
        ------
        TooLargeError
            If they take more memory than those of any real file of its size.
        pyarrow.ArrowInvalid
            If the file is damaged.
        """
        return self._read(names, range(self.n_groups), Allowance(WHOLE_RATIO), self._data_stop)

    def read_group(self, number: int) -> pa.Table:
        """Read a row group whole, if it takes no more than the free bytes; see :meth:`read`."""
        return self._read(None, range(number, number + 1), Allowance(0), 0)

    def _read(
        self, names: Sequence[str] | None, groups: range, allowance: Allowance, size: int
    ) -> pa.Table:
        chosen = self.schema.names if names is None else list(names)
        schema = pa.schema([self.schema.field(name) for name in chosen], self.schema.metadata)
        leaves, texts = self._leaves(chosen), self._texts(chosen)
        allowance.claim(size, self._announced(leaves, groups))
        with self._opened(leaves, groups, texts) as opened:
            table = opened.read_row_groups(list(groups), columns=chosen, use_threads=False)
        _claim_texts(table, texts, allowance)
        return table.select(chosen).cast(schema)

    def _texts(self, names: Sequence[str]) -> list[str]:
        return [name for name in names if _is_text(self.schema.field(name).type)]

    def _leaves(self, names: Sequence[str]) -> list[int]:
        """Return the numbers of the Parquet columns that hold the columns of these names."""
        schema, known = self.metadata.schema, set(names)
        texts = {name for name in names if _is_text(self.schema.field(name).type, once=True)}
        leaves = []
        for number in range(len(schema)):
            column = schema.column(number)
            if column.path not in known and column.path.split(".")[0] not in known:
                continue
            if column.physical_type == _TEXT and column.path not in texts:
                raise pa.ArrowInvalid(f"column {column.path[:60]!r} holds neither text nor numbers")
            leaves.append(number)
        return leaves

    def _announced(self, leaves: Sequence[int], groups: range) -> int:
        """Return the bytes that the values of columns take, by what the footer says of their number."""
        schema, total = self.metadata.schema, 0
        for number in leaves:
            column = schema.column(number)
            width = _WIDTHS.get(column.physical_type, column.length or 0)
            total += width * sum(
                max(self.metadata.row_group(group).column(number).num_values, self._rows[group])
                for group in groups
            )
        return total

    def _opened(
        self, leaves: Sequence[int], groups: range, texts: Sequence[str] = ()
    ) -> pq.ParquetFile:
        every = (self._chunk(group, number) for group in groups for number in leaves)
        chunks = [chunk for chunk in every if chunk.n_values]
        # Pages come one after the other, from a stream for each column; texts come as dictionaries, so that
        # one that is repeated a million times is held once.
        return pq.ParquetFile(
            CheckedPages(self._file, chunks),
            metadata=self.metadata,
            read_dictionary=list(texts),
            pre_buffer=False,
            buffer_size=_BUFFER_BYTES,
        )

    def _chunk(self, group: int, number: int) -> Chunk:
        column = self.metadata.row_group(group).column(number)
        start = column.data_page_offset
        dictionary = column.dictionary_page_offset
        if dictionary is not None and 0 < dictionary < start:
            start = dictionary
        stop = start + column.total_compressed_size
        if column.num_values < 0 or not 0 <= start <= stop <= self._data_stop:
            raise pa.ArrowInvalid("a column chunk lies outside of the file")
        return Chunk(start, stop, number, column.num_values)


def _is_text(kind: pa.DataType, *, once: bool = False) -> bool:
    """Tell whether a column holds texts; ``once`` adds those that are held as dictionaries anyway."""
    if pa.types.is_dictionary(kind):
        return once and _is_text(kind.value_type)
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind))


def _claim_texts(table: pa.Table, names: Sequence[str], allowance: Allowance) -> None:
    """Count the bytes of texts that are held as dictionaries, before they are written out."""
    for name in names:
        for chunk in table[name].chunks:
            lengths = pc.cast(pc.binary_length(chunk.dictionary), pa.int64())
            allowance.claim(0, pc.sum(lengths.take(chunk.indices)).as_py() or 0)
