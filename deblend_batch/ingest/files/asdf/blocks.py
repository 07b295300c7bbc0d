"""The blocks of an ASDF file, where its arrays lie: found one by one, unpacked where they are packed."""

from __future__ import annotations

import bz2
import hashlib
import struct
import tempfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from typing import BinaryIO, cast

import numcodecs
import numpy as np

from deblend_batch import storage
from deblend_batch.errors import FieldError, TooLargeError
from deblend_batch.ingest.files.unzipping import FREE_BYTES, MAX_RATIO, check_room

MAGIC = b"\xd3BLK"

_HEADER = struct.Struct(">I4sQQQ16s")
_MOST_HEADER = 1 << 12
_MOST_BLOCKS = 1 << 16
_MOST_PADDING = 1 << 20
_STREAMED = 1
_PIECE = 1 << 20
_MOST_LZ4_PIECE = 1 << 27
_NO_SUM = bytes(16)


@dataclass(frozen=True)
class Block:
    """Where a block lies.

    Parameters
    ----------
    start : int
        Its first byte in the file.
    used : int
        Bytes there.
    size : int
        Bytes once unpacked.
    packing : str
        ``zlib``, ``bzp2``, ``lz4``; empty where it is not packed.
    digest : bytes
        MD5 of its content; zeros where nobody has counted.
    """

    start: int
    used: int
    size: int
    packing: str
    digest: bytes


@dataclass(frozen=True)
class OpenBlock:
    """The content of a block: ``size`` bytes from ``start`` on."""

    file: BinaryIO
    start: int
    size: int


class Blocks:
    """The blocks of an open file.

    Parameters
    ----------
    file : file object
        Seekable.
    url : str
        Where it is, for messages.
    start : int
        Where the text before the blocks ends.
    scratch : str
        Folder for what is unpacked.
    stack : ExitStack
        Closes what is opened here.
    check_sums : bool
        Refuse a content that does not fit its MD5.
    """

    def __init__(
        self,
        file: BinaryIO,
        url: str,
        start: int,
        scratch: str,
        stack: ExitStack,
        *,
        check_sums: bool,
    ) -> None:
        self._file = file
        self._url = url
        self._scratch = scratch
        self._stack = stack
        self._check_sums = check_sums
        self._size = file.seek(0, 2)
        self._walk = self._found(start)
        self._known: list[Block] = []
        self._opened: dict[int, OpenBlock] = {}

    def open(self, number: int, least: int) -> OpenBlock:
        """Return a block's content, of which an array needs some bytes."""
        if number not in self._opened:
            block = self._at(number)
            if block.size < least:
                raise FieldError(
                    f"{self._url}: block {number} holds {block.size:,} bytes, and an array needs {least:,}; "
                    "fetch the file again"
                )
            self._opened[number] = self._content(number, block)
        return self._opened[number]

    def _at(self, number: int) -> Block:
        while len(self._known) <= number:
            block = next(self._walk, None)
            if block is None:
                raise FieldError(
                    f"{self._url}: has no block {number}, in which an array lies; it is truncated: fetch it "
                    "again"
                )
            self._known.append(block)
        return self._known[number]

    def _found(self, start: int) -> Iterator[Block]:
        at = self._first(start)
        for _ in range(_MOST_BLOCKS):
            block, at = self._read(at)
            if block is None:
                return
            yield block

    def _first(self, start: int) -> int:
        """Return where the first block begins: a writer may leave room for its text to grow."""
        self._file.seek(start)
        found = self._file.read(_MOST_PADDING).find(MAGIC)
        return self._size if found < 0 else start + found

    def _read(self, at: int) -> tuple[Block | None, int]:
        """Read the header of a block; return where the next one begins."""
        self._file.seek(at)
        head = self._file.read(len(MAGIC) + 2)
        if head[: len(MAGIC)] != MAGIC or len(head) < len(MAGIC) + 2:
            return None, at
        n_header = int.from_bytes(head[len(MAGIC) :], "big")
        header = self._file.read(n_header) if n_header <= _MOST_HEADER else b""
        if len(header) < max(_HEADER.size, n_header):
            raise FieldError(f"{self._url}: a block has no whole header; fetch the file again")
        flags, packing, allocated, used, size, digest = _HEADER.unpack_from(header)
        start = at + len(head) + n_header
        if flags & _STREAMED:
            raise FieldError(f"{self._url}: has a streamed block, which is not read; save it again")
        if used > allocated or start + used > self._size:
            raise FieldError(
                f"{self._url}: truncated: a block ends at byte {start + used:,}, the file has "
                f"{self._size:,}; fetch it again"
            )
        name = packing.rstrip(b"\0").decode("ascii", "replace")
        return Block(start, used, size if name else used, name, digest), start + allocated

    def _content(self, number: int, block: Block) -> OpenBlock:
        label = f"{self._url} (block {number})"
        if not block.packing:
            if self._check_sums and block.digest != _NO_SUM:
                _check_digest(label, block, (_digest(_pieces(self._file, block)),))
            return OpenBlock(self._file, block.start, block.used)
        if block.packing not in _UNPACKERS:
            raise FieldError(
                f"{label}: is packed with {block.packing!r}, which is not read; save it with lz4, or plain"
            )
        check_room(block.size, FREE_BYTES + MAX_RATIO * block.used, label, self._scratch)
        return OpenBlock(self._unpacked(label, block), 0, block.size)

    def _unpacked(self, label: str, block: Block) -> BinaryIO:
        """Unpack a block into a file without a name: a packed one cannot be read by windows."""
        copy = self._stack.enter_context(tempfile.TemporaryFile(dir=self._scratch))  # noqa: SIM115
        digest = hashlib.md5(usedforsecurity=False)
        try:
            for piece in _unpacked(_pieces(self._file, block), block, label):
                digest.update(piece)
                copy.write(piece)
            copy.flush()
        except OSError as error:
            raise storage.translate(f"{self._scratch} (unpacking {label})", error) from error
        if self._check_sums and block.digest != _NO_SUM:
            _check_digest(label, block, (digest.digest(), _digest(_pieces(self._file, block))))
        return cast("BinaryIO", copy)


def _unpacked(pieces: Iterator[bytes], block: Block, label: str) -> Iterator[bytes]:
    """Unpack pieces, to the size that is announced and no more."""
    left = block.size
    unpacking = _UNPACKERS[block.packing](pieces)
    while True:
        try:
            piece = next(unpacking, None)
        except (ValueError, RuntimeError, EOFError, OSError, zlib.error) as error:
            raise FieldError(f"{label}: cannot be unpacked; fetch the file again") from error
        if piece is None:
            break
        left -= len(piece)
        if left < 0:
            raise TooLargeError(
                f"{label}: holds more than the {block.size:,} bytes that it announces"
            )
        yield piece
    if left:
        raise FieldError(
            f"{label}: ends after {block.size - left:,} of {block.size:,} bytes; fetch it again"
        )


def _pieces(file: BinaryIO, block: Block) -> Iterator[bytes]:
    """Yield what a block holds in the file."""
    for at in range(0, block.used, _PIECE):
        file.seek(block.start + at)
        yield file.read(min(_PIECE, block.used - at))


def _digest(pieces: Iterator[bytes]) -> bytes:
    digest = hashlib.md5(usedforsecurity=False)
    for piece in pieces:
        digest.update(piece)
    return digest.digest()


def _check_digest(label: str, block: Block, found: tuple[bytes, ...]) -> None:
    """Refuse what does not fit: of a packed block some writers count before, some after the packing."""
    if block.digest not in found:
        raise FieldError(
            f"{label}: does not fit its checksum: the file is damaged; fetch it again, or give "
            "--ignore-checksum"
        )


def _unpack_zlib(pieces: Iterator[bytes]) -> Iterator[bytes]:
    decoder = zlib.decompressobj()
    for piece in pieces:
        left = piece
        while left:
            yield decoder.decompress(left, _PIECE)
            left = decoder.unconsumed_tail
    if not decoder.eof:
        raise EOFError


def _unpack_bzip2(pieces: Iterator[bytes]) -> Iterator[bytes]:
    decoder = bz2.BZ2Decompressor()
    for piece in pieces:
        yield decoder.decompress(piece, _PIECE)
        while not decoder.needs_input and not decoder.eof:
            yield decoder.decompress(b"", _PIECE)
    if not decoder.eof:
        raise EOFError


def _unpack_lz4(pieces: Iterator[bytes]) -> Iterator[bytes]:
    """Unpack LZ4 as ASDF has it: pieces with their length before them, each with its own size first."""
    buffer = bytearray()
    for piece in pieces:
        buffer += piece
        while len(buffer) >= 4:
            size = int.from_bytes(buffer[:4], "big")
            if not 4 < size <= _MOST_LZ4_PIECE:
                raise ValueError("no length of a piece")
            if len(buffer) < 4 + size:
                break
            part = np.frombuffer(bytes(buffer[4 : 4 + size]), np.uint8)
            del buffer[: 4 + size]
            announced = int(part[:4].view("<i4")[0])
            if not 0 <= announced <= _MOST_LZ4_PIECE:
                raise ValueError("no size of a piece")
            yield bytes(numcodecs.LZ4().decode(part))
    if buffer:
        raise EOFError


_UNPACKERS: dict[str, Callable[[Iterator[bytes]], Iterator[bytes]]] = {
    "zlib": _unpack_zlib,
    "bzp2": _unpack_bzip2,
    "lz4": _unpack_lz4,
}
