"""Packed files (gzip, bzip2, xz) read as streams that give no more than what was read can honestly hold.

Deflate makes up to 1,032 bytes of one, the others any number. Reading is by small blocks, so that memory is
bounded whatever a stream unpacks to; the bounds here end a stream that would go on for hours, or fill a disk.
"""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import zlib
from collections.abc import Callable, Mapping
from typing import Any, BinaryIO, Protocol, cast

from deblend_batch.errors import DamagedFileError, TooLargeError

FREE_BYTES = 1 << 26
"""What any stream may unpack to, however small it is."""
MAX_RATIO = 300
"""Bytes unpacked for one read, beyond the free ones; ten columns of zeros beside an id stay below 100."""
PACKED_SUFFIXES = (".gz", ".bz2", ".xz")
"""Ends of the names of packed files."""

_BLOCK_BYTES = 1 << 20
_PIECE_BYTES = 1 << 16
_XZ_MEMORY = 1 << 27
"""What xz may ask for its dictionary; its highest preset takes half of it."""


class _Stream(Protocol):
    """What a packed file is read from."""

    def readinto(self, into: Any, /) -> int:
        """Fill a buffer; 0 at the end."""

    def close(self) -> None:
        """Close the stream, not the file."""


def unpacked(
    raw: BinaryIO, url: str, *, ratio: float = MAX_RATIO, most: int | None = None
) -> BinaryIO:
    """Return a file as it is, or, where it is packed, a reader of what it unpacks to.

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
    start = raw.read(max(map(len, _KINDS)))
    raw.seek(0)
    for magic, (kind, opened) in _KINDS.items():
        if start.startswith(magic):
            unpacking = _Unpacking(raw, opened(raw), url, kind, ratio, most)
            return cast("BinaryIO", io.BufferedReader(unpacking, _BLOCK_BYTES))
    return raw


def without_packing(name: str) -> str:
    """Return a file's name without what says how it is packed.

    Examples
    --------
    >>> without_packing("frame.fits.bz2")
    'frame.fits'
    """
    for suffix in PACKED_SUFFIXES:
        if name.lower().endswith(suffix):
            return name[: -len(suffix)]
    return name


class _Unpacking(io.RawIOBase):
    """What a packed file unpacks to, as far as the bounds go."""

    def __init__(
        self,
        raw: BinaryIO,
        stream: _Stream,
        url: str,
        kind: str,
        ratio: float,
        most: int | None,
    ) -> None:
        super().__init__()
        self._raw = raw
        self._stream = stream
        self._url = url
        self._kind = kind
        self._ratio = ratio
        self._most = most
        self._given = 0

    def readable(self) -> bool:
        """Return True."""
        return True

    def readinto(self, into: Any) -> int:
        """Fill a buffer as far as the stream goes."""
        try:
            n = self._stream.readinto(into)
        except EOFError as error:
            raise self._damaged("truncated") from error
        except (gzip.BadGzipFile, zlib.error, lzma.LZMAError) as error:
            if "emory" in str(error):  # xz has no other sign for its bound
                raise TooLargeError(
                    f"{self._url}: unpacking takes more than {_XZ_MEMORY:,} bytes of memory, which no preset "
                    "of xz does; pack it anew"
                ) from error
            raise self._damaged("damaged") from error
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

    def _damaged(self, how: str) -> DamagedFileError:
        return DamagedFileError(f"{self._url}: the {self._kind} stream is {how}; fetch it again")

    def close(self) -> None:
        """Close the stream; the file below it belongs to whoever opened it."""
        self._stream.close()
        super().close()


class _Blocks:
    """Streams of bzip2 or xz, one behind the other, unpacked a little at a time."""

    def __init__(self, raw: BinaryIO, start: Callable[[], Any]) -> None:
        self._raw = raw
        self._start = start
        self._decoder = start()
        self._held = b""

    def readinto(self, into: Any, /) -> int:
        """Fill a buffer; 0 at the end of the last stream."""
        while not self._decoder.eof or self._begins_another():
            packed = b""
            if self._decoder.needs_input:
                packed = self._held or self._raw.read(_PIECE_BYTES)
                self._held = b""
                if not packed:
                    raise EOFError
            content = self._decoded(packed, len(into))
            if content:
                into[: len(content)] = content
                return len(content)
        return 0

    def close(self) -> None:
        """Do nothing: the decoder holds no file."""

    def _begins_another(self) -> bool:
        """Begin the next stream, if there is one; zeros behind the last are padding."""
        self._held = self._decoder.unused_data.lstrip(b"\0")
        while not self._held and (packed := self._raw.read(_PIECE_BYTES)):
            self._held = packed.lstrip(b"\0")
        if self._held:
            self._decoder = self._start()
        return bool(self._held)

    def _decoded(self, packed: bytes, most: int) -> bytes:
        try:
            return bytes(self._decoder.decompress(packed, most))
        except OSError as error:  # of bzip2; one of the store would look like it
            raise lzma.LZMAError(str(error)) from error


def _gzip(raw: BinaryIO) -> _Stream:
    return gzip.GzipFile(fileobj=raw)


def _bzip2(raw: BinaryIO) -> _Stream:
    return _Blocks(raw, bz2.BZ2Decompressor)


def _xz(raw: BinaryIO) -> _Stream:
    return _Blocks(raw, lambda: lzma.LZMADecompressor(lzma.FORMAT_XZ, memlimit=_XZ_MEMORY))


_KINDS: Mapping[bytes, tuple[str, Callable[[BinaryIO], _Stream]]] = {
    b"\x1f\x8b": ("gzip", _gzip),
    b"BZh": ("bzip2", _bzip2),
    b"\xfd7zXZ\0": ("xz", _xz),
}
"""First bytes, name and reader of each kind."""
