"""The columns of a VOTable: what is announced of them, checked before astropy makes anything of it."""

from __future__ import annotations

import io
import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any
from xml.sax.saxutils import quoteattr

import astropy.io.votable
import astropy.table
import numpy as np

from deblend_batch.detections.formats.arrow import from_astropy
from deblend_batch.detections.formats.bounds import MAX_COLUMNS, MAX_HEADER, PARQUET_INSTEAD
from deblend_batch.errors import DetectionsError, TooLargeError

Attributes = Mapping[str, str]
Cell = tuple[Any, bool]
"""A value, and whether it is masked."""

_MAX_ITEMS = 1 << 20
"""Values in a row: array sizes multiply, and astropy makes room for them before it reads any."""
_FIELD_ATTRIBUTES = ("ID", "name", "datatype", "arraysize", "unit")
_VALUES_ATTRIBUTES = ("ID", "null", "ref")


@dataclass
class Column:
    """A wanted column, and its values since they were last taken."""

    name: str
    field: Any
    unit: Any
    values: list[Any] = field(default_factory=list)
    masks: list[bool] = field(default_factory=list)

    def take(self) -> astropy.table.MaskedColumn:
        """Return the values, and forget them."""
        data = np.array(self.values, dtype=self.field.converter.format)
        taken = astropy.table.MaskedColumn(data, mask=np.array(self.masks, bool), unit=self.unit)
        self.values, self.masks = [], []
        return taken


@dataclass(frozen=True)
class Columns:
    """The columns of a table, by astropy, and those that are wanted of them."""

    fields: list[Any]
    config: Any
    """What astropy's converters want to know of the document."""
    wanted: Mapping[int, Column]
    names: list[str]
    """Of the wanted columns, in the order in which they are wanted."""


class Description:
    """The fields of a table as they are announced, of which a document of their own is made."""

    def __init__(self, version: str) -> None:
        self._version = version or "1.4"
        self._fields: list[str] = []
        self._size = 0
        self._n_items = 0

    def add_field(self, attributes: Attributes) -> None:
        """Take a field; refuse more, and larger ones, than a table has."""
        sizes = [int(digits) for digits in re.findall(r"\d+", attributes.get("arraysize", ""))]
        n_items = math.prod(sizes)
        if len(sizes) > 1 and not n_items:
            raise DetectionsError(f"an array of size {attributes['arraysize'][:100]!r}; remove it")
        self._n_items += n_items
        if self._n_items > _MAX_ITEMS or len(self._fields) >= MAX_COLUMNS:
            raise TooLargeError(
                f"a row of more than {_MAX_ITEMS:,} values or {MAX_COLUMNS:,} columns; keep those "
                "that are needed"
            )
        self._fields.append(self._text("FIELD", attributes, _FIELD_ATTRIBUTES))

    def add_values(self, attributes: Attributes) -> None:
        """Take the null value of the last field."""
        self._fields[-1] += self._text("VALUES", attributes, _VALUES_ATTRIBUTES) + "</VALUES>"

    def columns(self, choose: Callable[[Sequence[str]], list[str] | None]) -> Columns | None:
        """Have the wanted columns chosen; None where the table is not the one."""
        fields = "".join(f"{text}</FIELD>" for text in self._fields)
        document = (
            f"<VOTABLE version={quoteattr(self._version)}><RESOURCE><TABLE>{fields}</TABLE>"
            "</RESOURCE></VOTABLE>"
        )
        file = astropy.io.votable.parse(io.BytesIO(document.encode()), verify="ignore")
        element = next(iter(file.iter_tables()))
        table = element.to_table()
        names = choose(table.colnames)
        if names is None:
            return None
        from_astropy(table, names)
        at = {name: index for index, name in enumerate(table.colnames)}
        wanted = {
            at[name]: Column(name, element.fields[at[name]], table[name].unit) for name in names
        }
        return Columns(list(element.fields), file.config, wanted, names)

    def _text(self, name: str, attributes: Attributes, known: tuple[str, ...]) -> str:
        kept = [f"{key}={quoteattr(attributes[key])}" for key in known if key in attributes]
        text = f"<{' '.join([name, *kept])}>"
        self._size += len(text)
        if self._size > MAX_HEADER:
            raise TooLargeError(
                f"columns described in over {MAX_HEADER:,} bytes; {PARQUET_INSTEAD}"
            )
        return text
