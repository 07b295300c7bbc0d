"""ECSV, streamed: its header once, its rows by blocks of lines, each read by astropy."""

from __future__ import annotations

import io
import textwrap
import warnings
from collections.abc import Iterator, Sequence
from typing import BinaryIO

import astropy.table
import astropy.units as u
import pyarrow as pa
from astropy.coordinates import SkyCoord

from deblend_batch import yaml_text
from deblend_batch.detections.formats.arrow import from_astropy
from deblend_batch.detections.formats.bounds import (
    MAX_HEADER,
    PARQUET_INSTEAD,
    Choose,
    choose_from,
    text_lines,
)
from deblend_batch.errors import DetectionsError, TooLargeError

_BLOCK_BYTES = 1 << 20
"""Text of the rows that astropy gets at once: it makes a Python object of every value."""
_MAX_HEADER_LINES = 100_000
_NULLS = [(text, "0") for text in ("", "null", "NULL")]
"""What stands for no value: Gaia's archive writes "null"."""
_HEADERS = 4
"""A block is at least so many times its header, which is read again with each."""


def scan(file: BinaryIO, choose: Choose) -> Iterator[pa.Table]:
    """Read the wanted columns of an ECSV table, a block of lines at a time."""
    lines = text_lines(file)
    header = _header(lines)
    table = _parse(header)
    names = choose_from(table.colnames, choose)
    empty = True
    for block in _blocks(lines, max(_BLOCK_BYTES, _HEADERS * sum(map(len, header)))):
        empty = False
        yield from_astropy(_parse([*header, *block]), names)
    if empty:
        yield from_astropy(table, names)


def _header(lines: io.BufferedReader) -> list[str]:
    """Return the lines of the header, with that of the names, once they are known to be harmless."""
    header: list[str] = []
    left = MAX_HEADER
    while line := lines.readline(MAX_HEADER):
        left -= len(line)
        if left < 0 or len(header) == _MAX_HEADER_LINES:
            raise TooLargeError(
                f"a header of more than {MAX_HEADER:,} bytes or {_MAX_HEADER_LINES:,} lines; "
                f"{PARQUET_INSTEAD}"
            )
        header.append(line.decode("utf-8-sig").strip())
        if header[-1] and not header[-1].startswith("#"):
            break
    text = textwrap.dedent("\n".join(line[1:] for line in header if line.startswith("#")))
    try:
        yaml_text.check(text.encode())
    except yaml_text.ExtentError as error:
        raise TooLargeError(f"its header {error}; {PARQUET_INSTEAD}") from error
    return header


def _blocks(lines: io.BufferedReader, n_bytes: int) -> Iterator[list[str]]:
    """Cut the rows into blocks; where text in quotes goes over several lines, not within it."""
    while block := lines.readlines(n_bytes):
        size, quotes = sum(map(len, block)), sum(line.count(b'"') for line in block)
        while quotes % 2 and (line := lines.readline()):
            block.append(line)
            size, quotes = size + len(line), quotes + line.count(b'"')
            if size > 2 * n_bytes:
                raise DetectionsError("a text in quotes that does not end; check its rows")
        yield [line.decode().rstrip("\r\n") for line in block]


def _parse(lines: Sequence[str]) -> astropy.table.Table:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # units outside the standard; ours are checked later
        table = astropy.table.Table.read(list(lines), format="ascii.ecsv", fill_values=_NULLS)
    for name in table.colnames:
        if isinstance(table[name], SkyCoord):  # one column to astropy, two in the file
            sky = table[name].icrs
            table[f"{name}.ra"], table[f"{name}.dec"] = sky.ra.to(u.deg), sky.dec.to(u.deg)
            table.remove_column(name)
    return table
