"""IPAC tables, streamed: their header once, their rows by blocks of lines, each read by astropy."""

from __future__ import annotations

import io
import re
import warnings
from collections.abc import Iterator, Sequence
from typing import BinaryIO

import astropy.table
import pyarrow as pa

from deblend_batch.detections.columns import shown
from deblend_batch.detections.formats.arrow import from_astropy
from deblend_batch.detections.formats.bounds import (
    MAX_COLUMNS,
    MAX_HEADER,
    PARQUET_INSTEAD,
    Choose,
    choose_from,
    text_lines,
)
from deblend_batch.errors import DetectionsError, TooLargeError

_START = re.compile(rb"\s*(\\|\|[^\n]*\|[ \t]*\r?(\n|$))")
_BLOCK_BYTES = 1 << 20
"""Text of the rows that astropy gets at once: it makes a Python object of every value."""
_MOST_BARS = 4
"""Lines of a header: names, types, units, what stands for nothing."""


def is_ipac(head: bytes) -> bool:
    """Tell a table by its beginning: keywords and comments behind backslashes, or names between bars."""
    return _START.match(head) is not None


def scan(file: BinaryIO, choose: Choose) -> Iterator[pa.Table]:
    """Read the wanted columns of an IPAC table, a block of lines at a time."""
    lines = text_lines(file)
    header, row = _header(lines)
    table = _parse(header)
    names = choose_from(table.colnames, choose)
    bars = [number for number, char in enumerate(header[0]) if char == "|"]
    rows = [row] if row.strip() else []
    empty = True
    while block := [*rows, *(_text(line) for line in lines.readlines(_BLOCK_BYTES))]:
        rows = []
        kept = [line for line in block if line.strip() and not line.startswith("\\")]
        if kept:
            empty = False
            _check_between_bars(kept, bars)
            yield from_astropy(_parse([*header, *kept]), names)
    if empty:
        yield from_astropy(table, names)


def _header(lines: io.BufferedReader) -> tuple[list[str], str]:
    """Return the lines between bars, which say where the columns are, and the first row."""
    header: list[str] = []
    left = MAX_HEADER
    while line := lines.readline(MAX_HEADER):
        left -= len(line)
        if left < 0:
            raise TooLargeError(f"a header of more than {MAX_HEADER:,} bytes; {PARQUET_INSTEAD}")
        text = _text(line)
        if text.startswith("|"):
            header.append(text)
        elif header or not (text.startswith("\\") or not text.strip()):
            break
    else:
        text = ""
    if not 0 < len(header) <= _MOST_BARS:
        raise DetectionsError(
            f"an IPAC table with {len(header)} lines between bars; it has 1 to {_MOST_BARS} of them"
        )
    if header[0].count("|") > MAX_COLUMNS + 1:
        raise TooLargeError(f"more than {MAX_COLUMNS:,} columns; {PARQUET_INSTEAD}")
    return header, text


def _check_between_bars(rows: Sequence[str], bars: Sequence[int]) -> None:
    """Refuse values that stand under a bar, or behind the last: what of them lies there would be lost."""
    for row in rows:
        if row[bars[-1] :].strip() or any(row[bar : bar + 1].strip() for bar in bars):
            raise DetectionsError(
                f"a row does not stand between the bars of the header ({shown(row)!r}); write the table "
                "again, or as VOTable or CSV"
            )


def _text(line: bytes) -> str:
    return line.decode("utf-8-sig", errors="replace").rstrip("\r\n")


def _parse(lines: Sequence[str]) -> astropy.table.Table:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # units outside the standard; ours are checked later
        return astropy.table.Table.read(list(lines), format="ascii.ipac", definition="ignore")
