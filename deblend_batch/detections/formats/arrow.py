"""Columns of astropy as Arrow tables: masked values are null, a unit is in the field's metadata."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

import astropy.table
import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from deblend_batch.errors import DetectionsError

_FRAME = re.compile(r"^[\s#]*(?:COMMENT)?\s*frame: *(\w+)", re.MULTILINE)


def from_astropy(
    table: astropy.table.Table | Mapping[str, astropy.table.Column], names: Sequence[str]
) -> pa.Table:
    """Return some columns of an astropy table: numbers, truths and texts."""
    arrays, fields = [], []
    for name in names:
        column = table[name]
        values = np.ma.asarray(column)
        data = np.asarray(values.data)
        mask = np.ma.getmaskarray(values)
        if data.ndim != 1 or data.dtype.kind not in "biufSUO":
            hint = f", several a row; name one of them, {name}[0]" if data.ndim == 2 else ""
            raise DetectionsError(f"column {name!r} holds {data.dtype}{data.shape[1:] or ''}{hint}")
        arrays.append(_array(name, data, mask if mask.any() else None))
        unit = getattr(column, "unit", None)
        metadata = {"unit": str(unit)} if unit else None
        fields.append(pa.field(name, arrays[-1].type, metadata=metadata))
    return pa.Table.from_arrays(arrays, schema=pa.schema(fields))


def check_frame(described: str, names: Sequence[str]) -> None:
    """Refuse sky coordinates of another frame, in what astropy writes of columns that it has taken apart."""
    frames = {frame for frame in _FRAME.findall(described) if frame != "icrs"}
    if frames and any(name.endswith((".ra", ".dec")) for name in names):
        raise DetectionsError(
            f"its sky coordinates are of frame {min(frames)[:60]!r}; write them as ICRS (SkyCoord.icrs)"
        )


def _array(name: str, data: NDArray[Any], mask: NDArray[np.bool_] | None) -> pa.Array:
    if data.dtype.kind in "biuf":
        native = np.ascontiguousarray(data, dtype=data.dtype.newbyteorder("="))
        return pa.array(native, mask=mask)
    texts = [
        value.decode(errors="replace") if isinstance(value, bytes) else value for value in data
    ]
    if not all(value is None or isinstance(value, str) for value in texts):
        raise DetectionsError(f"column {name!r} holds objects, not numbers or texts")
    return pa.array(texts, pa.string(), mask=mask)
