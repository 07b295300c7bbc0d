"""Making a field: arrays first, attributes last, so that a half-written one is never read."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterable, Mapping
from dataclasses import asdict
from datetime import UTC, datetime
from typing import Any

import numpy as np
import zarr
from zarr.codecs import BloscCodec, Crc32cCodec

from deblend_batch import storage
from deblend_batch.arrays import stores
from deblend_batch.errors import FieldError, NotFoundError, OutputConflictError, StorageError
from deblend_batch.field.meta import UNFINISHED_ATTRIBUTE, FieldMeta
from deblend_batch.field.psf.members import write_psf
from deblend_batch.field.psf.varying import FieldPsf
from deblend_batch.field.references import ATTRIBUTE, Reference
from deblend_batch.storage import Options

CHUNK_PX = 512
"""Edge of the chunks that a read decodes; small, since a tile's halo is what makes reads dear."""
SHARD_PX = 4096
"""Edge of a stored object; write whole shards, a part of one rewrites all of it."""


def check_target(
    url: str, options: Options | None = None, *, overwrite: bool, inputs: Iterable[str] = ()
) -> None:
    """Refuse a place where a field must not be written.

    Parameters
    ----------
    url : str
        Where; local path or fsspec URL.
    options : mapping, optional
        fsspec storage options.
    overwrite : bool
        Allow a finished field; an unfinished one is always allowed.
    inputs : iterable of str
        What is read meanwhile.
    """
    storage.check_apart(url, inputs, options, key="field")
    fs, path = storage.filesystem(url, options)
    if storage.is_local(url):
        _check_folder(url, path)
    names = storage.list_names(url, options)
    is_file = fs.isfile(path)
    if not names and not is_file:
        return
    if is_file or not stores.is_zarr(names):
        raise OutputConflictError(f"{url}: is something else than a field; choose another URL")
    if not overwrite and not _is_unfinished(url, options):
        raise OutputConflictError(f"{url}: exists already; choose another URL, or use --overwrite")


def create_field(
    url: str,
    meta: FieldMeta,
    shape_yx: tuple[int, int],
    *,
    with_variance: bool,
    mask: bool = False,
    psf: FieldPsf | None = None,
    options: Options | None = None,
    attributes: Mapping[str, Any] | None = None,
    references: Mapping[str, Reference] | None = None,
    overwrite: bool = False,
) -> zarr.Group:
    """Create the arrays of a field; it cannot be opened before :func:`finish_field`.

    Parameters
    ----------
    url : str
        Where; local path or fsspec URL.
    meta : FieldMeta
        Gives the number of bands; written by :func:`finish_field`.
    shape_yx : tuple of int
        Rows and columns.
    with_variance : bool
        Create ``variance``, float32 (band, y, x).
    mask : bool
        Create ``mask``, (band, y, x), of the smallest unsigned type that has all of ``meta.mask_bits``.
    psf : FieldPsf, optional
        Written where it varies, as ``psf`` and ``psf_fwhm_map``.
    options : mapping, optional
        fsspec storage options.
    attributes : mapping, optional
        More attributes of the group, such as where the pixels come from; JSON-able.
    references : mapping, optional
        Members that lie elsewhere; if given no array is made for pixels.
    overwrite : bool
        Replace a finished field; an unfinished one is always replaced.
    """
    FieldMeta.from_attributes(meta.to_attributes(), url)
    check_target(url, options, overwrite=overwrite)
    first = {**(attributes or {}), UNFINISHED_ATTRIBUTE: True}
    if references:
        first[ATTRIBUTE] = {name: asdict(each) for name, each in references.items()}
    group = stores.create_group(url, options, first)
    try:
        if not references:
            _create_arrays(group, meta, shape_yx, with_variance=with_variance, mask=mask)
        if psf is not None:
            write_psf(group, psf, _compressors("float32"))
    except Exception as error:
        raise storage.translate(url, error, writing=True) from error
    return group


def finish_field(group: zarr.Group, meta: FieldMeta) -> None:
    """Write the attributes, the last act of making a field: from here on it can be opened."""
    kept = {key: value for key, value in group.attrs.items() if key != UNFINISHED_ATTRIBUTE}
    try:
        # When it was made is part of what it is: a run must not resume on other pixels of the same name.
        stamp = {"created_at": datetime.now(UTC).isoformat()}
        group.attrs.put({**kept, **stamp, **meta.to_attributes()})
    except Exception as error:
        raise storage.translate(str(group.store), error, writing=True) from error


def _check_folder(url: str, path: str) -> None:
    """Write and remove a file beside the field's place: a refusal must not cost a pass over the pixels."""
    folder = os.path.dirname(os.path.abspath(path))
    try:
        os.makedirs(folder, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except FileExistsError as error:
        raise StorageError(f"{url}: {folder} is a file; write to another path") from error
    except OSError as error:
        raise storage.translate(url, error, writing=True) from error


def _is_unfinished(url: str, options: Options | None) -> bool:
    try:
        return UNFINISHED_ATTRIBUTE in stores.open_group(url, options).attrs
    except (FieldError, NotFoundError):
        return False


def _create_arrays(
    group: zarr.Group,
    meta: FieldMeta,
    shape_yx: tuple[int, int],
    *,
    with_variance: bool,
    mask: bool,
) -> None:
    _create_array(group, "image", "float32", meta, shape_yx)
    if with_variance:
        _create_array(group, "variance", "float32", meta, shape_yx)
    if mask:
        _create_array(group, "mask", _mask_type(meta), meta, shape_yx)


def _create_array(
    group: zarr.Group, name: str, dtype: str, meta: FieldMeta, shape_yx: tuple[int, int]
) -> None:
    chunk_yx = tuple(min(CHUNK_PX, edge) for edge in shape_yx)
    shard_yx = tuple(
        min(SHARD_PX, -(-edge // chunk) * chunk)
        for edge, chunk in zip(shape_yx, chunk_yx, strict=True)
    )
    group.create_array(
        name,
        shape=(len(meta.bands), *shape_yx),
        dtype=dtype,
        chunks=(1, *chunk_yx),
        shards=(1, *shard_yx) if shard_yx != chunk_yx else None,
        compressors=_compressors(dtype),
        fill_value=float("nan") if dtype == "float32" else 0,
        dimension_names=("band", "y", "x"),
    )


def _compressors(dtype: str) -> tuple[BloscCodec, Crc32cCodec]:
    # Blosc alone decodes many a damaged chunk into wrong pixels without a word.
    blosc = BloscCodec(cname="lz4", shuffle="shuffle", typesize=np.dtype(dtype).itemsize)
    return blosc, Crc32cCodec()


def _mask_type(meta: FieldMeta) -> str:
    return "uint8" if meta.mask_bits is None else meta.mask_bits.dtype.name
