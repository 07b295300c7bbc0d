"""VOTables, streamed: the parts of a document as they come."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from functools import partial
from typing import BinaryIO

import pyarrow as pa

from deblend_batch.detections import xml
from deblend_batch.detections.arrow import from_astropy
from deblend_batch.detections.bounds import PARQUET_INSTEAD, Choose
from deblend_batch.detections.votable_columns import Attributes, Columns, Description
from deblend_batch.detections.votable_rows import BinaryRows, TextRows
from deblend_batch.errors import DetectionsError

_PART_ROWS = 1 << 16


def scan(file: BinaryIO, choose: Choose) -> Iterator[pa.Table]:
    """Read the wanted columns of a VOTable with one table, some thousand rows at a time."""
    document = _Document(choose)
    steps = xml.parse(file, document.handlers)
    empty = True
    while _go_on(steps):
        if document.n_rows >= _PART_ROWS:
            empty = False
            yield document.part()
    if empty or document.n_rows:
        yield document.part()


def _go_on(steps: Iterator[None]) -> bool:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # astropy warns of each slip in a VOTable and goes on
        return next(steps, False) is None


class _Document:
    """What a VOTable has said so far."""

    def __init__(self, choose: Choose) -> None:
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
                "FITS": _refuse_data,
                "PARQUET": _refuse_data,
            },
            self._take_text,
        )
        self._choose = choose
        self._description = Description()
        self._in_field = False
        self._columns: Columns | None = None
        self._rows: TextRows | BinaryRows | None = None

    @property
    def n_rows(self) -> int:
        """Rows since the last part."""
        return self._rows.n_rows if self._rows else 0

    def part(self) -> pa.Table:
        """Return the rows since the last part."""
        if self._columns is None:
            raise DetectionsError("this document holds no table; give the catalogue's file")
        if self._rows:
            self._rows.n_rows = 0
        taken = {column.name: column.take() for column in self._columns.wanted.values()}
        return from_astropy(taken, self._columns.names)

    def _start_document(self, attributes: Attributes) -> None:
        self._description.version = attributes.get("version", self._description.version)

    def _start_table(self, attributes: Attributes) -> None:
        if self._columns or "ref" in attributes:
            raise DetectionsError("several tables in one document; give a file that holds one")

    def _start_field(self, attributes: Attributes) -> None:
        self._in_field = True
        self._description.add_field(attributes)

    def _start_values(self, attributes: Attributes) -> None:
        if self._in_field:
            self._description.add_values(attributes)

    def _end_field(self, _text: str) -> None:
        self._in_field = False

    def _start_data(self, _attributes: Attributes) -> None:
        self._describe()

    def _end_table(self, _text: str) -> None:
        self._describe()

    def _describe(self) -> Columns:
        """Have the columns chosen, once all are known."""
        if self._columns is None:
            self._columns = self._description.columns(self._choose)
        return self._columns

    def _start_text(self, _attributes: Attributes) -> None:
        self._rows = rows = TextRows(self._describe())
        self.handlers.starts.update(TR=rows.start_row, TD=rows.start_cell)
        self.handlers.ends.update(TR=rows.end_row, TD=rows.end_cell)

    def _start_binary(self, _attributes: Attributes, *, masked: bool) -> None:
        self._rows = rows = BinaryRows(self._describe(), masked=masked)
        self.handlers.starts.update(STREAM=rows.start)
        self.handlers.ends.update(STREAM=rows.end)

    def _take_text(self, text: str) -> None:
        if self._rows:
            self._rows.feed(text)


def _refuse_data(_text: str) -> None:
    raise DetectionsError(f"its rows stand neither as TABLEDATA nor in BINARY; {PARQUET_INSTEAD}")
