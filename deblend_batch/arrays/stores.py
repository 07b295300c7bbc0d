"""Zarr groups at fsspec URLs, with errors that name the URL and the remedy."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable, Mapping
from functools import partial
from typing import Any

import zarr
from fsspec.implementations.asyn_wrapper import AsyncFileSystemWrapper
from zarr.abc.buffer import Buffer, BufferPrototype
from zarr.abc.store import ByteRequest, OffsetByteRequest, Store, SuffixByteRequest
from zarr.errors import (
    ContainsArrayError,
    ContainsGroupError,
    GroupNotFoundError,
    NodeNotFoundError,
    NodeTypeValidationError,
)
from zarr.storage import FsspecStore, LocalStore

from deblend_batch import storage
from deblend_batch.arrays.bounds import DOCUMENTS, BoundedDocuments
from deblend_batch.arrays.counting import CountingStore
from deblend_batch.arrays.indexes import KeptIndexes
from deblend_batch.arrays.layers import Layer
from deblend_batch.errors import FieldError, NotFoundError, UserError
from deblend_batch.file_kinds import kind_of_other
from deblend_batch.storage import Options
from deblend_batch.text import cause

_HEAD_BYTES = 512
_IMAGES = ("FITS", "ASDF")
_AZURE = frozenset({"az", "abfs", "abfss"})
_IN_THREADS = _AZURE | {"gs", "gcs"}
"""Schemes whose clients print a traceback, when Python ends, for each file system that coroutines used."""


def open_group(url: str, options: Options | None = None) -> zarr.Group:
    """Open an existing Zarr group, format 3 or 2, for reading.

    Parameters
    ----------
    url : str
        Local path or fsspec URL.
    options : mapping, optional
        fsspec storage options.
    """
    try:
        if not storage.is_local(url):
            _ask(url, options)
        # Consolidated metadata may be older than the arrays, and know no optional member from a damaged one.
        store = _store(url, options, read_only=True)
        return zarr.open_group(store, mode="r", use_consolidated=False)
    except UserError:
        raise
    except (GroupNotFoundError, FileNotFoundError) as error:
        raise _absent(url, options) from error
    except ContainsArrayError as error:
        raise FieldError(
            f"{url}: this is a Zarr array, not a group; give the URL of the group above it"
        ) from error
    except Exception as error:
        raise _explained(url, "the group's metadata", error) from error


def open_array(url: str, options: Options | None = None) -> zarr.Array[Any]:
    """Open an existing Zarr array, format 3 or 2, for reading.

    Parameters
    ----------
    url : str
        Local path or fsspec URL of the array itself.
    options : mapping, optional
        fsspec storage options.
    """
    try:
        if not storage.is_local(url):
            _ask(url, options)
        return zarr.open_array(_store(url, options, read_only=True), mode="r")
    except UserError:
        raise
    except (NodeNotFoundError, FileNotFoundError) as error:
        raise NotFoundError(f"{url}: no Zarr array here; check the URL") from error
    except (NodeTypeValidationError, ContainsGroupError) as error:
        raise FieldError(f"{url}: is a Zarr group; name one of its arrays") from error
    except Exception as error:
        raise _explained(url, "the array's metadata", error) from error


def open_member(group: zarr.Group, url: str, name: str) -> zarr.Array[Any] | None:
    """Open an array of a group.

    Returns
    -------
    zarr.Array or None
        None where the group has no such member.
    """
    member = _member(group, url, name)
    if isinstance(member, zarr.Group):
        raise FieldError(f"{url}: '{name}' is a group, not an array; ingest the image again")
    return member


def open_subgroup(group: zarr.Group, url: str, name: str) -> zarr.Group | None:
    """Open a group in a group; None where there is none of that name."""
    member = _member(group, url, name)
    if isinstance(member, zarr.Array):
        raise FieldError(f"{url}: '{name}' is an array, not a group; ingest the image again")
    return member


def _member(group: zarr.Group, url: str, name: str) -> zarr.Array[Any] | zarr.Group | None:
    try:
        return group[name]
    except KeyError as error:
        if error.args == (name,):
            return None
        raise _explained(url, f"'{name}'", error) from error
    except Exception as error:
        raise _explained(url, f"'{name}'", error) from error


def create_group(url: str, options: Options | None, attributes: Mapping[str, Any]) -> zarr.Group:
    """Create an empty group, format 3, in the place of whatever is there.

    Parameters
    ----------
    url : str
        Local path or fsspec URL.
    options : mapping, optional
        fsspec storage options.
    attributes : mapping
        First attributes of the group, JSON-able.
    """
    fs, path = storage.filesystem(url, options)
    try:
        if fs.exists(path):
            fs.rm(path, recursive=True)
            fs.invalidate_cache()
        store = _store(url, options, read_only=False)
        return zarr.create_group(store, zarr_format=3, attributes=dict(attributes))
    except Exception as error:
        raise storage.translate(url, error, writing=True) from error


def require_group(url: str, options: Options | None, attributes: Mapping[str, Any]) -> zarr.Group:
    """Open a group for writing, or make it where none is; others may do the same at this moment.

    Parameters
    ----------
    url : str
        Local path or fsspec URL.
    options : mapping, optional
        fsspec storage options.
    attributes : mapping
        Attributes of a new group, JSON-able.
    """
    try:
        store = _store(url, options, read_only=False)
        try:
            return zarr.open_group(store, mode="a", zarr_format=3, attributes=dict(attributes))
        except ContainsGroupError:
            return zarr.open_group(store, mode="r+")
    except Exception as error:
        raise storage.translate(url, error, writing=True) from error


def is_zarr(names: Iterable[str]) -> bool:
    """Tell whether a folder with these names is a Zarr node."""
    return not DOCUMENTS.isdisjoint(names)


def _ask(url: str, options: Options | None) -> None:
    """Ask a remote store for one object: of those that zarr asks for at once, a refusal leaves tracebacks.

    By a range, so that it is a GET: the refusal of a HEAD has no body that says why.
    """
    fs, path = storage.filesystem(url, options)
    with contextlib.suppress(FileNotFoundError):
        fs.cat_file(storage.join(path, "zarr.json"), start=0, end=1)


def _store(url: str, options: Options | None, *, read_only: bool) -> Store:
    if storage.is_local(url):
        path = storage.filesystem(url, options)[1]
        if read_only and os.path.isfile(path):
            raise FileNotFoundError(path)
        if read_only and os.path.exists(path) and not os.access(path, os.R_OK | os.X_OK):
            raise PermissionError(path)  # zarr would take it for an empty store
        if not read_only:
            return LocalStore(path)
        return CountingStore(BoundedDocuments(_RegularFiles(path, read_only=True)))
    scheme = storage.scheme_of(url)
    fs, path = storage.filesystem(url, options, asynchronous=scheme not in _IN_THREADS)
    if scheme in _IN_THREADS or not fs.async_impl:
        fs = AsyncFileSystemWrapper(fs, asynchronous=True)
    remote = FsspecStore(fs, path=path, read_only=read_only)
    store = Patient(WithoutEnds(remote) if scheme in _AZURE else remote)
    return KeptIndexes(CountingStore(BoundedDocuments(store))) if read_only else store


class _RegularFiles(LocalStore):
    """Files of this machine: what is named as an object and is a device or a pipe would have no end."""

    async def get(
        self,
        key: str,
        prototype: BufferPrototype | None = None,
        byte_range: ByteRequest | None = None,
    ) -> Buffer | None:
        storage.check_regular(str(self.root / key))  # one system call: cheaper than another thread
        return await super().get(key, prototype, byte_range)


class Patient(Layer):
    """A remote store that asks again for an answer that broke off, and once for a whole object."""

    async def get(
        self, key: str, prototype: BufferPrototype, byte_range: ByteRequest | None = None
    ) -> Buffer | None:
        """Read an object, or a range of it."""
        # Of a whole object s3fs asks for the size first, which is another round trip.
        wanted = byte_range or OffsetByteRequest(0)
        return await storage.repeat_async(partial(super().get, key, prototype, wanted))


class WithoutEnds(Layer):
    """A store whose client cannot ask for the end of an object, where a shard has its index."""

    async def get(
        self, key: str, prototype: BufferPrototype, byte_range: ByteRequest | None = None
    ) -> Buffer | None:
        """Read an object, or a range of it."""
        if isinstance(byte_range, SuffixByteRequest):
            try:
                size = await self.getsize(key)
            except FileNotFoundError:
                return None
            byte_range = OffsetByteRequest(max(size - byte_range.suffix, 0))
        return await super().get(key, prototype, byte_range)


def _absent(url: str, options: Options | None) -> UserError:
    """Say what is there instead of a group: who has an image gives that."""
    try:
        head = storage.read_start(url, _HEAD_BYTES, options)
    except UserError:
        return NotFoundError(
            f"{url}: no Zarr group here; check the URL, or make a field with 'deblend-batch ingest'"
        )
    kind = "FITS" if head.startswith(b"SIMPLE") else kind_of_other(head)
    if kind in _IMAGES:
        remedy = f"make a field of it first: deblend-batch ingest {url} field.zarr"
    else:
        remedy = (
            "a field is a folder, which 'deblend-batch ingest' makes of images (FITS, ASDF or Zarr)"
        )
    return FieldError(f"{url}: this is {kind or 'a file'}, no Zarr group; {remedy}")


def _explained(url: str, what: str, error: Exception) -> Exception:
    """Return the one-line error for a failed read of metadata."""
    meaning = storage.translate(url, error)
    if isinstance(meaning, UserError):
        return meaning
    return FieldError(
        f"{url}: cannot read {what} ({type(error).__name__}: {cause(error)}); "
        "the Zarr is damaged or incomplete: ingest the image again"
    )
