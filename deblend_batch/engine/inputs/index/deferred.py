"""The list of a field's sources that belong to other fields: beside its index, for users and verification."""

from __future__ import annotations

import io

import pyarrow as pa
import pyarrow.parquet as pq

from deblend_batch.catalog.output import Output
from deblend_batch.catalog.tables import read_table
from deblend_batch.engine.inputs.index.view import Deferred
from deblend_batch.errors import CatalogError
from deblend_batch.text import cause

_WRONG = (pa.ArrowException, OSError, ValueError, LookupError, TypeError, AttributeError)


def write_deferred(output: Output, name: str, deferred: Deferred) -> None:
    """Write the list of a field's index."""
    table = pa.table(
        {
            "source_id": deferred.source_id,
            "field": pa.array(deferred.field, pa.string()),
            "field_source_id": deferred.field_source_id,
        }
    )
    sink = io.BytesIO()
    pq.write_table(table, sink, compression="zstd")
    output.write(output.deferred_url(name), sink.getvalue())


def read_deferred(output: Output, name: str) -> Deferred:
    """Read the list of a field's index."""
    url = output.deferred_url(name)
    try:
        with output.open_read(url) as file:
            table = read_table(file)
        return Deferred(
            table["source_id"].to_numpy(),
            tuple(table["field"].to_pylist()),
            table["field_source_id"].to_numpy(),
        )
    except _WRONG as error:
        raise CatalogError(
            f"{url}: damaged ({cause(error)}); remove index/ and run again"
        ) from error
