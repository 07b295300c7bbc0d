"""Columns of astropy as Arrow tables: masked values are null, a unit is in the field's metadata."""

from __future__ import annotations

from collections.abc import Sequence

import astropy.table
import numpy as np
import pyarrow as pa

from deblend_batch.errors import DetectionsError


def from_astropy(table: astropy.table.Table, names: Sequence[str]) -> pa.Table:
    """Return some columns of an astropy table."""
    arrays, fields = [], []
    for name in names:
        column = table[name]
        values = np.ma.asarray(column)
        data = np.asarray(values.data)
        if data.ndim != 1 or data.dtype.kind not in "biuf":
            raise DetectionsError(f"column {name!r} holds {data.dtype}{data.shape[1:] or ''}")
        native = np.ascontiguousarray(data, dtype=data.dtype.newbyteorder("="))
        mask = np.ma.getmaskarray(values)
        arrays.append(pa.array(native, mask=mask if mask.any() else None))
        unit = getattr(column, "unit", None)
        metadata = {"unit": str(unit)} if unit else None
        fields.append(pa.field(name, arrays[-1].type, metadata=metadata))
    return pa.Table.from_arrays(arrays, schema=pa.schema(fields))
