"""VOTables, streamed: the parts of a document as they come."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from functools import partial
from typing import Any, BinaryIO

import pyarrow as pa

from deblend_batch.detections.formats.arrow import from_astropy
from deblend_batch.detections.formats.bounds import PARQUET_INSTEAD, Choose
from deblend_batch.detections.formats.choice import TableSearch
from deblend_batch.detections.formats.votable import xml
from deblend_batch.detections.formats.votable.columns import Attributes, Columns, Description
from deblend_batch.detections.formats.votable.rows import BinaryRows, TextRows
from deblend_batch.errors import DetectionsError

_PART_ROWS = 1 << 16
_ROW_ELEMENTS = ("TR", "TD", "STREAM")


def scan(file: BinaryIO, choose: Choose, which: str | None = None) -> Iterator[pa.Table]:
    """Read the wanted columns of a table of a VOTable, some thousand rows at a time.

    Parameters
    ----------
    file : file object
        Read forwards.
    choose : callable
        Picks columns from a table's names.
    which : str, optional
        Name, or number from 0, of the table; the one that has the columns if absent.
    """
    document = _Document(TableSearch(choose, which))
    steps = xml.parse(file, document.handlers)
    empty = True
    while _go_on(steps):
        if document.n_rows >= _PART_ROWS:
            empty = False
            yield document.part()
    document.search.finish()
    if empty or document.n_rows:
        yield document.part()


def _go_on(steps: Iterator[None]) -> bool:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # astropy warns of each slip in a VOTable and goes on
        return next(steps, False) is None


class _Document:
    """What a VOTable has said so far."""

    def __init__(self, search: TableSearch) -> None:
        self.handlers = xml.Handlers(
            {
                "VOTABLE": self._start_document,
                "TABLE": self._start_table,
                "FIELD": self._start_field,
                "VALUES": self._start_values,
                "DATA": self._start_data,
                "TABLEDATA": self._start_text,
                "BINARY": partial(self._start_binary, masked=False),
                "BINARY2": partial(self._start_binary, masked=True),
            },
            {
                "FIELD": self._end_field,
                "TABLE": self._end_table,
                "FITS": self._refuse_data,
                "PARQUET": self._refuse_data,
            },
            self._take_text,
        )
        self.search = search
        self._version = ""
        self._name, self._number = "", -1
        self._description: Description | None = None
        self._in_field = False
        self._columns: Columns | None = None
        self._open = False
        self._rows: TextRows | BinaryRows | None = None

    @property
    def n_rows(self) -> int:
        """Rows since the last part."""
        return self._rows.n_rows if self._rows else 0

    def part(self) -> pa.Table:
        """Return the rows since the last part."""
        assert self._columns is not None  # the search has found a table
        if self._rows:
            self._rows.n_rows = 0
        taken = {column.name: column.take() for column in self._columns.wanted.values()}
        return from_astropy(taken, self._columns.names)

    def _start_document(self, attributes: Attributes) -> None:
        self._version = attributes.get("version", self._version)

    def _start_table(self, attributes: Attributes) -> None:
        if "ref" in attributes:
            raise DetectionsError("a table that refers to another; give a file that holds its own")
        self._name = attributes.get("name") or attributes.get("ID") or ""
        self._number += 1
        passed = self.search.passes(self._name, self._number)
        self._description = None if passed else Description(self._version)

    def _start_field(self, attributes: Attributes) -> None:
        self._in_field = self._description is not None
        if self._description is not None:
            self._description.add_field(attributes)

    def _start_values(self, attributes: Attributes) -> None:
        if self._in_field and self._description is not None:
            self._description.add_values(attributes)

    def _end_field(self, _text: str) -> None:
        self._in_field = False

    def _start_data(self, _attributes: Attributes) -> None:
        self._describe()

    def _end_table(self, _text: str) -> None:
        self._describe()
        self._open = False

    def _describe(self) -> None:
        """Have the columns of the table chosen, once all are known."""
        description, self._description = self._description, None
        if description is None:
            return
        columns = description.columns(
            lambda names: self.search.columns(self._name, self._number, names)
        )
        if columns is not None:
            self._columns, self._open = columns, True

    def _start_text(self, _attributes: Attributes) -> None:
        self._describe()
        if self._open and self._columns is not None:
            self._rows = rows = TextRows(self._columns)
            self._handle(
                {"TR": rows.start_row, "TD": rows.start_cell},
                {"TR": rows.end_row, "TD": rows.end_cell},
            )
        else:
            self._handle({}, {})

    def _start_binary(self, _attributes: Attributes, *, masked: bool) -> None:
        self._describe()
        if self._open and self._columns is not None:
            self._rows = rows = BinaryRows(self._columns, masked=masked)
            self._handle({"STREAM": rows.start}, {"STREAM": rows.end})
        else:
            self._handle({}, {})

    def _handle(self, starts: dict[str, Any], ends: dict[str, Any]) -> None:
        """Have the rows of a table read, or, of one that is not the one, nobody look at them."""
        for handlers, chosen in ((self.handlers.starts, starts), (self.handlers.ends, ends)):
            for name in _ROW_ELEMENTS:
                handlers.pop(name, None)
            handlers.update(chosen)

    def _take_text(self, text: str) -> None:
        if self._rows and self._open:
            self._rows.feed(text)

    def _refuse_data(self, _text: str) -> None:
        if self._open:
            raise DetectionsError(
                f"its rows stand neither as TABLEDATA nor in BINARY; {PARQUET_INSTEAD}"
            )
