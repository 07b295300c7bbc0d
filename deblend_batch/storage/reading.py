"""Reading whole files, and files by ranges."""

from __future__ import annotations

from collections.abc import Sequence
from typing import BinaryIO, cast

from deblend_batch.storage.failures import translate, translated
from deblend_batch.storage.filesystems import Options, filesystem


@translated
def read_bytes(url: str, options: Options | None = None) -> bytes:
    """Read a whole file.

    Raises
    ------
    NotFoundError
        If there is no such file.
    StorageError
        If it cannot be read.
    """
    fs, path = filesystem(url, options)
    return cast("bytes", fs.cat_file(path))


def read_many(urls: Sequence[str], options: Options | None = None) -> list[bytes]:
    """Read whole files of one store, several at a time where the store allows.

    Parameters
    ----------
    urls : sequence of str
        Files of the same file system.
    options : mapping, optional
        Storage options.

    Returns
    -------
    list of bytes
        In the order of ``urls``.

    Raises
    ------
    NotFoundError
        If one does not exist.
    StorageError
        If one cannot be read.
    """
    if not urls:
        return []
    fs, _ = filesystem(urls[0], options)
    paths = [filesystem(url, options)[1] for url in urls]
    try:
        content = fs.cat(paths, on_error="raise")
    except Exception as error:
        raise translate(urls[0], error) from error
    return [content] if isinstance(content, bytes) else [content[path] for path in paths]


@translated
def open_read(url: str, options: Options | None = None) -> BinaryIO:
    """Open a file for random reads; remote files are fetched by ranges.

    Raises
    ------
    NotFoundError
        If there is no such file.
    StorageError
        If it cannot be read.
    """
    fs, path = filesystem(url, options)
    return cast("BinaryIO", fs.open(path, "rb"))
