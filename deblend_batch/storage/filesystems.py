"""From a URL to its file system."""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping
from typing import Any, cast

import fsspec

from deblend_batch.errors import StorageError
from deblend_batch.storage.options import Options, options_of
from deblend_batch.storage.urls import scheme_of
from deblend_batch.text import has_credentials

_EXTRA_OF_SCHEME = {
    "s3": "s3",
    "s3a": "s3",
    "gs": "gcs",
    "gcs": "gcs",
    "az": "azure",
    "abfs": "azure",
}
_S3 = frozenset({"s3", "s3a"})
_S3_RETRIES = {"mode": "standard", "total_max_attempts": 5}
_GOOGLE = frozenset({"gs", "gcs"})
_KNOWN = "a local path, s3://, gs://, az:// or http(s)://"

# gcsfs reads it when it is imported: its experimental part asks by gRPC what kind each bucket is, and waits a
# minute where nothing answers.
os.environ.setdefault("GCSFS_EXPERIMENTAL_ZB_HNS_SUPPORT", "false")


def filesystem(
    url: str, options: Options | None = None, *, asynchronous: bool = False
) -> tuple[Any, str]:
    """Open the file system of a URL.

    Parameters
    ----------
    url : str
        Local path or fsspec URL.
    options : mapping, optional
        fsspec ``storage_options``, see :func:`deblend_batch.storage.options_of`.
    asynchronous : bool
        Whether it is to be used from coroutines, where it allows.

    Returns
    -------
    fs : fsspec.AbstractFileSystem
        The file system.
    path : str
        The path inside it.

    Raises
    ------
    StorageError
        If no installed package speaks the scheme, or the URL holds credentials.
    """
    if has_credentials(url):
        raise StorageError(
            f"{url}: a URL is shown and stored, so it must not hold credentials; give them as "
            "storage_options or in the environment"
        )
    scheme = scheme_of(url)
    if "://" in url and scheme not in fsspec.available_protocols():
        raise StorageError(f"{url}: unknown protocol; use {_KNOWN}")
    if scheme in _GOOGLE:
        logging.getLogger("gcsfs").setLevel(logging.CRITICAL)  # a traceback of each that it raises
    settings = _client_options(scheme, options_of(url, options))
    if asynchronous:
        settings["asynchronous"] = True
    try:
        fs, path = cast("tuple[Any, str]", fsspec.core.url_to_fs(url, **settings))
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
    if scheme in _S3:
        # s3fs would repeat what botocore has repeated: 25 requests for one, of 15 s each if a server hangs.
        fs.retries = 1
    return fs, path


def _client_options(scheme: str, options: Options) -> dict[str, Any]:
    """Return options with botocore's own back-off, which has jitter, unless the user chose another."""
    given = options.get("config_kwargs") or {}
    if scheme not in _S3 or not isinstance(given, Mapping):  # the client refuses the latter
        return dict(options)
    return {**options, "config_kwargs": {"retries": _S3_RETRIES, **given}}
