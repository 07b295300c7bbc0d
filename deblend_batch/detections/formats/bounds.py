"""What a table may ask for before it is refused, whatever its format; the same for all who read one."""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from typing import Any, BinaryIO

from deblend_batch.errors import DetectionsError, TooLargeError

Choose = Callable[[Sequence[str]], Sequence[str]]
"""Given a table's column names, says which to read; raises where it finds none that serve."""


class IdName(str):
    """The name of a column that names things: where a format types none, ``007`` is not the number 7."""

    __slots__ = ()


MAX_COLUMNS = 10_000
MAX_NAME = 1_000
"""Characters of a column's name."""
MAX_HEADER = 1 << 20
"""Bytes that describe the columns of a table."""
MAX_LINE = 1 << 20
"""Bytes of a line of text, or of a row."""
PART_BYTES = 1 << 22
"""Bytes of a table that are read at a time."""

PARQUET_INSTEAD = "convert it to Parquet, which is read in parts"


def choose_from(names: Sequence[str], choose: Choose) -> list[str]:
    """Return the columns to read; refuse a table with more of them, or longer names, than any real one."""
    if len(names) > MAX_COLUMNS:
        raise TooLargeError(
            f"{len(names):,} columns, the most is {MAX_COLUMNS:,}; keep those that are needed"
        )
    longest = max(map(len, names), default=0)
    if longest > MAX_NAME:
        raise DetectionsError(
            f"a column's name of {longest:,} characters; this is no table, or its separator is unknown"
        )
    return list(dict.fromkeys(choose(names)))


def text_lines(file: BinaryIO) -> io.BufferedReader:
    """Return a reader of a text file's lines, which refuses one that is longer than any real one."""
    return io.BufferedReader(_Lines(file), MAX_LINE)


class _Lines(io.RawIOBase):
    """The bytes of a file, as far as line ends come often enough."""

    def __init__(self, file: BinaryIO) -> None:
        super().__init__()
        self._file = file
        self._open_line = 0

    def readable(self) -> bool:
        """Return True."""
        return True

    def readinto(self, into: Any) -> int:
        """Fill a buffer."""
        content = self._file.read(len(into))
        into[: len(content)] = content
        first = content.find(b"\n")
        self._open_line += len(content) if first < 0 else first
        if self._open_line > MAX_LINE:
            raise TooLargeError(
                f"a line of more than {MAX_LINE:,} bytes; give a table with one row a line"
            )
        if first >= 0:
            self._open_line = len(content) - content.rfind(b"\n") - 1
        return len(content)
