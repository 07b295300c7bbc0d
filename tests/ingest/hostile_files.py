"""FITS files that announce or hold what they should not, and the blocks that they are made of."""

from __future__ import annotations

import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from astropy.io import fits

from tests.ingest.fits_files import celestial_header

BLOCK = 2880
GIB = 1 << 30


def header_block(**cards: Any) -> bytes:
    """Return a header of cards as they stand: ``text`` is written bare where it is no string."""
    lines = [f"{key:<8}= {_value(value)}" for key, value in cards.items()]
    return cards_block([*lines, "END"])


def cards_block(lines: Sequence[str]) -> bytes:
    """Return lines as cards in whole blocks."""
    text = "".join(line.ljust(80) for line in lines).encode()
    return text.ljust(-(-len(text) // BLOCK) * BLOCK)


def primary(bitpix: Any = -32, shape: Sequence[Any] = (), **cards: Any) -> bytes:
    """Return the header of a primary image; the shape is in the order of FITS."""
    axes = {f"NAXIS{n}": edge for n, edge in enumerate(shape, start=1)}
    return header_block(
        SIMPLE=True, BITPIX=bitpix, **({"NAXIS": len(shape), **axes} | cards), **_wcs()
    )


def extension(kind: str, bitpix: Any, shape: Sequence[Any], **cards: Any) -> bytes:
    """Return the header of an extension."""
    axes = {f"NAXIS{n}": edge for n, edge in enumerate(shape, start=1)}
    fixed = {"NAXIS": len(shape), **axes, "PCOUNT": 0, "GCOUNT": 1}
    return header_block(XTENSION=kind, BITPIX=bitpix, **(fixed | cards))


def padded(data: bytes) -> bytes:
    """Fill the last block."""
    return data.ljust(-(-len(data) // BLOCK) * BLOCK, b"\0")


def zeros_gzipped(n_bytes: int, start: bytes = b"") -> bytes:
    """Return a gzip stream of ``start`` and gigabytes of zeros, made in milliseconds."""
    piece = 1 << 24
    packer = zlib.compressobj(9, zlib.DEFLATED, -15)
    head = packer.compress(start) + packer.flush(zlib.Z_FULL_FLUSH)
    zeros = packer.compress(bytes(piece)) + packer.flush(zlib.Z_FULL_FLUSH)
    body = head + zeros * (n_bytes // piece) + b"\x03\x00"
    return b"\x1f\x8b\x08\0\0\0\0\0\0\xff" + body + bytes(8)


def write_compressed(
    path: Path,
    streams: Sequence[bytes],
    *,
    shape_yx: tuple[int, int] = (64, 64),
    tile_yx: tuple[Any, Any] = (64, 64),
    algorithm: str = "GZIP_1",
    zbitpix: int = 32,
    pointers: Sequence[tuple[int, int]] | None = None,
    fallback: Sequence[bytes] | None = None,
    heap_bytes: int | None = None,
    **cards: Any,
) -> str:
    """Write a tile-compressed image whose streams, and all that is said of them, are as given.

    ``pointers`` are lengths and places in the heap; ``fallback`` streams are GZIP_COMPRESSED_DATA, behind
    the others; a heap longer than the streams is a hole in the file.
    """
    streams = [*streams, *(fallback or ())]
    ends = np.cumsum([len(stream) for stream in streams], dtype=">i8")
    told = np.array(
        pointers or [(len(s), end - len(s)) for s, end in zip(streams, ends, strict=True)], ">i8"
    )
    columns = {"COMPRESSED_DATA": told}
    if fallback is not None:
        half = len(told) // 2
        columns = {"COMPRESSED_DATA": told[:half], "GZIP_COMPRESSED_DATA": told[half:]}
    table = np.concatenate(list(columns.values()), axis=1).astype(">i8").tobytes()
    rows = len(next(iter(columns.values())))
    heap = b"".join(streams)
    described = {
        f"{word}{n}": value
        for n, name in enumerate(columns, start=1)
        for word, value in (("TTYPE", name), ("TFORM", "1QB"))
    }
    fixed = {
        "PCOUNT": heap_bytes or len(heap),
        "TFIELDS": len(columns),
        **described,
        "ZIMAGE": True,
        "ZBITPIX": zbitpix,
        "ZNAXIS": 2,
        "ZNAXIS1": shape_yx[1],
        "ZNAXIS2": shape_yx[0],
        "ZTILE1": tile_yx[1],
        "ZTILE2": tile_yx[0],
        "ZCMPTYPE": algorithm,
        **_wcs(),
    }
    head = extension("BINTABLE", 8, (16 * len(columns), rows), **(fixed | cards))
    with path.open("wb") as file:
        file.write(header_block(SIMPLE=True, BITPIX=8, NAXIS=0) + head + padded(table + heap))
        if heap_bytes:
            file.truncate(file.tell() + heap_bytes)
    return str(path)


def gzipped(data: bytes) -> bytes:
    """Return a gzip stream."""
    packer = zlib.compressobj(6, zlib.DEFLATED, 31)
    return packer.compress(data) + packer.flush()


def hcompressed(nx: int, ny: int) -> bytes:
    """Return the start of an HCOMPRESS stream that claims to be ``nx`` x ``ny`` px."""
    return b"\xdd\x99" + np.array([nx, ny, 0], ">i4").tobytes() + bytes(4096)


def _wcs() -> Mapping[str, Any]:
    header: fits.Header = celestial_header(magzero=25.0, psf_fwhm=0.4)
    return dict(header)


def _value(value: Any) -> str:
    if isinstance(value, bool):
        return f"{'T' if value else 'F':>20}"
    if isinstance(value, str):
        return f"'{value:<8}'"
    return f"{value!s:>20}"
