"""A Parquet file, read in bounded memory."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import BinaryIO

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from deblend_batch.errors import DeblendError, TooLargeError
from deblend_batch.parquet.footer import Chunk, read_footer
from deblend_batch.parquet.pages import CheckedPages
from deblend_batch.storage.unpacking import FREE_BYTES, MAX_RATIO

WHOLE_RATIO = 16
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
        """Count a file of a size that unpacks to another."""
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
    """

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        with _sound():
            self._footer = read_footer(file)
            metadata = self._footer.metadata
            self.schema: pa.Schema = _without_views(metadata.schema.to_arrow_schema())
            self._rows: list[int] = [
                metadata.row_group(number).num_rows for number in range(metadata.num_row_groups)
            ]
            self._paths = [
                metadata.schema.column(number).path for number in range(len(metadata.schema))
            ]
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
        """Read columns of numbers and texts, half a million rows at a time."""
        chosen = list(names)
        schema = pa.schema([self.schema.field(name) for name in chosen])
        texts, chunks = self._texts(chosen), self._chunks(chosen, range(self.n_groups))
        allowance.claim(self._footer.start, self._announced(chunks))
        empty = True
        with _sound(), self._opened(chunks, texts) as opened:
            for batch in opened.iter_batches(_ROWS, columns=chosen, use_threads=False):
                empty = False
                part = pa.Table.from_batches([batch]).select(chosen)
                _claim_texts(part, texts, allowance)
                yield part.cast(schema)
        if empty:
            yield schema.empty_table()

    def read(self, names: Sequence[str] | None = None) -> pa.Table:
        """Read columns whole, of any type, all if None, with the file's metadata in the schema."""
        return self._read(names, range(self.n_groups), Allowance(WHOLE_RATIO), self._footer.start)

    def read_group(self, number: int) -> pa.Table:
        """Read a row group whole, if it takes no more than the free bytes; see :meth:`read`."""
        return self._read(None, range(number, number + 1), Allowance(0), 0)

    def _read(
        self, names: Sequence[str] | None, groups: range, allowance: Allowance, size: int
    ) -> pa.Table:
        chosen = self.schema.names if names is None else list(names)
        schema = pa.schema([self.schema.field(name) for name in chosen], self.schema.metadata)
        texts, chunks = self._texts(chosen), self._chunks(chosen, groups)
        allowance.claim(size, self._announced(chunks))
        with _sound(), self._opened(chunks, texts) as opened:
            table = opened.read_row_groups(list(groups), columns=chosen, use_threads=False)
            _claim_texts(table, texts, allowance)
            return table.select(chosen).cast(schema)

    def _texts(self, names: Sequence[str]) -> list[str]:
        return [name for name in names if is_text(self.schema.field(name).type)]

    def _leaves(self, names: Sequence[str]) -> list[int]:
        """Return the numbers of the Parquet columns that hold the columns of these names."""
        schema, known = self._footer.metadata.schema, set(names)
        kinds = {name: self.schema.field(name).type for name in names}
        texts = {
            name
            for name, kind in kinds.items()
            if is_text(kind.value_type if pa.types.is_dictionary(kind) else kind)
        }
        leaves = []
        for number, path in enumerate(self._paths):
            if path not in known and path.split(".")[0] not in known:
                continue
            if schema.column(number).physical_type == _TEXT and path not in texts:
                raise pa.ArrowInvalid(f"column {path[:60]!r} holds neither text nor numbers")
            leaves.append(number)
        return leaves

    def _chunks(self, names: Sequence[str], groups: range) -> list[list[Chunk]]:
        """Return the chunks of columns in each of some row groups."""
        every = self._footer.chunks(frozenset(self._leaves(names)))
        for chunks, n_rows in zip(every, self._rows, strict=True):
            if any(chunk.n_values < n_rows for chunk in chunks):
                raise pa.ArrowInvalid("a column chunk has fewer values than its row group rows")
        return [every[number] for number in groups]

    def _announced(self, groups: Sequence[Sequence[Chunk]]) -> int:
        """Return the bytes that values take, by what the footer says of their number."""
        chunks = [chunk for group in groups for chunk in group]
        widths = {column: self._width(column) for column in {chunk.column for chunk in chunks}}
        return sum(widths[chunk.column] * chunk.n_values for chunk in chunks)

    def _width(self, column: int) -> int:
        kind = self._footer.metadata.schema.column(column)
        return _WIDTHS.get(kind.physical_type, kind.length or 0)

    def _opened(
        self, groups: Sequence[Sequence[Chunk]], texts: Sequence[str] = ()
    ) -> pq.ParquetFile:
        chunks = [chunk for group in groups for chunk in group if chunk.n_values]
        # Pages come one after the other, from a stream for each column; texts come as dictionaries, so that
        # one that is repeated a million times is held once.
        return pq.ParquetFile(
            CheckedPages(self._file, chunks),
            metadata=self._footer.metadata,
            read_dictionary=list(texts),
            pre_buffer=False,
            buffer_size=_BUFFER_BYTES,
        )


@contextmanager
def _sound() -> Iterator[None]:
    """Let what is wrong with a file be one kind of error; what is wrong with its store is another."""
    try:
        yield
    except (pa.ArrowException, UnicodeDecodeError, OSError) as error:
        if isinstance(error, DeblendError) or getattr(error, "errno", None) is not None:
            raise
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise pa.ArrowInvalid(reason) from error


def _without_views(schema: pa.Schema) -> pa.Schema:
    """Write views of texts, which their writer had in memory, as texts: in a file they are the same."""
    plain = {pa.string_view(): pa.large_string(), pa.binary_view(): pa.large_binary()}
    fields = [each.with_type(plain.get(each.type, each.type)) for each in schema]
    return pa.schema(fields, schema.metadata)


def is_text(kind: pa.DataType) -> bool:
    """Tell whether a column holds texts: strings or bytes of any length."""
    types = pa.types
    tests = (types.is_string, types.is_large_string, types.is_binary, types.is_large_binary)
    return any(test(kind) for test in tests)


def _claim_texts(table: pa.Table, names: Sequence[str], allowance: Allowance) -> None:
    """Count the bytes of texts that are held as dictionaries, before they are written out."""
    for name in names:
        for chunk in table[name].chunks:
            lengths = pc.cast(pc.binary_length(chunk.dictionary), pa.int64())
            allowance.claim(0, pc.sum(lengths.take(chunk.indices)).as_py() or 0)
