"""What the arrays of a stranger's Zarr may ask for: codecs, sizes of chunks, bytes of a stored object.

Metadata are a few hundred bytes that anyone can write, and no more than a few million are read; what they
announce is checked before it is allocated or read, and an array is read through codecs and a store that keep
to what was checked.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import zarr
from zarr.abc.buffer import Buffer, BufferPrototype
from zarr.abc.store import (
    ByteRequest,
    OffsetByteRequest,
    RangeByteRequest,
    Store,
    SuffixByteRequest,
)
from zarr.buffer import default_buffer_prototype

from deblend_batch.arrays.decoding import BOUNDED, COMPRESSORS, BoundedCodec, BoundedCompressor
from deblend_batch.arrays.layers import Layer
from deblend_batch.errors import FieldError

DOCUMENTS = frozenset({"zarr.json", ".zgroup", ".zattrs", ".zarray", ".zmetadata"})
"""Names of the objects that hold metadata."""
MAX_DOCUMENT_BYTES = 1 << 22
"""What such an object can have: 40 times the longest FITS header, and as much as a thousand arrays need."""
_MAX_CHUNK_BYTES = 1 << 30
_MAX_SHARD_BYTES = 1 << 32
_MAX_CHUNKS_PER_SHARD = 1 << 16
_MAX_ARRAY_PX = 1 << 42
_WINDOW_PX = 4096
_MAX_CHUNKS_PER_WINDOW = 1 << 16
_CHECKSUM_BYTES = 4
_INDEX_BYTES_PER_CHUNK = 16
_INDEX_CODECS = frozenset({"bytes", "crc32c"})
_PLAIN_CODECS = _INDEX_CODECS | {"transpose"}
_REMEDY = "store it again, in chunks of 512 px and with Blosc, as 'deblend-batch ingest' does"


class _RefusedError(Exception):
    """What is wrong with an array, as the end of a sentence that begins with its name."""


def bounded(array: zarr.Array[Any], url: str, name: str, remedy: str = _REMEDY) -> zarr.Array[Any]:
    """Check what an array asks for, and return it so that a read keeps to it."""
    # What Zarr has understood of the metadata is what is checked, and what it is given to read by.
    written = array.metadata.to_buffer_dict(default_buffer_prototype())
    documents = {name: json.loads(buffer.to_bytes()) for name, buffer in written.items()}
    document = documents[".zarray" if array.metadata.zarr_format == 2 else "zarr.json"]
    itemsize = array.dtype.itemsize
    try:
        shapes = _chunks_of(document)
        _check_sizes(array.shape, *shapes, itemsize)
        chunk_bytes = math.prod(shapes[0]) * itemsize
        document |= _with_bounds(document, chunk_bytes)
    except _RefusedError as error:
        raise FieldError(f"{url}: '{name}' {error}; {remedy}") from error
    store = _bounded_store(array.store, chunk_bytes, *shapes)
    checked = KnownDocuments(store, {f"{array.path}/{key}": documents[key] for key in documents})
    return zarr.open_array(
        checked, path=array.path, mode="r", zarr_format=array.metadata.zarr_format
    )


class BoundedStore(Layer):
    """A store that reads no more of an object than it can need.

    Parameters
    ----------
    store : zarr.abc.store.Store
        Where the objects are.
    whole_bytes : int
        What a whole object can have.
    part_bytes : int, optional
        What a range of one can have; as ``whole_bytes`` if absent.
    """

    def __init__(self, store: Store, whole_bytes: int, part_bytes: int | None = None) -> None:
        super().__init__(store)
        self._whole_bytes = whole_bytes
        self._part_bytes = whole_bytes if part_bytes is None else part_bytes

    async def get(
        self, key: str, prototype: BufferPrototype, byte_range: ByteRequest | None = None
    ) -> Buffer | None:
        """Read an object or a range of it, as Zarr asks; ValueError if it is larger than it can be."""
        whole = byte_range is None or isinstance(byte_range, OffsetByteRequest)
        if isinstance(byte_range, RangeByteRequest):
            self._check(key, byte_range.end - byte_range.start, self._part_bytes)
        if isinstance(byte_range, SuffixByteRequest):
            self._check(key, byte_range.suffix, self._part_bytes)
        start = byte_range.offset if isinstance(byte_range, OffsetByteRequest) else 0
        wanted = RangeByteRequest(start, start + self._whole_bytes + 1) if whole else byte_range
        found = await super().get(key, prototype, wanted)
        if found is not None and whole:
            self._check(key, len(found), self._whole_bytes)
        return found

    @staticmethod
    def _check(key: str, size: int, limit: int) -> None:
        if size > limit:
            raise ValueError(f"{key} holds more than the {limit:,} bytes that it can need")


class BoundedDocuments(Layer):
    """A store that reads no more of its metadata than :data:`MAX_DOCUMENT_BYTES` each, and all else as asked.

    Parameters
    ----------
    store : zarr.abc.store.Store
        Where the objects are.
    """

    def __init__(self, store: Store) -> None:
        super().__init__(store)
        self._documents = BoundedStore(store, MAX_DOCUMENT_BYTES)

    def with_read_only(self, read_only: bool = False) -> BoundedDocuments:
        """Return the same on a store that may be written, or may not."""
        return type(self)(self._below.with_read_only(read_only))

    async def get(
        self, key: str, prototype: BufferPrototype, byte_range: ByteRequest | None = None
    ) -> Buffer | None:
        """Read an object or a range of it, as Zarr asks; ValueError for metadata that are too large."""
        if key.rpartition("/")[2] in DOCUMENTS:
            return await self._documents.get(key, prototype, byte_range)
        return await super().get(key, prototype, byte_range)


class KnownDocuments(Layer):
    """A store, for reading, some of whose metadata are known, and not read again.

    Parameters
    ----------
    store : zarr.abc.store.Store
        Where all else is.
    documents : mapping
        Name of the object to its content, JSON-able.
    """

    def __init__(self, store: Store, documents: Mapping[str, Any]) -> None:
        super().__init__(store)
        self._known = {key: json.dumps(document).encode() for key, document in documents.items()}

    async def get(
        self, key: str, prototype: BufferPrototype, byte_range: ByteRequest | None = None
    ) -> Buffer | None:
        """Read an object or a range of it, as Zarr asks."""
        if key in self._known:
            return prototype.buffer.from_bytes(self._known[key])
        return await super().get(key, prototype, byte_range)


def _chunks_of(document: Mapping[str, Any]) -> tuple[list[int], list[int] | None]:
    """Return the shapes of what is decoded at once, and of a stored object that holds many such."""
    if document["zarr_format"] == 2:
        return document["chunks"], None
    if document.get("storage_transformers"):
        raise _RefusedError("has storage transformers, which are not understood")
    if document["chunk_grid"]["name"] != "regular":
        raise _RefusedError("has no regular grid of chunks")
    outer: list[int] = document["chunk_grid"]["configuration"]["chunk_shape"]
    first = document["codecs"][0]
    return (first["configuration"]["chunk_shape"], outer) if _shards(first) else (outer, None)


def _shards(codec: Mapping[str, Any]) -> bool:
    return bool(codec["name"] == "sharding_indexed")


def _check_sizes(
    shape: Sequence[int],
    chunk_shape: Sequence[int],
    shard_shape: Sequence[int] | None,
    itemsize: int,
) -> None:
    if math.prod(shape) > _MAX_ARRAY_PX:
        raise _RefusedError(f"has shape {tuple(shape)}, more than {_MAX_ARRAY_PX:,} pixels")
    if min(chunk_shape) < 1 or min(shard_shape or (1,)) < 1:
        raise _RefusedError(f"has chunks of shape {tuple(chunk_shape)}, which hold nothing")
    size = math.prod(chunk_shape) * itemsize
    if size > _MAX_CHUNK_BYTES:
        raise _RefusedError(
            f"has chunks of shape {tuple(chunk_shape)}: {size:,} bytes to decode one, more than "
            f"{_MAX_CHUNK_BYTES:,}"
        )
    window = [min(edge, _WINDOW_PX) for edge in shape[-2:]]
    count = math.prod(map(_ceil_div, window, chunk_shape[-2:]))
    if count > _MAX_CHUNKS_PER_WINDOW:
        raise _RefusedError(
            f"has chunks of shape {tuple(chunk_shape)}, too small to be read in number"
        )
    if shard_shape is not None:
        _check_shard(shard_shape, chunk_shape, itemsize)


def _check_shard(shard_shape: Sequence[int], chunk_shape: Sequence[int], itemsize: int) -> None:
    size = math.prod(shard_shape) * itemsize
    count = math.prod(map(_ceil_div, shard_shape, chunk_shape))
    if size > _MAX_SHARD_BYTES or count > _MAX_CHUNKS_PER_SHARD:
        raise _RefusedError(
            f"has shards of shape {tuple(shard_shape)}: {size:,} bytes in {count:,} chunks, more than "
            f"{_MAX_SHARD_BYTES:,} or {_MAX_CHUNKS_PER_SHARD:,}"
        )


def _ceil_div(number: int, by: int) -> int:
    return -(-number // by)


def _with_bounds(document: Mapping[str, Any], size: int) -> dict[str, Any]:
    """Return the part of an array's metadata that names codecs, with bounded ones for its compressors."""
    if document["zarr_format"] == 2:
        return _bounded_v2(document, size)
    first = document["codecs"][0]
    if not _shards(first):
        return {"codecs": _bounded_codecs(document["codecs"], size)}
    if len(document["codecs"]) > 1:
        raise _RefusedError("has shards inside another codec, which cannot be read in parts")
    inner = first["configuration"]
    for codec in inner["index_codecs"]:
        if codec["name"] not in _INDEX_CODECS:
            raise _RefusedError(f"has shards whose index has the codec {codec['name']!r}")
    bounded = {**inner, "codecs": _bounded_codecs(inner["codecs"], size)}
    return {"codecs": [{**first, "configuration": bounded}]}


def _bounded_codecs(codecs: Iterable[Mapping[str, Any]], size: int) -> list[Mapping[str, Any]]:
    """Return codecs, of which at most one compresses: then the size of what it decodes to is known."""
    found: list[Mapping[str, Any]] = []
    for codec in codecs:
        name = codec["name"].removeprefix("numcodecs.")
        if name in COMPRESSORS:
            if any(each["name"] == BOUNDED for each in found):
                raise _RefusedError(
                    f"has the codec {name!r} twice, or another compressor before it"
                )
            found.append(BoundedCodec(BoundedCompressor(name, size)).to_dict())
        elif codec["name"] in _PLAIN_CODECS:
            found.append(codec)
            size += _CHECKSUM_BYTES if name == "crc32c" else 0
        else:
            raise _RefusedError(f"has the codec {name!r}, which is not read")
    return found


def _bounded_v2(document: Mapping[str, Any], size: int) -> dict[str, Any]:
    for codec in document["filters"] or ():
        if codec["id"] not in {"crc32c", "shuffle"}:
            raise _RefusedError(f"has the filter {codec['id']!r}, which is not read")
        size += _CHECKSUM_BYTES if codec["id"] == "crc32c" else 0
    if document["compressor"] is None:
        return {}
    name = document["compressor"]["id"]
    if name not in COMPRESSORS:
        raise _RefusedError(f"has the compressor {name!r}, which is not read")
    return {"compressor": BoundedCompressor(name, size).get_config()}


def _bounded_store(
    store: Store,
    chunk_bytes: int,
    chunk_shape: Sequence[int],
    shard_shape: Sequence[int] | None,
) -> BoundedStore:
    part = _stored_bytes(chunk_bytes)
    if shard_shape is None:
        return BoundedStore(store, part)
    count = math.prod(map(_ceil_div, shard_shape, chunk_shape))
    index = _INDEX_BYTES_PER_CHUNK * count + _CHECKSUM_BYTES
    return BoundedStore(store, count * part + index, max(part, index))


def _stored_bytes(size: int) -> int:
    """Return what a chunk can take where it is stored: noise grows a little under every compressor."""
    return size + size // 64 + 4096
