"""Files in any store that fsspec speaks: the only module that opens, writes and lists them.

A URL is a local path or ``scheme://...``. Writes are whole or absent: a local file is written beside its
place and renamed, an object is one put.
"""

from __future__ import annotations

import errno
import hashlib
import os
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import wraps
from typing import Any, BinaryIO, ParamSpec, Self, TypeVar, cast

import fsspec

from deblend_batch.errors import NotFoundError, StorageError, TransientStorageError

Options = Mapping[str, Any]
P = ParamSpec("P")
T = TypeVar("T")

_EXTRA_OF_SCHEME = {
    "s3": "s3",
    "s3a": "s3",
    "gs": "gcs",
    "gcs": "gcs",
    "az": "azure",
    "abfs": "azure",
}


def scheme_of(url: str) -> str:
    """Return the scheme of ``url``, ``"file"`` for a plain path."""
    return url.split("://", 1)[0] if "://" in url else "file"


def is_local(url: str) -> bool:
    """Tell whether ``url`` names a file of this machine."""
    return scheme_of(url) in {"file", "local"}


def join(url: str, *parts: str) -> str:
    """Append ``parts`` to ``url`` with single slashes."""
    return "/".join([url.rstrip("/"), *[part.strip("/") for part in parts]])


def name_of(url: str) -> str:
    """Return the last part of ``url``, without slashes."""
    return url.rstrip("/").rsplit("/", 1)[-1]


def filesystem(url: str, options: Options | None = None) -> tuple[Any, str]:
    """Open the file system of a URL.

    Parameters
    ----------
    url : str
        Local path or fsspec URL.
    options : mapping, optional
        fsspec ``storage_options``; they apply to remote stores only.

    Returns
    -------
    fs : fsspec.AbstractFileSystem
        The file system.
    path : str
        The path inside it.

    Raises
    ------
    StorageError
        If no installed package speaks the scheme.
    """
    scheme = scheme_of(url)
    try:
        return cast(
            "tuple[Any, str]",
            fsspec.core.url_to_fs(url, **({} if is_local(url) else dict(options or {}))),
        )
    except ImportError as error:
        extra = _EXTRA_OF_SCHEME.get(scheme)
        remedy = f"pip install 'deblend-batch[{extra}]'" if extra else str(error)
        raise StorageError(f"{url}: cannot open {scheme}:// URLs here; {remedy}") from error
    except ValueError as error:
        raise StorageError(
            f"{url}: {error}; use a local path, s3://, gs://, az:// or http(s)://"
        ) from error


def _translated(function: Callable[P, T]) -> Callable[P, T]:
    """Turn a store's exceptions into one-line errors that name the URL (the first argument)."""

    @wraps(function)
    def call(*args: P.args, **kwargs: P.kwargs) -> T:
        try:
            return function(*args, **kwargs)
        except (FileExistsError, NotFoundError, StorageError):
            raise
        except Exception as error:
            raise translate(str(args[0]), error) from error

    return call


def translate(url: str, error: Exception) -> Exception:
    """Return the one-line error that a store's exception means to the user.

    Parameters
    ----------
    url : str
        What was being read or written.
    error : Exception
        What the store raised.

    Returns
    -------
    Exception
        A :class:`NotFoundError` or :class:`StorageError` for a store's failure; ``error`` itself otherwise.
    """
    if isinstance(error, FileNotFoundError | NotADirectoryError):
        return NotFoundError(f"{url}: no such file or object; check the URL")
    if isinstance(error, PermissionError):
        return StorageError(
            f"{url}: permission denied; check the owner, the mode or the credentials"
        )
    if isinstance(error, OSError) and error.errno in {errno.ENOSPC, errno.EDQUOT}:
        return StorageError(f"{url}: no space left on the device; free some and run again")
    if isinstance(error, OSError) and error.errno in {errno.EROFS, errno.EISDIR}:
        return StorageError(f"{url}: {error.strerror}; check the path")
    module = type(error).__module__.split(".")[0]
    if isinstance(error, OSError | TimeoutError) or module in {
        "aiohttp",
        "botocore",
        "aiobotocore",
        "s3fs",
    }:
        first_line = (str(error) or type(error).__name__).splitlines()[0]
        return TransientStorageError(
            f"{url}: {first_line}; check the URL, the network and the credentials"
        )
    return error


@_translated
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


@_translated
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


@_translated
def write_bytes(url: str, data: bytes, options: Options | None = None) -> None:
    """Write a whole file so that a reader sees the old content, the new content, never a part.

    Raises
    ------
    StorageError
        If the store refuses: no permission, no space, no network.
    """
    fs, path = filesystem(url, options)
    if not is_local(url):
        fs.pipe_file(path, data)
        return
    with _whole_local_file(path, data) as temporary:
        temporary.rename_to(path)


@_translated
def create_bytes(url: str, data: bytes, options: Options | None = None) -> bool:
    """Write a whole file only where none exists, atomically.

    Returns
    -------
    bool
        False if the file already existed; it is then left as it was.

    Raises
    ------
    StorageError
        If the store refuses.
    """
    fs, path = filesystem(url, options)
    try:
        if is_local(url):
            with _whole_local_file(path, data) as temporary:
                os.link(temporary.path, path)
        else:
            fs.pipe_file(path, data, mode="create")
    except FileExistsError:
        return False
    except OSError as error:
        if _precondition_failed(error):
            return False
        raise
    return True


def _precondition_failed(error: OSError) -> bool:
    """Tell whether an S3 server refused to create what exists; s3fs knows it of AWS's own wording only."""
    response = getattr(error.__cause__, "response", None) or {}
    return bool(response.get("ResponseMetadata", {}).get("HTTPStatusCode") == 412)


class _whole_local_file:  # noqa: N801
    """A complete, synced temporary file beside its final place; removed unless renamed."""

    def __init__(self, path: str, data: bytes) -> None:
        folder = os.path.dirname(path) or "."
        try:
            os.makedirs(folder, exist_ok=True)
        except (FileExistsError, NotADirectoryError) as error:
            raise StorageError(f"{path}: {folder} is under a file; give another path") from error
        handle, self.path = tempfile.mkstemp(prefix=".tmp-", dir=folder)
        try:
            with os.fdopen(handle, "wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            os.chmod(self.path, 0o666 & ~_umask())
        except BaseException:
            os.unlink(self.path)
            raise

    def __enter__(self) -> Self:
        return self

    def rename_to(self, path: str) -> None:
        os.replace(self.path, path)

    def __exit__(self, *_: object) -> None:
        if os.path.exists(self.path):
            os.unlink(self.path)


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


@_translated
def exists(url: str, options: Options | None = None) -> bool:
    """Tell whether ``url`` is a file or a folder.

    Raises
    ------
    StorageError
        If the store cannot be asked.
    """
    fs, path = filesystem(url, options)
    return bool(fs.exists(path))


@_translated
def list_names(url: str, options: Options | None = None) -> list[str]:
    """List the names in a folder, sorted; an absent folder is empty.

    Raises
    ------
    StorageError
        If the store cannot be listed.
    """
    fs, path = filesystem(url, options)
    fs.invalidate_cache(path)
    try:
        entries = fs.ls(path, detail=False)
    except FileNotFoundError:
        return []
    names = {name_of(str(entry)) for entry in entries}
    return sorted(name for name in names - {name_of(path)} if not name.startswith(".tmp-"))


@_translated
def expand(url: str, options: Options | None = None) -> list[str]:
    """Expand a glob to URLs, sorted; a URL without wildcards stands for itself.

    Raises
    ------
    StorageError
        If the store cannot be listed.
    """
    if not any(mark in url for mark in "*?["):
        return [url]
    fs, path = filesystem(url, options)
    found = sorted(str(match) for match in fs.glob(path))
    return found if is_local(url) else [fs.unstrip_protocol(match) for match in found]


@_translated
def remove(url: str, options: Options | None = None) -> None:
    """Remove one file; an absent one is no error.

    Raises
    ------
    StorageError
        If the store refuses.
    """
    fs, path = filesystem(url, options)
    try:
        fs.rm_file(path)
    except FileNotFoundError:
        return


@_translated
def remove_tree(url: str, options: Options | None = None) -> None:
    """Remove a folder and all it holds; an absent one is no error.

    Raises
    ------
    StorageError
        If the store refuses.
    """
    fs, path = filesystem(url, options)
    try:
        fs.rm(path, recursive=True)
    except FileNotFoundError:
        return


@_translated
def identity(url: str, options: Options | None = None) -> str:
    """Return what identifies the content of a file: sha256 where it is local, ETag and size where remote.

    Raises
    ------
    NotFoundError
        If there is no such file.
    StorageError
        If it cannot be read.
    """
    fs, path = filesystem(url, options)
    if fs.isdir(path):
        files = sorted(fs.find(path))
        parts = [f"{file[len(path) :]}={_file_identity(fs, file, url)}" for file in files]
        return "sha256:" + hashlib.sha256("\n".join(parts).encode()).hexdigest()
    return _file_identity(fs, path, url)


def _file_identity(fs: Any, path: str, url: str) -> str:
    info = fs.info(path)
    etag = info.get("ETag") or info.get("etag")
    if etag and not is_local(url):
        return f"etag:{str(etag).strip(chr(34))}:{info.get('size')}"
    digest = hashlib.sha256()
    with fs.open(path, "rb") as file:
        for block in _blocks(file):
            digest.update(block)
    return "sha256:" + digest.hexdigest()


def _blocks(file: BinaryIO, size: int = 1 << 22) -> Iterator[bytes]:
    while block := file.read(size):
        yield block
