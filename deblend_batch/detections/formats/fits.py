"""Tables in FITS, streamed: windows of rows, each a small table of its own, which astropy reads.

So the file is read forwards, once, and may be gzipped; scaling, null values and units are astropy's; and the
columns that nobody wants cost nothing but the reading of their bytes.
"""

from __future__ import annotations

import io
import math
import re
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, BinaryIO

import astropy.table
import numpy as np
import pyarrow as pa
from astropy.io import fits

from deblend_batch.detections.formats.arrow import check_frame, from_astropy
from deblend_batch.detections.formats.bounds import PART_BYTES, Choose
from deblend_batch.detections.formats.choice import TableSearch
from deblend_batch.errors import DetectionsError, TooLargeError
from deblend_batch.fits_structure import PLAIN

_BLOCK_BYTES = 2880
_END = b"END".ljust(80)
_MAX_HEADER = 1 << 21
_MAX_ROW = 1 << 24
_MAX_FIELDS = 999
"""Columns, and axes, by the standard."""
_SKIP_BYTES = 1 << 20
_VECTOR = re.compile(r"(?P<count>\d{1,3})[BIJKED]")
_MAX_ELEMENTS = 64
_TABLES = {"BINTABLE": fits.BinTableHDU, "TABLE": fits.TableHDU}
_COLUMN_CARDS = ("TTYPE", "TFORM", "TUNIT", "TNULL", "TSCAL", "TZERO", "TDIM", "TBCOL")


def scan(file: BinaryIO, choose: Choose, which: str | None = None) -> Iterator[pa.Table]:
    """Read the wanted columns of a table of a FITS file, a few megabytes at a time.

    Parameters
    ----------
    file : file object
        Read forwards.
    choose : callable
        Picks columns from a table's names.
    which : str, optional
        Name or number of the table's HDU; the one that has the columns if absent.
    """
    search = TableSearch(choose, which)
    for number, header in _tables(file):
        size, name = _data_bytes(header), str(header.get("EXTNAME", "")).strip()
        named = None if search.passes(name, number) else _names(header)
        names = None if named is None else search.columns(name, number, named)
        if names is not None:
            check_frame("\n".join(map(str, header.get("COMMENT", ""))), names)
            table = _Table.of(header)
            yield from _rows(file, table, names)
            size -= table.row_bytes * table.n_rows
        _skip(file, size)
    search.finish()


def _names(header: fits.Header) -> list[str]:
    """Return the names of a table's columns, and of the elements of those that hold several numbers a row.

    A column without a name is called as astropy calls it, an element ``NAME[0]`` and so on.
    """
    numbers = range(1, _count(header, "TFIELDS", _MAX_FIELDS) + 1)
    names = [str(header.get(f"TTYPE{number}", f"col{number}")).strip() for number in numbers]
    elements = [
        f"{name}[{element}]"
        for number, name in zip(numbers, names, strict=True)
        for element in range(_n_elements(header, number))
    ]
    return names + elements


def _n_elements(header: fits.Header, number: int) -> int:
    """Return how many numbers a row has in a column, if these are a few; else 0."""
    match = _VECTOR.fullmatch(str(header.get(f"TFORM{number}", "")).strip())
    if match is None or "," in str(header.get(f"TDIM{number}", "")):
        return 0
    count = int(match["count"])
    return count if 1 < count <= _MAX_ELEMENTS else 0


def _rows(file: BinaryIO, table: _Table, names: Sequence[str]) -> Iterator[pa.Table]:
    window = PART_BYTES // max(table.row_bytes, 1) + 1
    done = 0
    while True:
        n_rows = min(window, table.n_rows - done)
        content = file.read(n_rows * table.row_bytes)
        if len(content) < n_rows * table.row_bytes:
            raise DetectionsError(
                f"it announces {table.n_rows:,} rows, and ends after "
                f"{done + len(content) // table.row_bytes:,}; fetch the file again"
            )
        yield table.read(content, n_rows, names)
        done += n_rows
        if done == table.n_rows:
            return


@dataclass(frozen=True)
class _Table:
    """What a header says of a table."""

    header: fits.Header
    kind: Any
    names: Sequence[str]
    ends: Sequence[int]
    """Where in a row each column of a binary table ends."""
    row_bytes: int
    n_rows: int

    @classmethod
    def of(cls, header: fits.Header) -> _Table:
        """Understand a header; nothing that it announces is believed before it is checked."""
        kind = _TABLES[header["XTENSION"].strip()]
        row_bytes, n_rows = _count(header, "NAXIS1"), _count(header, "NAXIS2")
        _count(header, "TFIELDS", _MAX_FIELDS)
        if row_bytes > _MAX_ROW:
            raise TooLargeError(
                f"rows of {row_bytes:,} bytes, the most is {_MAX_ROW:,}; check NAXIS1"
            )
        header["NAXIS2"] = 0
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # astropy warns of each slip in a header and goes on
            columns = kind.fromstring(header.tostring().encode()).columns
            dtype = columns.dtype
        ends = np.cumsum([dtype[i].itemsize for i in range(len(columns))]).tolist()
        if kind is fits.BinTableHDU and sum(ends[-1:]) != row_bytes:
            raise DetectionsError(
                f"rows of {row_bytes:,} bytes, with columns of {sum(ends[-1:]):,}; check its header"
            )
        return cls(header, kind, columns.names, ends, row_bytes, row_bytes and n_rows)

    def read(self, rows: bytes, n_rows: int, names: Sequence[str]) -> pa.Table:
        """Return some columns of some rows."""
        chosen: Sequence[int] = range(len(self.names))
        if self.kind is fits.BinTableHDU:  # an ASCII table says where in a row its columns stand
            chosen = sorted({self._place(name) for name in names})
            rows = self._cut(rows, n_rows, chosen)
        shape = {"NAXIS": 2, "NAXIS1": len(rows) // max(n_rows, 1), "NAXIS2": n_rows}
        fixed = {"BITPIX": 8} | shape | {"PCOUNT": 0, "GCOUNT": 1, "TFIELDS": len(chosen)}
        header = fits.Header([("XTENSION", self.header["XTENSION"]), *fixed.items()])
        for new, old in enumerate(chosen, 1):
            for card in _COLUMN_CARDS:
                if f"{card}{old + 1}" in self.header:
                    header[f"{card}{new}"] = self.header[f"{card}{old + 1}"]
            header[f"TTYPE{new}"] = self.names[old]
        content = header.tostring().encode() + rows + bytes(-len(rows) % _BLOCK_BYTES)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # units outside the standard; ours are checked later
            hdu = self.kind.fromstring(content, uint=True)
            table = astropy.table.Table.read(hdu)
            return from_astropy({name: self._column(table, name) for name in names}, names)

    def _place(self, name: str) -> int:
        """Return the number of a column, or of the one of which an element is meant."""
        if name in self.names:
            return self.names.index(name)
        return self.names.index(name.rpartition("[")[0])

    def _column(self, table: astropy.table.Table, name: str) -> astropy.table.Column:
        """Return a column, or an element of each of its rows."""
        column = table[self.names[self._place(name)]]
        return column if name in self.names else column[:, int(name.rpartition("[")[2][:-1])]

    def _cut(self, rows: bytes, n_rows: int, chosen: Sequence[int]) -> bytes:
        """Return the bytes of some columns, row by row."""
        cells = np.frombuffer(rows, np.uint8).reshape(n_rows, self.row_bytes)
        starts = [0, *self.ends]
        return np.concatenate(
            [cells[:, starts[index] : self.ends[index]] for index in chosen], axis=1
        ).tobytes()


def _tables(file: BinaryIO) -> Iterator[tuple[int, fits.Header]]:
    """Yield number and header of each table that is no image; whoever iterates goes past its data."""
    header = _read_header(file)
    if header is None:
        raise ValueError("it does not begin as FITS does")
    number = 0
    while header is not None:
        if str(header.get("XTENSION")).strip() in _TABLES and not header.get("ZIMAGE"):
            yield number, header
        else:
            _skip(file, _data_bytes(header))
        header = _read_header(file)
        number += 1


def _read_header(file: BinaryIO) -> fits.Header | None:
    """Return the next header, or None where the file has no other."""
    blocks = [file.read(_BLOCK_BYTES)]
    if not blocks[0].startswith((b"SIMPLE  =", b"XTENSION=")):
        return None  # the end, or what the standard calls special records
    while not _ends(blocks[-1]):
        blocks.append(file.read(_BLOCK_BYTES))
        if len(blocks[-1]) < _BLOCK_BYTES:
            raise DetectionsError("a FITS header without an end; fetch the file again")
        if len(blocks) * _BLOCK_BYTES > _MAX_HEADER:
            raise TooLargeError(f"a FITS header of more than {_MAX_HEADER:,} bytes; check the file")
    return fits.Header.fromstring(b"".join(blocks).translate(PLAIN))


def _ends(block: bytes) -> bool:
    return any(block[at : at + len(_END)] == _END for at in range(0, len(block), len(_END)))


def _data_bytes(header: fits.Header) -> int:
    """Return how many bytes follow a header, up to the next."""
    axes = [_count(header, f"NAXIS{n}") for n in range(1, _count(header, "NAXIS", _MAX_FIELDS) + 1)]
    if header.get("GROUPS") is True and axes[:1] == [0]:
        del axes[0]
    values = math.prod(axes) if axes else 0
    values = _count(header, "GCOUNT", default=1) * (_count(header, "PCOUNT") + values)
    n_bytes = abs(int(header.get("BITPIX", 8))) // 8 * values
    return n_bytes + -n_bytes % _BLOCK_BYTES


def _count(header: fits.Header, key: str, most: int | None = None, default: int = 0) -> int:
    """Return a number of things that a header announces."""
    value = header.get(key, default)
    if type(value) is not int or value < 0 or (most is not None and value > most):
        raise DetectionsError(
            f"its {key} is {str(value)[:100]!r}, which cannot be; check its header"
        )
    return value


def _skip(file: BinaryIO, n_bytes: int) -> None:
    """Go forwards, at most to the end."""
    if file.seekable():
        file.seek(n_bytes, io.SEEK_CUR)
        return
    while n_bytes > 0 and (content := file.read(min(n_bytes, _SKIP_BYTES))):
        n_bytes -= len(content)
