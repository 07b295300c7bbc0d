"""Parquet files that nobody's writer makes, byte by byte: what they announce is not what they hold."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

INT32, INT64, DOUBLE, TEXT = 1, 2, 5, 6
PLAIN, RLE, RLE_DICTIONARY = 0, 3, 8
UNPACKED, ZSTD = 0, 6
DATA, DICTIONARY = 0, 2


def varint(value: int) -> bytes:
    """Thrift's unsigned integer."""
    found = bytearray()
    while value > 0x7F:
        found.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*found, value])


def number(value: int) -> tuple[int, bytes]:
    """An integer field: kind and bytes."""
    return 6, varint(2 * value if value >= 0 else -2 * value - 1)


def small(value: int) -> tuple[int, bytes]:
    """A field of 32 bits."""
    return 5, number(value)[1]


def text(value: str) -> tuple[int, bytes]:
    """A string field."""
    return 8, varint(len(value.encode())) + value.encode()


def several(kind: int, values: Sequence[bytes]) -> tuple[int, bytes]:
    """A list field."""
    return 9, bytes([0xF0 | kind]) + varint(len(values)) + b"".join(values)


def struct(fields: dict[int, tuple[int, bytes]]) -> tuple[int, bytes]:
    """A struct field; on its own its bytes are a message."""
    found, before = b"", 0
    for field, (kind, content) in fields.items():
        found += bytes([(field - before) << 4 | kind]) + content
        before = field
    return 12, found + b"\x00"


def page(
    content: bytes,
    n_values: int,
    *,
    kind: int = DATA,
    encoding: int = PLAIN,
    codec: int = UNPACKED,
    unpacked: int | None = None,
) -> bytes:
    """A page: its header, which may say anything, and its content."""
    packed = pa.compress(content, "zstd", asbytes=True) if codec == ZSTD else content
    own = {1: small(n_values), 2: small(encoding)}
    if kind == DATA:
        own |= {3: small(RLE), 4: small(RLE)}
    fields = {
        1: small(kind),
        2: small(len(content) if unpacked is None else unpacked),
        3: small(len(packed)),
        (5 if kind == DATA else 7): struct(own),
    }
    return struct(fields)[1] + packed


@dataclass(frozen=True)
class Column:
    """A column chunk: its pages, the dictionary first if there is one, and what the footer says of it."""

    name: str
    kind: int
    pages: Sequence[bytes]
    n_values: int
    dictionary: bool = False
    codec: int = UNPACKED
    start: int | None = None


def constant(name: str, value: bytes, n_values: int, kind: int = DOUBLE) -> Column:
    """A column of equal values: forty bytes for any number."""
    if kind == TEXT:
        value = len(value).to_bytes(4, "little") + value
    runs = b"\x01" + varint(n_values << 1) + b"\x00"
    pages = [
        page(value, 1, kind=DICTIONARY),
        page(runs, n_values, encoding=RLE_DICTIONARY),
    ]
    return Column(name, kind, pages, n_values, dictionary=True)


def counting(name: str, n_values: int, kind: int = INT64) -> Column:
    """Ids that count up, as delta-coded blocks of bit width 0; 25 bytes for 65,536 of them."""
    block = 1 << 16
    step = varint(2) + bytes(
        4
    )  # the least difference, 1, and the width of each of four mini blocks
    head = varint(block) + varint(4) + varint(n_values) + varint(0)
    content = head + step * -(-(n_values - 1) // block)
    return Column(name, kind, [page(content, n_values, encoding=5)], n_values)


def parquet(columns: Sequence[Column], n_rows: int, padding: int = 0) -> bytes:
    """A file of one row group; ``padding`` bytes that belong to nothing make it look honest."""
    body, chunks = io.BytesIO(), []
    body.write(b"PAR1" + bytes(padding))
    for column in columns:
        start = body.tell() if column.start is None else column.start
        size = body.write(b"".join(column.pages))
        offsets = {9: number(start + (len(column.pages[0]) if column.dictionary else 0))}
        if column.dictionary:
            offsets |= {11: number(start)}
        meta = {
            1: small(column.kind),
            2: several(5, [small(PLAIN)[1]]),
            3: several(8, [text(column.name)[1]]),
            4: small(column.codec),
            5: number(column.n_values),
            6: number(size),
            7: number(size),
            **offsets,
        }
        chunks.append(struct({2: number(0), 3: struct(meta)})[1])
    group = struct({1: several(12, chunks), 2: number(0), 3: number(n_rows)})[1]
    leaves = [(column.name, column.kind) for column in columns]
    return body.getvalue() + footer(leaves, [group], n_rows)


def footer(leaves: Sequence[tuple[str, int]], groups: Sequence[bytes], n_rows: int = 0) -> bytes:
    """The end of a file."""
    root = struct({4: text("schema"), 5: small(len(leaves))})[1]
    flat = [
        struct(
            {1: small(kind), 3: small(0), 4: text(name)} | ({6: small(0)} if kind == TEXT else {})
        )[1]
        for name, kind in leaves
    ]
    message = struct(
        {
            1: small(1),
            2: several(12, [root, *flat]),
            3: number(n_rows),
            4: several(12, groups),
        }
    )[1]
    return message + len(message).to_bytes(4, "little") + b"PAR1"


def zeros(name: str, n_values: int, kind: int = DOUBLE) -> Column:
    """A column in one page of zeros, packed."""
    content = page(bytes(8 * n_values), n_values, codec=ZSTD)
    return Column(name, kind, [content], n_values, codec=ZSTD)


def double(value: float) -> bytes:
    """The bytes of a value."""
    return np.float64(value).tobytes()
