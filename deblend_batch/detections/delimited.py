"""CSV and its like, streamed: text in, typed parts out."""

from __future__ import annotations

import io
import re
from collections.abc import Iterator
from typing import BinaryIO

import pyarrow as pa
import pyarrow.csv

from deblend_batch.detections.bounds import (
    MAX_HEADER,
    PART_BYTES,
    Choose,
    choose_from,
    text_lines,
)
from deblend_batch.errors import TooLargeError

_NULLS = ["", "NaN", "nan", "NULL", "null", "N/A", "NA", "--", "None"]


def scan(file: BinaryIO, choose: Choose) -> Iterator[pa.Table]:
    """Read the wanted columns of a CSV, a few megabytes at a time."""
    lines = text_lines(file)
    header = lines.readline(MAX_HEADER).decode("utf-8-sig").strip()
    delimiter = max(",;\t", key=header.count)
    names = [name.strip().strip('"') for name in header.lstrip("# ").split(delimiter)]
    wanted = choose_from(names, choose)
    parse = pyarrow.csv.ParseOptions(delimiter=delimiter, newlines_in_values=True)
    convert = pyarrow.csv.ConvertOptions(include_columns=wanted, null_values=_NULLS)
    empty = True
    for block in _blocks(lines, delimiter.encode()):
        if not block.strip():
            continue
        empty = False
        # From memory, and as one block: Arrow would read ahead of us, and go on when we have stopped.
        read = pyarrow.csv.ReadOptions(
            column_names=names, use_threads=False, block_size=len(block) + 1
        )
        yield pyarrow.csv.read_csv(pa.BufferReader(block), read, parse, convert)
    if empty:
        yield pa.table({name: pa.nulls(0) for name in wanted})


def _blocks(lines: io.BufferedReader, delimiter: bytes) -> Iterator[bytes]:
    """Cut a text where a row ends."""
    quoted = re.compile(rb"(?:\A|[\n" + delimiter + rb'])"[^"]*(?:""[^"]*)*("?)')
    rest = b""
    while text := lines.read(PART_BYTES):
        block = rest + text
        end = _last_row_end(block, quoted)
        if not end and len(text) == PART_BYTES:
            raise TooLargeError(f"a row of more than {PART_BYTES:,} bytes; check its quotes")
        rest = block[end:]
        yield block[:end]
    yield rest


def _last_row_end(text: bytes, quoted: re.Pattern[bytes]) -> int:
    """Return where the last whole row ends; a line end within quotes ends none."""
    last = text.rfind(b"\n") + 1
    # An odd number of quotes: they go on in the next row, or are inches. Rare, and looked at closely.
    if text.count(b'"', 0, last) % 2 == 0:
        return last
    end = start = 0
    for match in quoted.finditer(text):
        end = max(end, text.rfind(b"\n", start, match.start() + 1) + 1)
        start = match.end()
        if not match[1]:
            return end
    return max(end, text.rfind(b"\n", start) + 1)
