"""Reading whole files, and files by ranges: what is read has a bound, whatever the file turns out to be."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import closing
from functools import partial
from typing import Any, BinaryIO, cast

from fsspec.caching import BaseCache

from deblend_batch.errors import IrregularFileError, TooLargeError
from deblend_batch.storage.failures import translate, translated
from deblend_batch.storage.filesystems import filesystem
from deblend_batch.storage.options import Options
from deblend_batch.storage.responses import status_of
from deblend_batch.storage.retrying import repeat
from deblend_batch.storage.urls import is_local, scheme_of

MAX_BYTES = 1 << 30
"""Size of a file that is read whole, where no smaller bound is known."""
_NO_SUCH_RANGE = 416
_TOGETHER_BYTES = 1 << 28
"""What files that are read together may take; one beyond its share is read alone, as its turn comes."""
_STREAMED = frozenset({"http", "https"})
"""Stores that need not know ranges: one is read as it comes, and left where enough has come."""
_STREAM_BYTES = 1 << 20


@translated
def read_bytes(
    url: str, options: Options | None = None, *, most: int = MAX_BYTES, within: str | None = None
) -> bytes:
    """Read a whole file.

    Parameters
    ----------
    url : str
        Of the file.
    options : mapping, optional
        Storage options.
    most : int
        Its largest size, bytes.
    within : str, optional
        Folder that a local file must be in, once links are followed.

    Returns
    -------
    bytes
        Its content.
    """
    fs, path = filesystem(url, options)
    _check_within(url, path, within)
    content = _start(fs, url, path, most + 1)
    if len(content) > most:
        raise TooLargeError(f"{url}: is larger than {most:,} bytes, which is no such file's size")
    return content


@translated
def read_start(url: str, n_bytes: int, options: Options | None = None) -> bytes:
    """Read the first bytes of a file; of a remote one no more is fetched.

    Of an empty one, which has no range, nothing.
    """
    fs, path = filesystem(url, options)
    return _start(fs, url, path, n_bytes)


def _start(fs: Any, url: str, path: str, n_bytes: int) -> bytes:
    if scheme_of(url) in _STREAMED:
        return _streamed(fs, path, n_bytes)
    try:
        return cast("bytes", fs.cat_file(path, start=0, end=n_bytes))
    except Exception as error:
        if status_of(error) != _NO_SUCH_RANGE:
            raise
        return b""


def _streamed(fs: Any, path: str, n_bytes: int) -> bytes:
    content = bytearray()
    # A size, which nobody looks at, since it would be asked for otherwise.
    with closing(fs.open(path, "rb", block_size=0, size=1)) as file:
        while block := file.read(min(n_bytes - len(content), _STREAM_BYTES)):
            content += block
    return bytes(content)


def read_many(
    urls: Sequence[str],
    options: Options | None = None,
    *,
    most: int | Sequence[int] = MAX_BYTES,
    within: str | None = None,
) -> Iterator[bytes | TooLargeError | IrregularFileError]:
    """Read whole files of one store, several at a time where the store allows.

    Parameters
    ----------
    urls : sequence of str
        Files of the same file system.
    options : mapping, optional
        Storage options.
    most : int, or a sequence of int
        The largest size of each, bytes.
    within : str, optional
        As for :func:`read_bytes`.

    Yields
    ------
    bytes, TooLargeError or IrregularFileError
        In the order of ``urls``: the content, or why it is none.
    """
    bounds = [most] * len(urls) if isinstance(most, int) else most
    share = _TOGETHER_BYTES // max(len(urls), 1)
    read = _read_together(urls, options, share + 1)
    for url, content, bound in zip(urls, read, bounds, strict=True):
        if content is not None and len(content) <= min(share, bound):
            yield content
            continue
        try:
            yield read_bytes(url, options, most=bound, within=within)
        except (TooLargeError, IrregularFileError) as error:
            yield error


def _read_together(
    urls: Sequence[str], options: Options | None, n_bytes: int
) -> Sequence[bytes | None]:
    """Read the starts of files; None for what has to be read alone, where its error names it."""
    if not urls or is_local(urls[0]) or scheme_of(urls[0]) in _STREAMED:
        return [None] * len(urls)
    fs, _ = filesystem(urls[0], options)
    paths = [filesystem(url, options)[1] for url in urls]
    try:
        found = fs.cat(paths, on_error="return", start=0, end=n_bytes)
    except Exception as error:
        raise translate(urls[0], error) from error
    contents = [found[path] for path in paths]
    return [content if isinstance(content, bytes) else None for content in contents]


@translated
def open_read(url: str, options: Options | None = None, *, within: str | None = None) -> BinaryIO:
    """Open a file for random reads; remote files are fetched by ranges.

    Parameters
    ----------
    url : str
        Of the file.
    options : mapping, optional
        Storage options.
    within : str, optional
        As for :func:`read_bytes`.
    """
    fs, path = filesystem(url, options)
    _check_within(url, path, within)
    file = fs.open(path, "rb")
    cache = getattr(file, "cache", None)
    if cache is not None:
        fetch = cache.fetcher
        cache.fetcher = lambda start, stop: repeat(partial(fetch, start, stop))
    return cast("BinaryIO", file)


def _check_within(url: str, path: str, within: str | None) -> None:
    if within is None or not is_local(url):
        return
    folder = os.path.realpath(filesystem(within)[1])
    if os.path.commonpath([folder, os.path.realpath(path)]) != folder:
        raise IrregularFileError(
            f"{url}: a link to a file outside of {within}; put the file itself in its place"
        )


def without_readahead(file: BinaryIO) -> BinaryIO:
    """Return a file of :func:`open_read` from which each range is fetched as it is asked for, and no more.

    For a reader that asks for large ranges at several places by turns: reading ahead at each would fetch the
    file many times.
    """
    remote = cast("Any", file)
    if getattr(remote, "cache", None) is not None:
        remote.cache = BaseCache(remote.blocksize, remote.cache.fetcher, remote.size)
    return file
