"""Where an output may be: apart from what it is made of, and from what other outputs hold."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator

from deblend_batch.errors import OutputConflictError, UserError
from deblend_batch.storage.filesystems import check_url, check_writable, filesystem
from deblend_batch.storage.options import Options
from deblend_batch.storage.reading import read_start
from deblend_batch.storage.urls import is_local, join, scheme_of

_SAME_STORE = {"s3a": "s3", "gcs": "gs", "abfs": "az", "abfss": "az"}
_ACCOUNT = re.compile(r"@.*")
_SYSTEM = (("proc",), ("sys",), ("dev",))
_SHARED_MEMORY = ("dev", "shm")
_WHOLES = (
    ("run.json", b'"deblend_batch_run"', "the output of a run"),
    ("zarr.json", b'"deblend_batch_field"', "a field"),
    (".zattrs", b'"deblend_batch_field"', "a field"),
)
"""Documents of folders in which nothing else is to be written, and a word in each that nobody else writes."""
_DOCUMENT_BYTES = 1 << 22


def check_apart(
    target: str,
    inputs: Iterable[str] = (),
    options: Options | None = None,
    *,
    key: str = "output",
    alone: bool = True,
) -> None:
    """Refuse to write over what is read, into it, around it, into another output or into the system itself.

    Parameters
    ----------
    target : str
        URL of what is to be written, a file or a folder.
    inputs : iterable of str
        URLs of what is read meanwhile.
    options : mapping, optional
        Storage options.
    key : str
        What the target is, for messages.
    alone : bool
        Whether it may not lie in the output of a run or in a field either, whichever that is.
    """
    check_url(target)
    check_writable(target)
    place = _place(target)
    if is_local(target) and (folder := _system_folder(target)) is not None:
        raise OutputConflictError(
            f"{key}: {target} is in {folder}, which holds the system itself and no files; give "
            "another path"
        )
    for url in inputs:
        if (how := _relation(place, _place(url))) is not None:
            raise OutputConflictError(f"{key}: {target} {how} {url}, which is read; give another")
    if alone:
        _check_surroundings(target, options, key)


def _place(url: str) -> tuple[str, ...]:
    """Return the store of a URL and the parts of its path, links followed: equal for equal places."""
    path = filesystem(url)[1] if is_local(url) else url.partition("://")[2]
    if is_local(url):
        return ("file", *_parts(os.path.realpath(path)))
    scheme = scheme_of(url)
    scheme = _SAME_STORE.get(scheme, scheme)
    parts = _parts(path)
    if scheme == "az" and parts:  # as in abfs://container@account.dfs.core.windows.net/path
        parts[0] = _ACCOUNT.sub("", parts[0])
    return (scheme, *parts)


def _parts(path: str) -> list[str]:
    return [part for part in path.split("/") if part]


def _system_folder(url: str) -> str | None:
    """Return the folder of the system that a local path leads to or through.

    A path through one may lead elsewhere in each process: ``/proc/self/cwd`` is another's own folder there.
    """
    path = os.path.abspath(filesystem(url)[1])
    for parts in (tuple(_parts(path)), tuple(_parts(os.path.realpath(path)))):
        if parts[:1] in _SYSTEM and parts[:2] != _SHARED_MEMORY:
            return f"/{parts[0]}"
    return None


def _relation(target: tuple[str, ...], other: tuple[str, ...]) -> str | None:
    if target == other:
        return "is"
    if target[: len(other)] == other:
        return "lies in"
    return "would hold" if other[: len(target)] == target else None


def _check_surroundings(target: str, options: Options | None, key: str) -> None:
    for folder in _folders_above(target):
        for name, word, what in _WHOLES:
            if _says(join(folder, name), word, options):
                raise OutputConflictError(
                    f"{key}: {target} lies in {what} ({folder}), which holds nothing else; give another"
                )


def _says(url: str, word: bytes, options: Options | None) -> bool:
    """Tell whether a document holds a word; what cannot be read is nobody's whose output could be harmed."""
    try:
        return word in read_start(url, _DOCUMENT_BYTES, options)
    except UserError:
        return False


def _folders_above(url: str) -> Iterator[str]:
    """Yield the folders that a URL lies in, the nearest first, without the root or the bucket's own store."""
    if is_local(url):
        folder = os.path.dirname(os.path.realpath(filesystem(url)[1]))
        while folder != os.path.dirname(folder):
            yield folder
            folder = os.path.dirname(folder)
        return
    head = f"{scheme_of(url)}://"
    parts = _parts(url.removeprefix(head))
    for n in range(len(parts) - 1, 0, -1):
        yield head + "/".join(parts[:n])
