"""Zarr groups of the simulator: marked complete last, opened only then, never put in another's place."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from contextlib import suppress
from typing import Any

import zarr

from deblend_batch import storage
from deblend_batch.arrays import stores
from deblend_batch.arrays.bounds import bounded
from deblend_batch.errors import ConfigError, FieldError, NotFoundError, OutputConflictError
from deblend_batch.storage import Options

_UNFINISHED, _COMPLETE = 0, 1
_MAX_ROW_BYTES = 1 << 26
"""Of one galaxy or pair: 80 times what three stamps of 256 x 256 pixels take."""


def check_free(
    url: str,
    marker: str,
    options: Options | None,
    *,
    overwrite: bool,
    inputs: Iterable[str] = (),
) -> None:
    """Refuse a URL where :func:`create_group` would: known before hours of drawing."""
    storage.check_apart(url, inputs, options, key="data set")
    state = _state(url, marker, options)
    if state == _COMPLETE and not overwrite:
        raise OutputConflictError(f"{url}: exists already; choose another URL, or use --overwrite")


def create_group(
    url: str,
    marker: str,
    attributes: Mapping[str, Any],
    options: Options | None,
    *,
    overwrite: bool,
) -> zarr.Group:
    """Create a group that counts as unfinished until :func:`finish_group`.

    Parameters
    ----------
    url : str
        Local path or fsspec URL.
    marker : str
        Attribute that says what the group is and whether it is complete.
    attributes : mapping
        Further attributes, JSON-able.
    options : mapping, optional
        fsspec storage options.
    overwrite : bool
        Replace a complete group of the same kind; an unfinished one is always replaced.
    """
    check_free(url, marker, options, overwrite=overwrite)
    return stores.create_group(url, options, {**attributes, marker: _UNFINISHED})


def _state(url: str, marker: str, options: Options | None) -> int:
    """Tell whether ``url`` is free or holds an unfinished or a complete group; refuse anything else."""
    fs, path = storage.filesystem(url, options)
    state: object = None
    if not fs.isfile(path):
        if not storage.list_names(url, options):
            return _UNFINISHED
        with suppress(FieldError, NotFoundError):
            state = stores.open_group(url, options).attrs.get(marker)
    if state not in {_UNFINISHED, _COMPLETE}:
        raise OutputConflictError(f"{url}: holds something else; choose another URL")
    return _COMPLETE if state == _COMPLETE else _UNFINISHED


def finish_group(group: zarr.Group, marker: str) -> None:
    """Mark a group as complete; the last act of making it."""
    group.attrs[marker] = _COMPLETE


def open_group(
    url: str, marker: str, what: str, remedy: str, options: Options | None = None
) -> zarr.Group:
    """Open a complete group for reading.

    Parameters
    ----------
    url : str
        Local path or fsspec URL.
    marker : str
        Attribute that says what the group is and whether it is complete.
    what, remedy : str
        What it should be and how to make one, for messages.
    options : mapping, optional
        fsspec storage options.
    """
    try:
        group = stores.open_group(url, options)
    except NotFoundError as error:
        raise NotFoundError(f"{url}: no {what} here; {remedy}") from error
    if group.attrs.get(marker) != _COMPLETE:
        raise ConfigError(f"{url}: not a complete {what} (attribute '{marker}'); {remedy}")
    return group


def open_array(group: zarr.Group, url: str, name: str, remedy: str) -> zarr.Array[Any]:
    """Open an array of a group that anyone may have made, so that a row of it takes little memory."""
    array = stores.open_member(group, url, name)
    if array is None:
        raise ConfigError(f"{url}: array {name!r} is missing; {remedy}")
    size = math.prod(array.shape[1:]) * array.dtype.itemsize
    if size > _MAX_ROW_BYTES:
        raise ConfigError(
            f"{url}: array {name!r} has shape {array.shape}, rows of more than {_MAX_ROW_BYTES:,} bytes; "
            f"{remedy}"
        )
    return bounded(array, url, name, remedy)
