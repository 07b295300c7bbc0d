"""One HDU as a file of its own."""

from __future__ import annotations

import io
import os
from typing import BinaryIO


class HduView(io.RawIOBase):
    """A header and the data behind it, read from a file that holds more.

    A library that is given this cannot walk through the rest of the file, and reads the header that was
    checked.

    Parameters
    ----------
    header : bytes
        Whole blocks.
    file : file object
        Seekable; stays open.
    start, stop : int
        Where the data are in it.
    """

    def __init__(self, header: bytes, file: BinaryIO, start: int, stop: int) -> None:
        super().__init__()
        self._header = header
        self._file = file
        self._start = start
        self._size = len(header) + stop - start
        self._at = 0
        self._held = (0, b"")

    @property
    def data_start(self) -> int:
        """Where the data begin in the view."""
        return len(self._header)

    def readable(self) -> bool:
        """Return True."""
        return True

    def seekable(self) -> bool:
        """Return True."""
        return True

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """Move."""
        origin = {os.SEEK_SET: 0, os.SEEK_CUR: self._at, os.SEEK_END: self._size}[whence]
        self._at = max(0, origin + offset)
        return self._at

    def read(self, size: int = -1) -> bytes:
        """Read on; less than asked for at the end only."""
        left = max(0, self._size - self._at)
        size = left if size < 0 else min(size, left)
        head = self._header[self._at : self._at + size]
        rest = self._read_data(self._at + len(head), size - len(head))
        data = head + rest if head else rest  # adding nothing would copy all
        self._at += len(data)
        return data

    def hold(self, start: int, stop: int) -> None:
        """Keep a range of the view in memory, fetched at once, until the next one is."""
        self._held = (0, b"")
        self._held = (start, self.read_at(start, stop - start))

    def read_at(self, start: int, size: int) -> bytes:
        """Read a range."""
        self.seek(start)
        return self.read(size)

    def _read_data(self, at: int, size: int) -> bytes:
        held_at, held = self._held
        if held_at <= at and at + size <= held_at + len(held):
            return held[at - held_at : at - held_at + size]
        self._file.seek(self._start + at - self.data_start)
        return self._file.read(size)
