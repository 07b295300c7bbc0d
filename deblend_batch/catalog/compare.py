"""Whether two tables of catalogue rows say the same of the same pairs."""

from __future__ import annotations

import numpy as np
import pyarrow as pa

from deblend_batch.catalog.schema import is_carried, is_fitted

CUDA_TOLERANCE = 0.01
"""Largest difference of a flux that a GPU measured in bfloat16, as a share of the flux of its blend."""
_GIVEN = ("blend_id", "source_id", "neighbour_id", "role", "is_primary", "separation", "tile")
_PLACES = ("ra", "dec", "x", "y", "_healpix_29")


def tolerance_of(device: str) -> float:
    """Return how far a flux made on a torch device may differ when it is made again: on a CPU, not at all."""
    return CUDA_TOLERANCE if device.startswith("cuda") else 0.0


def differences(shard: pa.Table, again: pa.Table, tolerance: float) -> list[str]:
    """Name the columns in which two tables of the same pairs differ.

    Parameters
    ----------
    shard : pyarrow.Table
        Rows of a shard.
    again : pyarrow.Table
        The same rows, made again.
    tolerance : float
        Difference that a flux may have, as a share of the flux of its blend; 0 compares every bit of every
        column. Otherwise, of the columns that the model makes, the fluxes alone are compared.
    """
    given = (*_GIVEN, *(() if is_fitted(again.schema) else _PLACES))
    given += tuple(column.name for column in again.schema if is_carried(column))
    names = [name for name in again.schema.names if not tolerance or name in given]
    different = [
        name
        for name in names
        if name not in shard.schema.names or _bits(shard[name]) != _bits(again[name])
    ]
    different += [name for name in shard.schema.names if name not in again.schema.names]
    fluxes = [column.name for column in again.schema if _is_flux(column)] if tolerance else []
    return different + [
        name
        for name in fluxes
        if name not in shard.schema.names
        or _far(again["blend_id"], shard[name], again[name], tolerance)
    ]


def _is_flux(column: pa.Field) -> bool:
    if is_carried(column):
        return False
    return column.name.startswith("flux_") and not column.name.startswith(
        ("flux_err_", "flux_corr_")
    )


def _bits(column: pa.ChunkedArray) -> bytes:
    values = column.to_numpy()
    if values.dtype == object:
        return "\0".join(map(str, values.tolist())).encode()
    return bytes(values.tobytes())


def _far(
    blends: pa.ChunkedArray, before: pa.ChunkedArray, after: pa.ChunkedArray, tolerance: float
) -> bool:
    one, other = (column.to_numpy().astype(np.float64) for column in (before, after))
    if len(one) != len(other) or not np.array_equal(np.isnan(one), np.isnan(other)):
        return True
    _, blend = np.unique(blends.to_numpy(), return_inverse=True)
    total = np.bincount(blend, weights=np.nan_to_num(np.abs(other)))[blend]
    return bool((np.abs(one - other) > tolerance * total).any())
