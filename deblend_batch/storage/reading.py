"""Reading whole files, and files by ranges."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any, BinaryIO, cast

from fsspec.caching import BaseCache

from deblend_batch.storage.failures import translate, translated
from deblend_batch.storage.filesystems import filesystem
from deblend_batch.storage.options import Options
from deblend_batch.storage.responses import status_of
from deblend_batch.storage.retrying import repeat

_NO_SUCH_RANGE = 416


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


@translated
def read_start(url: str, n_bytes: int, options: Options | None = None) -> bytes:
    """Read the first bytes of a file; of a remote one no more is fetched, where its server knows ranges.

    Of an empty one, which has no range, nothing.

    Raises
    ------
    NotFoundError
        If there is no such file.
    StorageError
        If it cannot be read.
    """
    fs, path = filesystem(url, options)
    try:
        return cast("bytes", fs.cat_file(path, start=0, end=n_bytes))
    except Exception as error:
        if status_of(error) != _NO_SUCH_RANGE:
            raise
        return b""


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
    contents = _read_together(urls[0], fs, paths)
    found = [contents[path] for path in paths]
    # One that failed is asked for again on its own, and its error names it.
    return [
        content if isinstance(content, bytes) else read_bytes(url, options)
        for url, content in zip(urls, found, strict=True)
    ]


def _read_together(url: str, fs: Any, paths: list[str]) -> dict[str, Any]:
    try:
        return cast("dict[str, Any]", fs.cat(paths, on_error="return"))
    except Exception as error:
        raise translate(url, error) from error


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
    file = fs.open(path, "rb")
    cache = getattr(file, "cache", None)
    if cache is not None:
        fetch = cache.fetcher
        cache.fetcher = lambda start, stop: repeat(partial(fetch, start, stop))
    return cast("BinaryIO", file)


def without_readahead(file: BinaryIO) -> BinaryIO:
    """Return a file of :func:`open_read` from which each range is fetched as it is asked for, and no more.

    For a reader that asks for large ranges at several places by turns: reading ahead at each would fetch the
    file many times.
    """
    remote = cast("Any", file)
    if getattr(remote, "cache", None) is not None:
        remote.cache = BaseCache(remote.blocksize, remote.cache.fetcher, remote.size)
    return file
