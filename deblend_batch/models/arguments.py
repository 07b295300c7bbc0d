"""What a caller may hand to a model: shapes and dtypes, checked before any work."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from torch import Tensor

from deblend_batch.errors import ModelError
from deblend_batch.models.staging import Array


def check_arrays(required: Mapping[str, Any], optional: Mapping[str, Any]) -> None:
    """Check that what a caller gave is arrays.

    Parameters
    ----------
    required, optional : mapping of str to object
        The arguments by name; an optional one may be None.
    """
    given = {name: rows for name, rows in optional.items() if rows is not None}
    for name, rows in {**required, **given}.items():
        if not isinstance(rows, np.ndarray | Tensor):
            raise ModelError(
                f"{name} is of type {type(rows).__name__}; give a NumPy array or a torch tensor"
            )


def check_batch_size(batch_size: int) -> int:
    """Check the number of rows in a batch.

    Raises
    ------
    ModelError
        If it is not at least 1.
    """
    if batch_size < 1:
        raise ModelError(f"batch_size is {batch_size}; it must be at least 1")
    return batch_size


def check_stamps(stamps: Array, size: int) -> int:
    """Check the stamps' shape.

    Parameters
    ----------
    stamps : array
        What the caller gave.
    size : int
        Edge of the stamps that the model takes, px.
    """
    shape = tuple(stamps.shape)
    if len(shape) != 3 or shape[1:] != (size, size):
        raise ModelError(f"stamps have shape {shape}; this model takes (n, {size}, {size})")
    return int(shape[0])


def check_rows(arrays: Mapping[str, Array], n: int) -> None:
    """Check the shapes of what goes with the stamps, and the dtypes of all."""
    for name, rows in arrays.items():
        shape = tuple(rows.shape)
        if name == "neighbours_yx":
            if len(shape) != 3 or shape[0] != n or shape[2] != 2:
                raise ModelError(f"neighbours_yx has shape {shape}; it must be ({n}, k, 2)")
        elif name != "stamps" and shape != (wanted := _shape_of(name, n)):
            raise ModelError(f"{name} has shape {shape}; it must be {wanted}")
        if not _is_real(rows):
            raise ModelError(f"{name} has dtype {rows.dtype}; it must be a real number type")


def _shape_of(name: str, n: int) -> tuple[int, ...]:
    return (n,) if name == "sigma" else (n, 2)


def _is_real(rows: Array) -> bool:
    return not rows.is_complex() if isinstance(rows, Tensor) else rows.dtype.kind in "fiub"
