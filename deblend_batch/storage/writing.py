"""Writing and removing: a reader sees the old content, the new content, never a part."""

from __future__ import annotations

import errno
import os
import tempfile
from typing import Self

from deblend_batch.errors import StorageError
from deblend_batch.storage.failures import translated_write
from deblend_batch.storage.filesystems import check_writable, filesystem
from deblend_batch.storage.options import Options
from deblend_batch.storage.responses import status_of
from deblend_batch.storage.urls import is_local

TEMPORARY_PREFIX = ".tmp-"
"""How the names of unfinished local files begin."""
_NO_LINKS = frozenset({errno.EPERM, errno.ENOTSUP, errno.EOPNOTSUPP})


@translated_write
def write_bytes(url: str, data: bytes, options: Options | None = None) -> None:
    """Write a whole file so that a reader sees the old content, the new content, never a part."""
    check_writable(url)
    fs, path = filesystem(url, options)
    if not is_local(url):
        fs.pipe_file(path, data)
        return
    with _WholeLocalFile(path, data) as temporary:
        temporary.rename_to(path)


@translated_write
def create_bytes(url: str, data: bytes, options: Options | None = None) -> bool:
    """Write a whole file only where none exists, atomically.

    On a local file system without hard links, a reader may for a moment see the new file empty.
    """
    check_writable(url)
    fs, path = filesystem(url, options)
    try:
        if is_local(url):
            with _WholeLocalFile(path, data) as temporary:
                temporary.link_to(path)
        else:
            fs.pipe_file(path, data, mode="create")
    except FileExistsError:
        return False
    except OSError as error:
        if status_of(error) == 412:  # s3fs knows it of AWS's own wording only
            return False
        raise
    return True


@translated_write
def remove(url: str, options: Options | None = None) -> None:
    """Remove one file; an absent one is no error."""
    check_writable(url)
    fs, path = filesystem(url, options)
    try:
        fs.rm_file(path)
    except FileNotFoundError:
        return


@translated_write
def remove_tree(url: str, options: Options | None = None) -> None:
    """Remove a folder and all it holds; an absent one is no error."""
    check_writable(url)
    fs, path = filesystem(url, options)
    try:
        fs.rm(path, recursive=True)
    except FileNotFoundError:
        return


class _WholeLocalFile:
    """A complete, synced temporary file beside its final place; removed unless renamed."""

    def __init__(self, path: str, data: bytes) -> None:
        folder = os.path.dirname(path) or "."
        try:
            os.makedirs(folder, exist_ok=True)
        except (FileExistsError, NotADirectoryError) as error:
            raise StorageError(f"{path}: {folder} is under a file; give another path") from error
        handle, self.path = tempfile.mkstemp(prefix=TEMPORARY_PREFIX, dir=folder)
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

    def link_to(self, path: str) -> None:
        """Take the final place only where nothing is; else raise FileExistsError."""
        try:
            os.link(self.path, path)
        except OSError as error:
            if error.errno not in _NO_LINKS:
                raise
            # No hard links here (exFAT, some network mounts): who creates the name may then fill it.
            with open(path, "xb"):
                pass
            self.rename_to(path)

    def __exit__(self, *_: object) -> None:
        if os.path.exists(self.path):
            os.unlink(self.path)


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
