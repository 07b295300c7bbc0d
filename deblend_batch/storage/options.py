"""Which storage options a URL is opened with (pure)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from deblend_batch.errors import StorageError
from deblend_batch.storage.urls import is_local

Options = Mapping[str, Any]
"""fsspec ``storage_options``: endpoint, credentials and the like. They may hold secrets: never print them.

A key that holds ``://`` is the beginning of URLs, and its value the options of those.
"""


def options_of(url: str, options: Options | None) -> dict[str, Any]:
    """Return the options that apply to a URL.

    Parameters
    ----------
    url : str
        Local path or fsspec URL.
    options : mapping, optional
        fsspec ``storage_options``. Of keys such as ``s3://bucket/folder`` or ``gs://`` the longest one that
        the URL lies under gives all its options; a URL under none has those that stand beside such keys.

    Returns
    -------
    dict
        None for a local path.

    Raises
    ------
    StorageError
        If what stands beside a key such as ``s3://bucket`` is no mapping.

    Examples
    --------
    >>> options = {"profile": "me", "s3://public": {"anon": True}}
    >>> options_of("s3://public/field.zarr", options)
    {'anon': True}
    >>> options_of("s3://mine/run", options)
    {'profile': 'me'}
    """
    if is_local(url) or not options:
        return {}
    under = sections_of(url, options)
    if not under:
        return {key: value for key, value in options.items() if "://" not in key}
    longest = max(under, key=len)
    chosen = options[longest]
    if not isinstance(chosen, Mapping):
        raise StorageError(
            f"storage_options: {longest!r} must be a section of options; see docs/config.md"
        )
    return dict(chosen)


def sections_of(url: str, options: Options | None) -> list[str]:
    """Return the keys such as ``s3://bucket`` under which a URL lies: the user knows its store."""
    return [key for key in options or {} if "://" in key and _is_under(url, key)]


def _is_under(url: str, prefix: str) -> bool:
    """Tell whether a URL is what a prefix names, or lies in it: ``s3://one`` says nothing of ``s3://one-more``."""
    return url == prefix.rstrip("/") or url.startswith(
        prefix if prefix.endswith("/") else f"{prefix}/"
    )
