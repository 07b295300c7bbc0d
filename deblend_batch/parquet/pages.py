"""Pages of a Parquet file, looked at on their way to the decoder: none passes that would take much memory.

Only a page's own header says what it unpacks to and how many values it has; a footer may say anything. The
decoder reads each column chunk from its start on, so that every header passes here before its page is used.
"""

from __future__ import annotations

import io
from bisect import bisect_left, bisect_right
from collections.abc import Iterable
from typing import BinaryIO

import pyarrow as pa

from deblend_batch.errors import TooLargeError
from deblend_batch.parquet.footer import Chunk
from deblend_batch.parquet.thrift import Compact, Fields

_MAX_PAGE_BYTES = 1 << 27
"""Packed or unpacked: writers make a million bytes, some 100 million, and one a page of all rows."""
_MAX_PAGES_BYTES = 1 << 29
"""Unpacked, of the columns that are decoded side by side."""
_MAX_HEADER_BYTES = 1 << 20
_PADDING = 128
"""Bytes behind a chunk that the decoder asks for where an early writer is known to have left out a few."""
_UNPACKED, _PACKED = 2, 3
_DATA_HEADERS = (5, 8)
_N_VALUES = 1
"""Numbers of the fields of PageHeader, and of the headers of data pages in it."""
_REMEDY = "write the table again with pages of a million bytes"


class _Walk:
    """How far the pages of a chunk have been looked at."""

    def __init__(self, chunk: Chunk) -> None:
        self.header = chunk.start
        self.left = chunk.n_values
        self.seen = b""  # of a header that has not passed whole


class CheckedPages(io.RawIOBase):
    """A Parquet file whose page headers are checked while it is read.

    Parameters
    ----------
    file : file object
        Seekable; it stays the caller's to close.
    chunks : iterable of Chunk
        Those that may be read.
    """

    def __init__(self, file: BinaryIO, chunks: Iterable[Chunk]) -> None:
        super().__init__()
        self._file = file
        self._chunks = sorted(chunks, key=lambda chunk: chunk.start)
        self._starts = [chunk.start for chunk in self._chunks]
        self._walks: dict[int, _Walk] = {}
        self._largest: dict[int, int] = {}
        if any(
            one.stop > two.start for one, two in zip(self._chunks, self._chunks[1:], strict=False)
        ):
            raise pa.ArrowInvalid("its column chunks overlap")

    def readable(self) -> bool:
        """Return True."""
        return True

    def seekable(self) -> bool:
        """Return True."""
        return True

    def seek(self, offset: int, whence: int = 0) -> int:
        """Go to a place."""
        return self._file.seek(offset, whence)

    def tell(self) -> int:
        """Return the place."""
        return self._file.tell()

    def read(self, size: int = -1) -> bytes:
        """Read on, if no page in what is read is too large."""
        at = self._file.tell()
        data = self._file.read(size)
        first = bisect_right(self._starts, at) - 1
        if data and (first < 0 or at >= self._chunks[first].stop + _PADDING):
            raise pa.ArrowInvalid("its pages are not where its footer says")
        last = bisect_left(self._starts, at + len(data))
        for number in range(max(first, 0), last):
            self._look(number, at, data)
        return data

    def _look(self, number: int, at: int, data: bytes) -> None:
        chunk = self._chunks[number]
        walk = self._walks.setdefault(number, _Walk(chunk))
        while walk.header < min(at + len(data), chunk.stop):
            known = at - len(walk.seen)
            if walk.header < known:
                raise pa.ArrowInvalid("its pages are not read in their order")
            text = walk.seen + data if walk.seen else data
            message = Compact(text, walk.header - known)
            try:
                header = message.fields()
            except IndexError:
                walk.seen = text[walk.header - known :]
                if len(walk.seen) > _MAX_HEADER_BYTES:
                    raise TooLargeError(
                        f"a page header of more than {_MAX_HEADER_BYTES:,} bytes; {_REMEDY}"
                    ) from None
                return
            except ValueError as error:
                raise pa.ArrowInvalid(f"a page header is damaged ({error})") from error
            walk.left -= self._checked(header, chunk.column, walk.left)
            walk.header = known + message.at + int(_number(header, _PACKED))
            walk.seen = b""

    def _checked(self, header: Fields, column: int, left: int) -> int:
        """Return the number of values in a page that may be decoded."""
        unpacked, packed = _number(header, _UNPACKED), _number(header, _PACKED)
        self._largest[column] = max(self._largest.get(column, 0), unpacked)
        if max(unpacked, packed) > _MAX_PAGE_BYTES:
            raise TooLargeError(
                f"a page of {max(unpacked, packed):,} bytes, more than the {_MAX_PAGE_BYTES:,} that are "
                f"unpacked at once; {_REMEDY}"
            )
        if sum(self._largest.values()) > _MAX_PAGES_BYTES:
            raise TooLargeError(
                f"pages of more than {_MAX_PAGES_BYTES:,} bytes in the columns that are wanted; {_REMEDY}"
            )
        data = next((header[kind] for kind in _DATA_HEADERS if kind in header), {})
        n_values = _number(data, _N_VALUES, 0) if isinstance(data, dict) else 0
        if n_values > left:
            raise pa.ArrowInvalid("a page holds more values than the footer announces")
        return n_values


def _number(header: Fields, field: int, otherwise: int = -1) -> int:
    value = header.get(field, otherwise)
    if not isinstance(value, int) or value < 0:
        raise pa.ArrowInvalid("a page header is damaged (no size)")
    return value
