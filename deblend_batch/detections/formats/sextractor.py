"""SExtractor's ASCII_HEAD: a line of comment for each column, then rows with blanks between the values."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import BinaryIO

import pyarrow as pa
import pyarrow.csv

from deblend_batch.detections.formats.bounds import (
    MAX_COLUMNS,
    MAX_HEADER,
    PART_BYTES,
    Choose,
    choose_from,
    text_lines,
)
from deblend_batch.errors import DetectionsError, TooLargeError

_COLUMN = re.compile(r"#\s*(?P<number>\d+)\s+(?P<name>\S+)(?P<rest>.*)")
_UNIT = re.compile(r"\[(?P<unit>[^\]]+)\]\s*$")
_BLANKS = re.compile(rb"[ \t]+")


def scan(file: BinaryIO, choose: Choose) -> Iterator[pa.Table]:
    """Read the wanted columns of a table of SExtractor's, a few megabytes at a time."""
    lines = text_lines(file)
    columns: list[tuple[int, str, str]] = []
    first, left = b"", MAX_HEADER
    while line := lines.readline(MAX_HEADER):
        left -= len(line)
        if left < 0 or len(columns) > MAX_COLUMNS:
            raise TooLargeError("a header of more columns than any table has; check the file")
        match = _COLUMN.match(line.decode("utf-8-sig", errors="replace"))
        if match is None:
            first = line
            break
        columns.append((int(match["number"]), match["name"], match["rest"]))
    names, units = _named(columns, len(first.split()))
    wanted = choose_from(names, choose)
    empty = True
    while block := lines.readlines(PART_BYTES) or ([] if not first else [b""]):
        empty = False
        yield _part(first + b"".join(block), names, wanted, units)
        first = b""
    if empty:
        yield pa.table({name: pa.nulls(0) for name in wanted})


def _named(columns: list[tuple[int, str, str]], n_values: int) -> tuple[list[str], dict[str, str]]:
    """Return a name for each value of a row, and units; of a vector only the first has a line."""
    names: list[str] = []
    units: dict[str, str] = {}
    ends = [number for number, _, _ in columns[1:]] + [max(n_values, columns[-1][0]) + 1]
    for (number, name, rest), end in zip(columns, ends, strict=True):
        if number != len(names) + 1 or end <= number or end > MAX_COLUMNS:
            raise DetectionsError(
                "its comments do not number its columns one by one; check its header"
            )
        names += [name, *(f"{name}_{more}" for more in range(1, end - number))]
        if unit := _UNIT.search(rest):
            units[name] = unit["unit"]
    return names, units


def _part(text: bytes, names: list[str], wanted: list[str], units: dict[str, str]) -> pa.Table:
    rows = [_BLANKS.sub(b" ", line.strip()) for line in text.splitlines()]
    body = b"\n".join(row for row in rows if row and not row.startswith(b"#")) + b"\n"
    read = pyarrow.csv.ReadOptions(column_names=names, use_threads=False, block_size=len(body) + 1)
    parse = pyarrow.csv.ParseOptions(delimiter=" ")
    convert = pyarrow.csv.ConvertOptions(include_columns=wanted)
    if not body.strip():
        return pa.table({name: pa.nulls(0) for name in wanted})
    table = pyarrow.csv.read_csv(pa.BufferReader(body), read, parse, convert)
    fields = [
        field.with_metadata({"unit": units[field.name]}) if field.name in units else field
        for field in table.schema
    ]
    return table.cast(pa.schema(fields))
