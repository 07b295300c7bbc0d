"""From a URL to its file system, of those that are listed here and no other, whatever is installed."""

from __future__ import annotations

import logging
import os
import stat
from collections.abc import Mapping
from typing import Any

import fsspec
from fsspec.implementations.local import LocalFileSystem

from deblend_batch.errors import IrregularFileError, StorageError
from deblend_batch.storage.options import Options, options_of
from deblend_batch.storage.urls import is_local, local_path, scheme_of
from deblend_batch.text import has_credentials

_EXTRA_OF_SCHEME = {
    "s3": "s3",
    "s3a": "s3",
    "gs": "gcs",
    "gcs": "gcs",
    "az": "azure",
    "abfs": "azure",
    "abfss": "azure",
}
_READ_ONLY = frozenset({"http", "https"})
_SCHEMES = _READ_ONLY | _EXTRA_OF_SCHEME.keys() | {"memory"}
"""The remote stores. fsspec has dozens more; many open what another URL names, some run a program."""
_CHAINING = ("protocol", "target_protocol", "target_options", "fo")
"""Options by which fsspec opens another store than the URL names."""
_S3 = frozenset({"s3", "s3a"})
_S3_RETRIES = {"mode": "standard", "total_max_attempts": 5}
_GOOGLE = frozenset({"gs", "gcs"})
_KNOWN = "a local path, s3://, gs://, az:// or http(s)://"

# gcsfs reads it when it is imported: its experimental part asks by gRPC what kind each bucket is, and waits a
# minute where nothing answers.
os.environ.setdefault("GCSFS_EXPERIMENTAL_ZB_HNS_SUPPORT", "false")


class LocalFiles(LocalFileSystem):  # type: ignore[misc]  # it has no types
    """The files of this machine; what is read is a regular one, which ends."""

    def _open(self, path: str, mode: str = "rb", **kwargs: Any) -> Any:
        if "r" in mode:
            check_regular(path)
        return super()._open(path, mode, **kwargs)

    def info(self, path: Any, **kwargs: Any) -> dict[str, Any]:
        """Return what is known of a file; a link to a regular one is a file, which Arrow would leave out."""
        found: dict[str, Any] = super().info(path, **kwargs)
        if found["islink"] and os.path.isfile(found["name"]):
            found["type"] = "file"
        return found


def check_regular(path: str) -> None:
    """Refuse a device, a pipe or a socket, before it is opened: a pipe waits for its writer."""
    try:
        mode = os.stat(path).st_mode
    except OSError:
        return
    if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):
        raise IrregularFileError(
            f"{path}: not a regular file but a device, a pipe or a socket; give a file"
        )


def filesystem(
    url: str, options: Options | None = None, *, asynchronous: bool = False
) -> tuple[Any, str]:
    """Open the file system of a URL.

    Parameters
    ----------
    url : str
        Local path, or URL of a store in the list above: no chain of URLs, and none inside another.
    options : mapping, optional
        fsspec ``storage_options``, see :func:`deblend_batch.storage.options_of`.
    asynchronous : bool
        Whether it is to be used from coroutines, where it allows.
    """
    check_url(url)
    if is_local(url):
        fs = LocalFiles()
        return fs, fs._strip_protocol(local_path(url))  # noqa: SLF001  # for whoever builds on it
    scheme = scheme_of(url)
    if scheme in _GOOGLE:
        logging.getLogger("gcsfs").setLevel(logging.CRITICAL)  # a traceback of each that it raises
    settings = _client_options(scheme, options_of(url, options))
    if asynchronous:
        settings["asynchronous"] = True
    fs, path = _client(url, scheme, settings)
    if scheme in _S3:
        # s3fs would repeat what botocore has repeated: 25 requests for one, of 15 s each if a server hangs.
        fs.retries = 1
    return fs, path


def _client(url: str, scheme: str, settings: dict[str, Any]) -> tuple[Any, str]:
    """Make the client of the scheme itself: fsspec's own way follows chains, which options too may begin."""
    try:
        kind = fsspec.get_filesystem_class(scheme)
        in_url = kind._get_kwargs_from_urls(url)  # noqa: SLF001  # for whoever builds on it
        return kind(**{**settings, **in_url}), kind._strip_protocol(url)  # noqa: SLF001
    except FileNotFoundError as error:
        raise StorageError(
            f"{url}: its storage options, or the environment, name a file that is not there; check them"
        ) from error
    except ImportError as error:
        extra = _EXTRA_OF_SCHEME.get(scheme)
        remedy = f"pip install 'deblend-batch[{extra}]'" if extra else str(error)
        raise StorageError(f"{url}: cannot open {scheme}:// URLs here; {remedy}") from error
    except ValueError as error:
        raise StorageError(f"{url}: {error}; check the URL and its storage options") from error


def check_url(url: str) -> None:
    """Refuse a URL that names none of the stores, holds credentials, or cannot be a name."""
    if has_credentials(url):
        raise StorageError(
            f"{url}: a URL is shown and stored, so it must not hold credentials; give them as "
            "storage_options or in the environment"
        )
    _check_name(url)
    scheme = scheme_of(url)
    if not is_local(url) and (scheme not in _SCHEMES or not url.startswith(f"{scheme}://")):
        raise StorageError(f"{url}: unknown protocol; use {_KNOWN}")


def check_writable(url: str) -> None:
    """Refuse a URL whose store can only be read, before any work is done."""
    if scheme_of(url) in _READ_ONLY:
        raise StorageError(f"{url}: http(s):// is read-only; write to a local path or s3://...")


def _check_name(url: str) -> None:
    """Refuse what no system call takes for a name."""
    try:
        if url and b"\0" not in os.fsencode(url):
            return
    except UnicodeEncodeError:
        pass
    raise StorageError(f"{url!r} cannot be the name of a file; give a path or a URL")


def _client_options(scheme: str, options: Options) -> dict[str, Any]:
    """Return options with botocore's own back-off, which has jitter, unless the user chose another."""
    for name in _CHAINING:
        if name in options:
            raise StorageError(
                f"storage_options: {name!r} would open another store than {scheme}://; remove it"
            )
    given = options.get("config_kwargs") or {}
    if scheme not in _S3 or not isinstance(given, Mapping):  # the client refuses the latter
        return dict(options)
    return {**options, "config_kwargs": {"retries": _S3_RETRIES, **given}}
