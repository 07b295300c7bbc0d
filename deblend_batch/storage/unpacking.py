"""Gzipped files read as streams that give no more than what was read can honestly hold.

Deflate makes up to 1,032 bytes of one. Reading is by small blocks, so that memory is bounded whatever a
stream unpacks to; the bounds here end a stream that would go on for hours, or fill a disk.
"""

from __future__ import annotations

import gzip
import io
from typing import Any, BinaryIO, cast

from deblend_batch.errors import TooLargeError

FREE_BYTES = 1 << 26
"""What any stream may unpack to, however small it is."""
MAX_RATIO = 300
"""Bytes unpacked for one read, beyond the free ones; ten columns of zeros beside an id stay below 100."""

_MAGIC = b"\x1f\x8b"
_BLOCK_BYTES = 1 << 20


def unpacked(
    raw: BinaryIO, url: str, *, ratio: float = MAX_RATIO, most: int | None = None
) -> BinaryIO:
    """Return a file as it is, or, where it is gzipped, a reader of what it unpacks to.

    Parameters
    ----------
    raw : file object
        Seekable, at its start.
    url : str
        Where it is, for messages.
    ratio : float
        Bytes it may unpack to for each that was read, beyond the first :data:`FREE_BYTES`.
    most : int, optional
        Bytes it may unpack to in all.
    """
    zipped = raw.read(len(_MAGIC)) == _MAGIC
    raw.seek(0)
    if not zipped:
        return raw
    return cast("BinaryIO", io.BufferedReader(_Unpacking(raw, url, ratio, most), _BLOCK_BYTES))


class _Unpacking(io.RawIOBase):
    """What a gzipped file unpacks to, as far as the bounds go."""

    def __init__(self, raw: BinaryIO, url: str, ratio: float, most: int | None) -> None:
        super().__init__()
        self._raw = raw
        self._url = url
        self._ratio = ratio
        self._most = most
        self._stream = gzip.GzipFile(fileobj=raw)
        self._given = 0

    def readable(self) -> bool:
        """Return True."""
        return True

    def readinto(self, into: Any) -> int:
        """Fill a buffer as far as the stream goes."""
        n = self._stream.readinto(into)
        self._given += n
        if self._most is not None and self._given > self._most:
            raise TooLargeError(
                f"{self._url}: unpacks to more than {self._most:,} bytes, the bound for such a file here; "
                "unpack it yourself if you trust it"
            )
        if self._given > FREE_BYTES + self._ratio * self._raw.tell():
            raise TooLargeError(
                f"{self._url}: unpacks to more than {self._ratio:g} times its size, as no real file does; "
                "unpack it yourself if you trust it"
            )
        return n

    def close(self) -> None:
        """Close the stream; the file below it belongs to whoever opened it."""
        self._stream.close()
        super().close()
