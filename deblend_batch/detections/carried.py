"""Columns of a detection table that go through to the catalogue as they are."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import pyarrow as pa
import pyarrow.compute as pc

from deblend_batch.detections.columns import shown
from deblend_batch.detections.texts import trimmed
from deblend_batch.errors import DetectionsError
from deblend_batch.parquet.file import is_text

SOURCE_NAME = "source_name"
"""The catalogue's column of ids that are text, or made of several columns."""


def carried_columns(
    part: pa.Table, carry: Sequence[str], texts: Mapping[str, pa.Array], url: str
) -> pa.Table | None:
    """Return what goes through of a part of a table; None where nothing does.

    Parameters
    ----------
    part : pyarrow.Table
        The part.
    carry : sequence of str
        Names of its columns.
    texts : mapping of str to pyarrow.Array
        Columns of ours that stand before them.
    url : str
        The table, for messages.
    """
    if not carry and not texts:
        return None
    fields = [pa.field(name, pa.string()) for name in texts]
    arrays: list[pa.Array | pa.ChunkedArray] = list(texts.values())
    for name in dict.fromkeys(carry):
        column = _plain(part[name], name, url)
        arrays.append(column)
        unit = (part.schema.field(name).metadata or {}).get(b"unit")
        fields.append(pa.field(name, column.type, metadata={b"unit": unit} if unit else None))
    return pa.table(arrays, schema=pa.schema(fields))


def _plain(column: pa.ChunkedArray, name: str, url: str) -> pa.ChunkedArray:
    """Return a column as what every reader of a catalogue knows: integers, floats, truths or strings."""
    if pa.types.is_dictionary(column.type):
        column = pc.cast(column, column.type.value_type)
    kind = column.type
    if pa.types.is_decimal(kind):
        return pc.cast(column, pa.float64())
    if is_text(kind):
        return trimmed(column, name, f"{url}: carry")
    if pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_boolean(kind):
        return column
    if pa.types.is_null(kind):
        return pc.cast(column, pa.float64())
    raise DetectionsError(
        f"{url}: carry: column {shown(name)!r} holds {shown(kind)}; numbers, texts and truths can be carried"
    )
