"""The rows of a VOTable, in text or in binary, as they come; astropy's converters read each value."""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping

from astropy.io.votable.converters import bitarray_to_bool

from deblend_batch.detections.formats.bounds import MAX_LINE, PARQUET_INSTEAD
from deblend_batch.detections.formats.votable.columns import Attributes, Cell, Column, Columns
from deblend_batch.errors import DetectionsError, TooLargeError

_ANYWHERE = (0, 0)
"""What astropy is told of a value's place in the file."""


class TextRows:
    """Rows of ``TABLEDATA``."""

    def __init__(self, columns: Columns) -> None:
        self.n_rows = 0
        self._n_columns = len(columns.fields)
        self._wanted = columns.wanted
        self._config = columns.config
        self._n_cells = 0
        self._column: Column | None = None
        self._base64 = False
        self._text = ""
        self._cells: list[tuple[Column, Cell]] = []

    def start_row(self, _attributes: Attributes) -> None:
        """Begin a row."""
        self._n_cells = 0
        self._cells.clear()

    def start_cell(self, attributes: Attributes) -> None:
        """Begin a value; of those that nobody wants only the number counts."""
        self._column = self._wanted.get(self._n_cells)
        self._base64 = attributes.get("encoding") == "base64"
        self._n_cells += 1

    def feed(self, text: str) -> None:
        """Take the beginning of a long value."""
        if self._column is not None:
            self._text += text
            if len(self._text) > MAX_LINE:
                raise TooLargeError(f"a value of column {self._column.name!r} that does not end")

    def end_cell(self, text: str) -> None:
        """Read the value, if it is wanted."""
        column = self._column
        if column is None:
            return
        if self._text:
            text, self._text = self._text + text, ""
        converter = column.field.converter
        if self._base64:
            cell: Cell = converter.binparse(io.BytesIO(base64.b64decode(text)).read)
        else:
            cell = converter.parse(text.strip(), self._config, _ANYWHERE)
        self._cells.append((column, cell))
        self._column = None

    def end_row(self, _text: str) -> None:
        """Take the row, if it is whole."""
        if self._n_cells != self._n_columns:
            raise DetectionsError(
                f"a row of {self._n_cells} values in a table of {self._n_columns} columns; "
                "check its rows"
            )
        for column, (value, masked) in self._cells:
            column.values.append(value)
            column.masks.append(masked)
        self.n_rows += 1


class BinaryRows:
    """Rows of ``BINARY``, or of ``BINARY2``, where each begins with its masks; cut out of base64."""

    def __init__(self, columns: Columns, *, masked: bool) -> None:
        self.n_rows = 0
        self._columns = columns
        self._mask_bytes = (len(columns.fields) + 7) // 8 if masked else 0
        self._open = False
        self._text = ""
        self._content = b""
        self._tried = 0
        self._at = 0

    def start(self, attributes: Attributes) -> None:
        """Begin the stream."""
        encoding = attributes.get("encoding", "base64")
        if encoding != "base64":
            raise DetectionsError(f"a STREAM encoded as {encoding[:100]!r}; {PARQUET_INSTEAD}")
        self._open = True

    def feed(self, text: str) -> None:
        """Take text, and read the rows that are complete."""
        if not self._open:
            return
        text = self._text + "".join(text.split())
        whole = len(text) // 4 * 4
        self._content += base64.b64decode(text[:whole])
        self._text = text[whole:]
        # A row that was not there in full is tried again when there is twice as much of it.
        if len(self._content) >= 2 * self._tried:
            self._read_rows()
        if len(self._content) > MAX_LINE:
            raise TooLargeError(f"a row of more than {MAX_LINE:,} bytes; check its array sizes")

    def end(self, text: str) -> None:
        """Take the last text; refuse a stream that ends within a row."""
        self.feed(text)
        self._open = False
        self._read_rows()
        if self._content or self._text:
            raise DetectionsError("its STREAM ends within a row; fetch the file again")

    def _read_rows(self) -> None:
        start = 0
        while self._row():
            if self._at == start:
                raise DetectionsError("its rows have no bytes; check its fields")
            start = self._at
            self.n_rows += 1
        self._content = self._content[start:]
        self._tried = len(self._content)
        self._at = 0

    def _row(self) -> bool:
        """Read a row, unless it is not there in full."""
        cells: list[tuple[Column, Cell]] = []
        try:
            masks = self._masks()
            for index, field in enumerate(self._columns.fields):
                value, masked = field.converter.binparse(self._read)
                if index in self._columns.wanted:
                    cells.append(
                        (self._columns.wanted[index], (value, bool(masked or masks.get(index))))
                    )
        except EOFError:
            return False
        for column, (value, masked) in cells:
            column.values.append(value)
            column.masks.append(masked)
        return True

    def _masks(self) -> Mapping[int, bool]:
        if not self._mask_bytes:
            return {}
        bits = bitarray_to_bool(self._read(self._mask_bytes), len(self._columns.fields))
        return dict(enumerate(bits.tolist()))

    def _read(self, n_bytes: int) -> bytes:
        end = self._at + n_bytes
        if end > len(self._content):
            raise EOFError
        content = self._content[self._at : end]
        self._at = end
        return content
