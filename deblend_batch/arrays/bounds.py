"""What the arrays of a stranger's Zarr may ask for: codecs, sizes of chunks, bytes of a stored object.

Metadata are a few hundred bytes that anyone can write, and no more than a few million are read; what they
announce is checked before it is allocated or read, and an array is read through codecs and a store that keep
to what was checked.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any

import zarr
from zarr.abc.codec import Codec
from zarr.abc.store import ByteRequest, RangeByteRequest, Store
from zarr.codecs import BytesCodec, Crc32cCodec, ShardingCodec, TransposeCodec
from zarr.core.buffer import Buffer, BufferPrototype
from zarr.core.chunk_grids import RegularChunkGrid
from zarr.core.metadata import ArrayV2Metadata, ArrayV3Metadata
from zarr.storage import StorePath, WrapperStore

from deblend_batch.arrays.decoding import COMPRESSORS, BoundedCodec, BoundedCompressor
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
_REMEDY = "store it again, in chunks of 512 px and with Blosc, as 'deblend-batch ingest' does"


class _RefusedError(Exception):
    """What is wrong with an array, as the end of a sentence that begins with its name."""


def bounded(array: zarr.Array[Any], url: str, name: str, remedy: str = _REMEDY) -> zarr.Array[Any]:
    """Check what an array asks for, and return it so that a read keeps to it.

    Parameters
    ----------
    array : zarr.Array
        As opened; nothing of it has been read but its metadata.
    url : str
        The group's URL, for messages.
    name : str
        The array's name, for messages.
    remedy : str
        How to mend what is refused, for messages.

    Returns
    -------
    zarr.Array
        The same array, for reading: its codecs decode to the size that its metadata give and to no other, and
        no stored object is read beyond what such a chunk can take.

    Raises
    ------
    FieldError
        If it is larger than any field, its chunks or shards are too large or too many, or it has a codec that
        is not known to be harmless.
    """
    try:
        metadata = array.metadata
        if isinstance(metadata, ArrayV2Metadata):
            chunk_shape, shard_shape = metadata.chunks, None
        else:
            chunk_shape, shard_shape = _chunks_of(metadata)
        itemsize = array.dtype.itemsize
        _check_sizes(array.shape, chunk_shape, shard_shape, itemsize)
        chunk_bytes = math.prod(chunk_shape) * itemsize
        if isinstance(metadata, ArrayV2Metadata):
            guarded: Any = _with_bounded_v2(metadata, chunk_bytes)
        else:
            guarded = _with_bounded_v3(metadata, chunk_bytes)
    except _RefusedError as error:
        raise FieldError(f"{url}: '{name}' {error}; {remedy}") from error
    store = _bounded_store(array.store, chunk_bytes, chunk_shape, shard_shape)
    store_path = StorePath(store, array.path)
    return zarr.Array(zarr.AsyncArray(guarded, store_path, array.async_array.config))


class BoundedStore(WrapperStore[Store]):
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

    def _with_store(self, store: Store) -> BoundedStore:
        return type(self)(store, self._whole_bytes, self._part_bytes)

    async def get(
        self, key: str, prototype: BufferPrototype, byte_range: ByteRequest | None = None
    ) -> Buffer | None:
        """Read an object or a range of it, as Zarr asks.

        Raises
        ------
        ValueError
            If it is larger than it can be.
        """
        if isinstance(byte_range, RangeByteRequest):
            self._check(key, byte_range.end - byte_range.start, self._part_bytes)
        wanted = byte_range or RangeByteRequest(0, self._whole_bytes + 1)
        found: Buffer | None = await super().get(key, prototype, wanted)
        if found is not None and byte_range is None:
            self._check(key, len(found), self._whole_bytes)
        return found

    async def get_partial_values(
        self,
        prototype: BufferPrototype,
        key_ranges: Iterable[tuple[str, ByteRequest | None]],
    ) -> list[Buffer | None]:
        """Read several ranges, as :meth:`get` does.

        Raises
        ------
        ValueError
            If one is larger than it can be.
        """
        return [await self.get(key, prototype, wanted) for key, wanted in key_ranges]

    @staticmethod
    def _check(key: str, size: int, limit: int) -> None:
        if size > limit:
            raise ValueError(f"{key} holds more than the {limit:,} bytes that it can need")


class BoundedDocuments(BoundedStore):
    """A store that reads no more of its metadata than :data:`MAX_DOCUMENT_BYTES` each, and all else as asked.

    Parameters
    ----------
    store : zarr.abc.store.Store
        Where the objects are.
    """

    def __init__(self, store: Store) -> None:
        super().__init__(store, MAX_DOCUMENT_BYTES)

    def _with_store(self, store: Store) -> BoundedDocuments:
        return type(self)(store)

    async def get(
        self, key: str, prototype: BufferPrototype, byte_range: ByteRequest | None = None
    ) -> Buffer | None:
        """Read an object or a range of it, as Zarr asks.

        Raises
        ------
        ValueError
            If it holds metadata and is larger than they can be.
        """
        if key.rpartition("/")[2] in DOCUMENTS:
            return await super().get(key, prototype, byte_range)
        return await self._store.get(key, prototype, byte_range)


def _chunks_of(metadata: ArrayV3Metadata) -> tuple[tuple[int, ...], tuple[int, ...] | None]:
    """Return the shapes of what is decoded at once, and of a stored object that holds many such."""
    if not isinstance(metadata.chunk_grid, RegularChunkGrid):
        raise _RefusedError("has no regular grid of chunks")
    outer = metadata.chunk_grid.chunk_shape
    first = metadata.codecs[0]
    return (first.chunk_shape, outer) if isinstance(first, ShardingCodec) else (outer, None)


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


def _with_bounded_v3(metadata: ArrayV3Metadata, chunk_bytes: int) -> ArrayV3Metadata:
    first = metadata.codecs[0]
    if not isinstance(first, ShardingCodec):
        return replace(metadata, codecs=_bounded_codecs(metadata.codecs, chunk_bytes))
    if len(metadata.codecs) > 1:
        raise _RefusedError("has shards inside another codec, which cannot be read in parts")
    for codec in first.index_codecs:
        if not isinstance(codec, BytesCodec | Crc32cCodec):
            raise _RefusedError(f"has shards whose index has the codec {_name_of(codec)!r}")
    sharding = ShardingCodec(
        chunk_shape=first.chunk_shape,
        codecs=_bounded_codecs(first.codecs, chunk_bytes),
        index_codecs=first.index_codecs,
        index_location=first.index_location,
    )
    return replace(metadata, codecs=(sharding,))


def _bounded_codecs(codecs: Iterable[Codec], size: int) -> tuple[Codec, ...]:
    """Return codecs, of which at most one compresses: then the size of what it decodes to is known."""
    found: list[Codec] = []
    for codec in codecs:
        name = _name_of(codec).removeprefix("numcodecs.")
        if name in COMPRESSORS:
            if any(isinstance(each, BoundedCodec) for each in found):
                raise _RefusedError(
                    f"has the codec {name!r} twice, or another compressor before it"
                )
            found.append(BoundedCodec(BoundedCompressor(name, size)))
        elif isinstance(codec, BytesCodec | TransposeCodec | Crc32cCodec):
            found.append(codec)
            size += _CHECKSUM_BYTES if isinstance(codec, Crc32cCodec) else 0
        else:
            raise _RefusedError(f"has the codec {name!r}, which is not read")
    return tuple(found)


def _with_bounded_v2(metadata: ArrayV2Metadata, size: int) -> ArrayV2Metadata:
    for codec in metadata.filters or ():
        name = codec.get_config()["id"]
        if name not in {"crc32c", "shuffle"}:
            raise _RefusedError(f"has the filter {name!r}, which is not read")
        size += _CHECKSUM_BYTES if name == "crc32c" else 0
    if metadata.compressor is None:
        return metadata
    name = metadata.compressor.get_config()["id"]
    if name not in COMPRESSORS:
        raise _RefusedError(f"has the compressor {name!r}, which is not read")
    return replace(metadata, compressor=BoundedCompressor(name, size))


def _name_of(codec: Codec) -> str:
    return str(codec.to_dict().get("name", type(codec).__name__))


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
