"""Parquet tables: a file, a folder of files, a HATS catalogue or collection."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import BinaryIO

import pyarrow as pa
import pyarrow.parquet as pq

from deblend_batch import storage
from deblend_batch.errors import DetectionsError
from deblend_batch.storage import Options

Choose = Callable[[Sequence[str]], Sequence[str]]

_ROWS = 1 << 19
_SUFFIXES = (".parquet", ".parq", ".pq")


def is_folder(url: str, options: Options | None = None) -> bool:
    """Tell whether a URL is a folder, or a prefix that holds objects.

    Parameters
    ----------
    url : str
        Local path or fsspec URL.
    options : mapping, optional
        fsspec storage options.

    Returns
    -------
    bool
        False for a file, and for what does not exist.

    Raises
    ------
    StorageError
        If the store cannot be asked.
    """
    fs, path = storage.filesystem(url, options)
    try:
        return bool(fs.isdir(path))
    except Exception as error:
        raise storage.translate(url, error) from error


def scan_file(file: BinaryIO, choose: Choose) -> Iterator[pa.Table]:
    """Read the wanted columns of a Parquet file, about half a million rows at a time.

    Parameters
    ----------
    file : file object
        Seekable.
    choose : callable
        Picks columns from the file's names.

    Yields
    ------
    pyarrow.Table
        At least one, which may have no rows.
    """
    opened = pq.ParquetFile(file)
    names = list(choose(opened.schema_arrow.names))
    schema = pa.schema([opened.schema_arrow.field(name) for name in names])
    empty = True
    for batch in opened.iter_batches(_ROWS, columns=names):
        empty = False
        yield pa.Table.from_batches([batch]).select(names).cast(schema)
    if empty:
        yield schema.empty_table()


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

    Yields
    ------
    pyarrow.Table
        At least one.

    Raises
    ------
    DetectionsError
        If the folder holds no Parquet file.
    StorageError
        If the store refuses.
    """
    for part in data_files(url, options):
        with storage.open_read(part, options) as file:
            yield from scan_file(file, choose)


def data_files(url: str, options: Options | None = None) -> list[str]:
    """List the files of a folder that hold rows.

    Hidden files, files and folders that start with an underscore (``_metadata``) and, in a HATS
    catalogue, all but the leaves are left out; of a HATS collection only the primary table counts,
    so that margin caches do not bring rows twice.

    Parameters
    ----------
    url : str
        The folder.
    options : mapping, optional
        fsspec storage options.

    Returns
    -------
    list of str
        URLs, sorted.

    Raises
    ------
    DetectionsError
        If there is none.
    StorageError
        If the store cannot be listed.
    """
    root = _primary_table(url, options)
    fs, path = storage.filesystem(root, options)
    is_hats = "hats.properties" in storage.list_names(root, options)
    try:
        found = sorted(str(name) for name in fs.find(path))
    except Exception as error:
        raise storage.translate(root, error) from error
    base = path.rstrip("/")
    inner = [name[len(base) :].lstrip("/") for name in found]
    kept = [name for name in inner if _holds_rows(name, is_hats=is_hats)]
    if not kept:
        raise DetectionsError(
            f"{url}: no Parquet file in this folder; give a table or a folder of .parquet files"
        )
    return [storage.join(root, name) for name in kept]


def _holds_rows(name: str, *, is_hats: bool) -> bool:
    parts = name.split("/")
    if any(part.startswith((".", "_")) for part in parts):
        return False
    if is_hats:
        return any(part.startswith("Npix=") for part in parts)
    return parts[-1].lower().endswith(_SUFFIXES)


def _primary_table(url: str, options: Options | None) -> str:
    """Return the folder of a HATS collection's primary table; any other folder is itself."""
    names = storage.list_names(url, options)
    if "collection.properties" not in names:
        return url
    text = storage.read_bytes(storage.join(url, "collection.properties"), options).decode()
    for line in text.splitlines():
        key, _, value = line.partition("=")
        if key.strip() == "hats_primary_table_url":
            return storage.member(url, value.strip())
    raise DetectionsError(
        f"{url}: collection.properties names no hats_primary_table_url; give its catalogue's folder"
    )
