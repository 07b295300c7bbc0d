"""Parquet tables: a file, a folder of files, a HATS catalogue or collection."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import BinaryIO

import pyarrow as pa
import pyarrow.compute as pc
import yaml

from deblend_batch import storage, yaml_text
from deblend_batch.detections.columns import shown
from deblend_batch.detections.formats import hats
from deblend_batch.detections.formats.arrow import check_frame
from deblend_batch.errors import DetectionsError, TooLargeError
from deblend_batch.parquet.file import Allowance, BoundedParquet, is_text
from deblend_batch.storage import Options

Choose = Callable[[Sequence[str]], Sequence[str]]

_MAX_FILES = 1_000_000
_ASTROPY = b"table_meta_yaml"
"""Where astropy writes what it knows of columns."""
_SUFFIXES = (".parquet", ".parq", ".pq")


def is_folder(url: str, options: Options | None = None) -> bool:
    """Tell whether a URL is a folder, or a prefix that holds objects.

    Parameters
    ----------
    url : str
        Local path or fsspec URL.
    options : mapping, optional
        fsspec storage options.
    """
    fs, path = storage.filesystem(url, options)
    try:
        return bool(fs.isdir(path))
    except Exception as error:
        raise storage.translate(url, error) from error


def scan_file(
    file: BinaryIO, choose: Choose, allowance: Allowance | None = None
) -> Iterator[pa.Table]:
    """Read the wanted columns of a Parquet file, about half a million rows at a time.

    Parameters
    ----------
    file : file object
        Seekable.
    choose : callable
        Picks columns from the file's names.
    allowance : Allowance, optional
        What the files of the table may unpack to, where there are several.
    """
    opened = BoundedParquet(storage.without_readahead(file))
    names = list(choose(opened.schema.names))
    for name in names:
        _check_kind(opened.schema, name)
    described = (opened.schema.metadata or {}).get(_ASTROPY, b"")
    check_frame(described.decode(errors="replace"), names)
    masks = _masks(opened.schema, names)
    units = _units(opened.schema)
    for part in opened.batches([*names, *masks.values()], allowance or Allowance()):
        yield _with_units(_masked(part, names, masks), units)


def _check_kind(schema: pa.Schema, name: str) -> None:
    if schema.names.count(name) > 1:
        raise DetectionsError(f"there are several columns {shown(name)!r}; give each its own name")
    kind = schema.field(name).type
    kind = kind.value_type if pa.types.is_dictionary(kind) else kind
    if pa.types.is_nested(kind):
        raise DetectionsError(
            f"column {shown(name)!r} is nested ({shown(kind)}), and those are left out; name one with a "
            "value a row"
        )
    tests = (
        pa.types.is_integer, pa.types.is_floating, pa.types.is_null, pa.types.is_boolean,
        pa.types.is_decimal, is_text,
    )  # fmt: skip
    if not any(test(kind) for test in tests):
        raise DetectionsError(
            f"column {shown(name)!r} holds {shown(kind)}; ids must be integer (int64) or text, the others "
            "numbers"
        )


def _masks(schema: pa.Schema, names: Sequence[str]) -> dict[str, str]:
    """Return the columns that say which values of others are masked: astropy writes two of each."""
    if _ASTROPY not in (schema.metadata or {}):
        return {}
    masks = {name: f"{name}.mask" for name in names}
    return {
        name: mask
        for name, mask in masks.items()
        if schema.names.count(mask) == 1 and pa.types.is_boolean(schema.field(mask).type)
    }


def _masked(part: pa.Table, names: Sequence[str], masks: Mapping[str, str]) -> pa.Table:
    """Return columns with null where another says that they are masked."""
    for name, mask in masks.items():
        column, field = part[name], part.schema.field(name)
        known = pc.if_else(part[mask], pa.scalar(None, column.type), column)
        part = part.set_column(part.schema.get_field_index(name), field.with_nullable(True), known)
    return part.select(list(names))


def _units(schema: pa.Schema) -> dict[str, bytes]:
    """Return the units of columns that astropy wrote, which Arrow's own fields do not tell."""
    try:
        described = yaml_text.records((schema.metadata or {}).get(_ASTROPY, b""), "datatype")
    except (yaml.YAMLError, ValueError):
        return {}
    return {
        row["name"]: row["unit"].encode() for row in described if {"name", "unit"} <= row.keys()
    }


def _with_units(part: pa.Table, units: Mapping[str, bytes]) -> pa.Table:
    fields = [
        field.with_metadata({b"unit": units[field.name], **(field.metadata or {})})
        if field.name in units
        else field
        for field in part.schema
    ]
    return part.cast(pa.schema(fields))


def scan_folder(url: str, choose: Choose, options: Options | None = None) -> Iterator[pa.Table]:
    """Read the wanted columns of all Parquet files of a folder, in the order of their names.

    Parameters
    ----------
    url : str
        A folder of Parquet files, at any depth, a HATS catalogue or a HATS collection.
    choose : callable
        Picks columns from each file's names.
    options : mapping, optional
        fsspec storage options.
    """
    allowance = Allowance()
    for part in data_files(url, options):
        with storage.open_read(part, options) as file:
            yield from scan_file(file, choose, allowance)


def data_files(url: str, options: Options | None = None) -> list[str]:
    """List the files of a folder that hold rows.

    Hidden files, files and folders that start with an underscore (``_metadata``) and, in a HATS
    catalogue, all but the leaves are left out; of a HATS collection only the primary table counts,
    so that margin caches do not bring rows twice. On a local disk a link must lead to a file of the same
    folder.

    Parameters
    ----------
    url : str
        The folder.
    options : mapping, optional
        fsspec storage options.
    """
    root = hats.primary_table(url, options)
    fs, path = storage.filesystem(root, options)
    is_hats = hats.is_catalogue(storage.list_names(root, options))
    try:
        found = sorted(str(name) for name in fs.find(path))
    except Exception as error:
        raise storage.translate(root, error) from error
    if len(found) > _MAX_FILES:
        raise TooLargeError(
            f"{url}: a folder of {len(found):,} files, more than {_MAX_FILES:,}; give the table's own folder"
        )
    base = path.rstrip("/")
    inner = [name[len(base) :].lstrip("/") for name in found]
    if not is_hats:
        hats.check_no_catalogues(inner, url)
    kept = [name for name in inner if _holds_rows(name, is_hats=is_hats)]
    if not kept:
        raise DetectionsError(
            f"{url}: no Parquet file in this folder; give a table or a folder of .parquet files"
        )
    if storage.is_local(root):
        _check_inside(_local_path(url), [os.path.join(path, name) for name in kept])
    return [storage.join(root, name) for name in kept]


def _check_inside(folder: str, paths: Sequence[str]) -> None:
    """Refuse links out of a folder, and what is no file: a pipe or a device has no end."""
    real = os.path.realpath(folder)
    for path in paths:
        target = os.path.realpath(path)
        if os.path.commonpath([real, target]) != real:
            raise DetectionsError(f"{path}: a link out of the folder; put the file itself there")
        if not os.path.isfile(target):
            raise DetectionsError(f"{path}: no file; remove it or give the table's own folder")


def _local_path(url: str) -> str:
    _, path = storage.filesystem(url)
    return path


def _holds_rows(name: str, *, is_hats: bool) -> bool:
    parts = name.split("/")
    if any(part.startswith((".", "_")) for part in parts):
        return False
    if is_hats:
        return any(part.startswith("Npix=") for part in parts)
    return parts[-1].lower().endswith(_SUFFIXES)
