"""Packed FITS (gzip, bzip2, xz), which cannot be read by ranges, as an unpacked file of a size known before.

The headers say how much follows them: what they announce is unpacked and no more, and where that is beyond
the bound or the free space nothing of it is.
"""

from __future__ import annotations

import math
import shutil
import tempfile
from contextlib import ExitStack
from typing import BinaryIO, cast

from deblend_batch import fits_structure as structure
from deblend_batch import storage
from deblend_batch.errors import TooLargeError, UserError

FREE_BYTES = 1 << 31
"""What any packed file may unpack to: a mask of 23,000 x 23,000 px in 32 bits, which may be all zeros."""
MAX_RATIO = 100
"""Bytes unpacked for each packed one, beyond the free ones; images with noise stay below 10."""

_PIECE = 1 << 20


def unzipped(raw: BinaryIO, url: str, folder: str, stack: ExitStack) -> BinaryIO:
    """Return a file as it is, or, where it is packed, what it unpacks to."""
    most = FREE_BYTES + MAX_RATIO * raw.seek(0, 2)
    raw.seek(0)
    stream = storage.unpacked(raw, url, ratio=math.inf, most=most + structure.BLOCK + _PIECE)
    if stream is raw:
        return raw
    stack.enter_context(stream)
    try:
        copy = stack.enter_context(tempfile.TemporaryFile(dir=folder))  # noqa: SIM115
        tee = _Tee(stream, cast("BinaryIO", copy))
        for unit in structure.walk(cast("BinaryIO", tee), url):
            check_room(unit.stop, most, url, folder)
        copy.flush()
    except UserError:
        raise
    except OSError as error:
        raise storage.translate(f"{folder} (unpacking {url})", error) from error
    copy.seek(0)
    return cast("BinaryIO", copy)


def check_room(size: int, most: int, url: str, folder: str) -> None:
    """Refuse to unpack what no such file holds, or what a disk has no room for."""
    if size > most:
        raise TooLargeError(
            f"{url}: announces {size:,} bytes, and no packed file of its size is unpacked to more than "
            f"{most:,} here; unpack it yourself if you trust it"
        )
    free = shutil.disk_usage(folder).free
    if size > free:
        raise TooLargeError(
            f"{url}: unpacking takes {size:,} bytes in {folder}, where {free:,} are free; free some and run "
            "again, or unpack it elsewhere"
        )


class _Tee:
    """A stream that is copied as far as it is read."""

    def __init__(self, stream: BinaryIO, copy: BinaryIO) -> None:
        self._stream = stream
        self._copy = copy
        self._at = 0

    def read(self, size: int) -> bytes:
        """Read on."""
        data = self._stream.read(size)
        self._copy.write(data)
        self._at += len(data)
        return data

    def seek(self, to: int) -> None:
        """Read as far as ``to``, or to the end."""
        while self._at < to and self.read(min(to - self._at, _PIECE)):
            pass
