"""What identifies the content of a file or a folder."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from typing import Any, BinaryIO

from deblend_batch.errors import TooLargeError
from deblend_batch.storage.failures import translated
from deblend_batch.storage.filesystems import filesystem
from deblend_batch.storage.options import Options
from deblend_batch.storage.urls import is_local, scheme_of

_MOST_FILES = 1_000_000


@translated
def identity(url: str, options: Options | None = None) -> str:
    """Return what identifies the content of a file: sha256 where it is local, ETag and size where remote."""
    fs, path = filesystem(url, options)
    if fs.isdir(path):
        files = sorted(fs.find(path))
        parts = [f"{file[len(path) :]}={_file_identity(fs, file, url)}" for file in files]
        return "sha256:" + hashlib.sha256("\n".join(parts).encode()).hexdigest()
    return _file_identity(fs, path, url)


@translated
def stamp(url: str, options: Options | None = None) -> str:
    """Return what changes when a file of a folder does: names, sizes, and ETags or times; nothing is read.

    A web server lists nothing: of its folders this is no more than that they are there.
    """
    fs, path = filesystem(url, options)
    if scheme_of(url) in {"http", "https"}:
        return "none"
    found = fs.find(path, detail=True)
    if not found:
        raise FileNotFoundError(url)
    if len(found) > _MOST_FILES:
        raise TooLargeError(f"{url}: holds {len(found):,} files, more than {_MOST_FILES:,}")
    lines = sorted(f"{name[len(path) :]}={_file_stamp(info)}" for name, info in found.items())
    return "sha256:" + hashlib.sha256("\n".join(lines).encode()).hexdigest()


def _file_stamp(info: dict[str, Any]) -> str:
    keys = ("ETag", "etag", "mtime", "LastModified", "last_modified", "created")
    changed = next((info[key] for key in keys if info.get(key) is not None), "")
    return f"{info.get('size')}:{changed}"


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
