"""The parts of a URL (pure)."""

from __future__ import annotations


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
