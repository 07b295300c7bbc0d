"""What a store holds: names in folders, and globs."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from typing import Any

from deblend_batch.errors import StorageError
from deblend_batch.storage.failures import translated
from deblend_batch.storage.filesystems import filesystem
from deblend_batch.storage.options import Options
from deblend_batch.storage.reading import read_start
from deblend_batch.storage.urls import is_local, name_of, scheme_of
from deblend_batch.storage.writing import TEMPORARY_PREFIX

_MODIFIED = ("mtime", "LastModified", "last_modified", "created")


@dataclass(frozen=True)
class StoredFile:
    """What a listing tells of a file: its name in its folder, and its size in bytes where the store says."""

    name: str
    size: int | None


@translated
def exists(url: str, options: Options | None = None) -> bool:
    """Tell whether ``url`` is a file or a folder."""
    fs, path = filesystem(url, options)
    found = bool(fs.exists(path))
    if not found and scheme_of(url) in {"http", "https"}:
        # fsspec takes a server that cannot be reached for one without the file; a read raises why.
        with contextlib.suppress(FileNotFoundError):
            read_start(url, 1, options)
    return found


@translated
def list_names(url: str, options: Options | None = None) -> list[str]:
    """List the names in a folder, sorted; an absent folder is empty."""
    return sorted({name for name, _ in _entries(url, options, detail=False)})


@translated
def list_tree(url: str, options: Options | None = None) -> list[str]:
    """List the files in a folder and in those below, as paths within it, sorted; an absent one is empty."""
    fs, path = filesystem(url, options)
    fs.invalidate_cache(path)
    start = len(str(path).rstrip("/")) + 1
    names = [str(found)[start:] for found in fs.find(path)]
    return sorted(name for name in names if not name_of(name).startswith(TEMPORARY_PREFIX))


@translated
def list_newest(url: str, options: Options | None = None) -> list[StoredFile]:
    """List the files in a folder, the last modified first; an absent folder is empty."""
    entries = _entries(url, options, detail=True)
    entries.sort(key=lambda each: _modified(each[1]), reverse=True)
    return [StoredFile(name, facts.get("size")) for name, facts in entries]


def _entries(
    url: str, options: Options | None, *, detail: bool
) -> list[tuple[str, dict[str, Any]]]:
    """List a folder afresh, without unfinished files: names, with what the store knows of each."""
    fs, path = filesystem(url, options)
    fs.invalidate_cache(path)
    try:
        found = fs.ls(path, detail=detail)
    except FileNotFoundError:
        return []
    except NotADirectoryError as error:
        raise StorageError(f"{url}: is under a file; give another path") from error
    facts = found if detail else [{"name": entry} for entry in found]
    named = [(name_of(str(fact["name"])), fact) for fact in facts]
    own = name_of(path)  # some stores list a folder in itself
    return [
        (name, fact)
        for name, fact in named
        if name != own and not name.startswith(TEMPORARY_PREFIX)
    ]


def _modified(entry: dict[str, Any]) -> Any:
    """Return when a file was modified, under whichever name the store gives it."""
    return next((entry[key] for key in _MODIFIED if key in entry), 0)


@translated
def expand(url: str, options: Options | None = None) -> list[str]:
    """Expand a glob to URLs, sorted; a URL without wildcards stands for itself."""
    if not any(mark in url for mark in "*?["):
        return [url]
    fs, path = filesystem(url, options)
    found = sorted(str(match) for match in fs.glob(path))
    if is_local(url):
        return found
    # In the scheme of the URL, which options are found by: clients have one name for several.
    return [match if "://" in match else f"{scheme_of(url)}://{match}" for match in found]
