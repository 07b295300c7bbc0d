"""Columns of the detection table on their way to the catalogue: beside the blends in their index, flat."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from deblend_batch.catalog.schema import shard_schema
from deblend_batch.config import DetectionsConfig
from deblend_batch.errors import ConfigError
from deblend_batch.tiling.blends import Blends

PREFIX = "carried_"
"""What the names of such columns begin with; a number for the column and one for the member follow."""

_NAME = b"name"


def check_names(
    reading: DetectionsConfig, bands: Sequence[str], more: Sequence[str] = (), *, fitted: bool
) -> None:
    """Refuse columns to carry that the catalogue has already: those of its schema, and ``more``."""
    names = (*shard_schema(bands, fitted=fitted).names, *more)
    taken = {name.lower(): name for name in names}
    for name in reading.carry:
        if name.lower() in taken:
            raise ConfigError(
                f"carry: the catalogue has a column {taken[name.lower()]!r} of its own; call {name!r} "
                "otherwise in the table, or leave it out"
            )


def beside(
    blends: Blends, ids: NDArray[np.int64], carried: pa.Table | None
) -> list[tuple[pa.Field, pa.Array]]:
    """Return columns that stand beside blends: for each that is carried one a member.

    Parameters
    ----------
    blends : Blends
        The blends.
    ids : ndarray of int64, shape (s,)
        Ids of the detections.
    carried : pyarrow.Table, optional
        Of the same detections.
    """
    if carried is None:
        return []
    order = np.argsort(ids)
    columns = []
    for member in range(blends.width):
        wanted = blends.source_id[:, member]
        at = np.minimum(np.searchsorted(ids[order], wanted), max(len(ids) - 1, 0))
        there = member < blends.n_members
        rows = pa.array(order[at] if len(ids) else at, mask=~there)
        for number, field in enumerate(carried.schema):
            metadata = {**(field.metadata or {}), _NAME: field.name.encode()}
            named = pa.field(f"{PREFIX}{number}_{member}", field.type, metadata=metadata)
            columns.append((named, carried[field.name].take(rows).combine_chunks()))
    return columns


def rows_of(beside_blends: pa.Table, blends: Blends) -> pa.Table | None:
    """Return what is carried for each member that is measured, in the order of the catalogue's rows.

    Parameters
    ----------
    beside_blends : pyarrow.Table
        What stands beside these blends.
    blends : Blends
        The blends.
    """
    firsts = [name for name in beside_blends.schema.names if name.endswith("_0")]
    if not firsts:
        return None
    n, rows = len(blends), np.flatnonzero(blends.is_measured.ravel())
    member, blend = rows % blends.width, rows // blends.width
    fields, arrays = [], []
    for first in firsts:
        stem = first.removesuffix("0")
        members = [beside_blends[f"{stem}{k}"].combine_chunks() for k in range(blends.width)]
        arrays.append(pa.concat_arrays(members).take(pa.array(member * n + blend)))
        field = beside_blends.schema.field(first)
        metadata = {key: value for key, value in field.metadata.items() if key != _NAME}
        fields.append(pa.field(field.metadata[_NAME].decode(), field.type, metadata=metadata))
    return pa.table(arrays, schema=pa.schema(fields))
