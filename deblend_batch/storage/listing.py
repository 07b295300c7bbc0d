"""What a store holds: names in folders, and globs."""

from __future__ import annotations

from deblend_batch.storage.failures import translated
from deblend_batch.storage.filesystems import Options, filesystem
from deblend_batch.storage.urls import is_local, name_of
from deblend_batch.storage.writing import TEMPORARY_PREFIX


@translated
def exists(url: str, options: Options | None = None) -> bool:
    """Tell whether ``url`` is a file or a folder.

    Raises
    ------
    StorageError
        If the store cannot be asked.
    """
    fs, path = filesystem(url, options)
    return bool(fs.exists(path))


@translated
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
    return sorted(name for name in names - {name_of(path)} if not name.startswith(TEMPORARY_PREFIX))


@translated
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
