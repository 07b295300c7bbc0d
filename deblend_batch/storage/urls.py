"""The parts of a URL (pure)."""

from __future__ import annotations

import re
import unicodedata

from deblend_batch.errors import StorageError

_MAX_NAME_BYTES = 200
_NAME = re.compile(r"\w[\w .()+,=@~-]*")
_LOCAL = re.compile(r"(file|local):(//)?")
_WITHOUT_SLASHES = re.compile(r"(data(?=:)|[A-Za-z][A-Za-z0-9+.-]+(?=:/))")
"""``data:...``, and what lacks a slash: ``s3:/bucket`` names no file, but ``C:/x`` and ``12:30/x`` do."""


def scheme_of(url: str) -> str:
    """Return the scheme of ``url``, ``"file"`` for a plain path."""
    scheme, mark, _ = url.partition("://")
    if mark:
        return scheme
    found = _WITHOUT_SLASHES.match(url)
    return found[0] if found else "file"


def local_path(url: str) -> str:
    """Return the path, absolute or not, of a URL that :func:`is_local`."""
    return _LOCAL.sub("", url, count=1) if _LOCAL.match(url) else url


def is_local(url: str) -> bool:
    """Tell whether ``url`` names a file of this machine."""
    return scheme_of(url) in {"file", "local"}


def join(url: str, *parts: str) -> str:
    """Append ``parts`` to ``url`` with single slashes."""
    return "/".join([url.rstrip("/"), *[part.strip("/") for part in parts]])


def parent(url: str) -> str:
    """Return the folder that ``url`` lies in."""
    head, slash, _ = url.rstrip("/").rpartition("/")
    return head or slash or "."


def name_of(url: str) -> str:
    """Return the last part of ``url``, without slashes."""
    return url.rstrip("/").rsplit("/", 1)[-1]


def member(folder: str, name: str, suffix: str = "") -> str:
    """Return the URL of a file in a folder whose name was written by someone else.

    Parameters
    ----------
    folder : str
        URL of the folder.
    name : str
        One name: letters, digits and a few signs, of at most 200 bytes.
    suffix : str
        What is put behind it.
    """
    plain = _NAME.fullmatch(name) is not None and unicodedata.is_normalized("NFKC", name)
    if not plain or len(name.encode()) > _MAX_NAME_BYTES:
        shown = name if len(name) <= 60 else f"{name[:57]}..."
        raise StorageError(
            f"{folder}: {shown!r} cannot be the name of a file here (letters, digits, '_', '-' and '.', at "
            f"most {_MAX_NAME_BYTES} bytes); mend or remove what names it"
        )
    return join(folder, name + suffix)
