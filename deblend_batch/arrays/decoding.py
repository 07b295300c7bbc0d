"""Decompression into a size known beforehand: a chunk that would be larger is refused, not allocated.

Zarr's own codecs believe what a compressed chunk says of its size. These know the size from the array's
metadata, compare it with what the chunk announces, and give no more memory than that.
"""

from __future__ import annotations

import asyncio
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Self

import numcodecs
import numcodecs.abc
import numpy as np
import zarr.registry
from numpy.typing import NDArray
from zarr.abc.buffer import Buffer
from zarr.abc.codec import BytesBytesCodec

if TYPE_CHECKING:
    from zarr.core.array_spec import ArraySpec  # of Zarr's signatures; at run time it is not needed

BOUNDED = "deblend_batch.bounded"
"""Name of the codec that stands in an array's metadata for the compressor that a stranger chose."""
_ZSTD_MAGIC = b"\x28\xb5\x2f\xfd"
_BLOSC_HEADER_BYTES = 16

Bytes = NDArray[np.uint8]


def _check_announced(announced: int, size: int) -> None:
    if announced != size:
        raise ValueError(f"announces {announced:,} bytes where the array's chunks have {size:,}")


def _blosc(data: Bytes, size: int) -> Any:
    if data.size < _BLOSC_HEADER_BYTES or int(data[12:16].view("<u4")[0]) != data.size:
        raise ValueError("not a whole Blosc chunk")
    _check_announced(int(data[4:8].view("<u4")[0]), size)
    return numcodecs.Blosc().decode(data)


def _lz4(data: Bytes, size: int) -> Any:
    if data.size < 4:
        raise ValueError("not a whole LZ4 chunk")
    _check_announced(int(data[:4].view("<i4")[0]), size)
    return numcodecs.LZ4().decode(data)


def _zstd(data: Bytes, size: int) -> Any:
    announced = _zstd_content_size(bytes(data[:18]))
    if announced is not None:
        _check_announced(announced, size)
    # Further frames, and a frame that announces nothing, have no room but this.
    return numcodecs.Zstd().decode(data, np.empty(size, np.uint8))


def _zstd_content_size(head: bytes) -> int | None:
    """Return the size that a zstd frame announces (RFC 8878, 3.1.1.1), or None where it announces none."""
    if head[:4] != _ZSTD_MAGIC or len(head) < 5:
        raise ValueError("not a zstd frame")
    descriptor = head[4]
    single_segment, kind = bool(descriptor & 0x20), descriptor >> 6
    if kind == 0 and not single_segment:
        return None
    width = 1 << kind
    start = 5 + (0 if single_segment else 1) + (0, 1, 2, 4)[descriptor & 3]
    size = int.from_bytes(head[start : start + width], "little")
    return size + 256 if kind == 1 else size


def _deflate(data: Bytes, size: int) -> bytes:
    """Decode zlib or gzip, told by their headers."""
    decoder = zlib.decompressobj(wbits=zlib.MAX_WBITS | 32)
    decoded = decoder.decompress(data.data, size + 1)
    if len(decoded) != size or not decoder.eof or decoder.unused_data:
        more = "more" if len(decoded) > size or decoder.unused_data else "fewer"
        raise ValueError(f"decodes to {more} bytes than the {size:,} of the array's chunks")
    return decoded


_DECODERS: dict[str, Callable[[Bytes, int], Any]] = {
    "blosc": _blosc,
    "gzip": _deflate,
    "lz4": _lz4,
    "zlib": _deflate,
    "zstd": _zstd,
}
COMPRESSORS = frozenset(_DECODERS)
"""Names of the compressors that are read."""


@dataclass(frozen=True)
class BoundedCompressor(numcodecs.abc.Codec):  # type: ignore[misc]  # it has no types
    """The compressor of a Zarr format 2 array, for reading; decodes to one size, and to no other.

    Parameters
    ----------
    compressor : str
        One of :data:`COMPRESSORS`.
    size : int
        Bytes that a chunk decodes to.
    """

    codec_id: ClassVar[str] = BOUNDED

    compressor: str
    size: int

    def decode(self, buf: Any, out: Any = None) -> Any:
        """Decode a chunk into ``size`` bytes; ValueError if it is damaged, or would have another size."""
        del out  # of numcodecs' protocol; Zarr gives none
        try:
            return _DECODERS[self.compressor](np.frombuffer(buf, np.uint8), self.size)
        except (RuntimeError, zlib.error) as error:
            raise ValueError(str(error)) from error

    def encode(self, buf: Any) -> Any:
        """Refuse: a field that is opened is read only."""
        raise NotImplementedError("opened for reading")

    def get_config(self) -> dict[str, Any]:
        """Return what stands for it in an array's metadata."""
        return {"id": BOUNDED, "compressor": self.compressor, "size": self.size}

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> Self:
        """Make one of what stands in an array's metadata."""
        return cls(config["compressor"], config["size"])


@dataclass(frozen=True)
class BoundedCodec(BytesBytesCodec):
    """The same for a Zarr format 3 array.

    Parameters
    ----------
    within : BoundedCompressor
        Does the work.
    """

    is_fixed_size: ClassVar[bool] = False  # type: ignore[misc]

    within: BoundedCompressor

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Self:
        """Make one of what stands in an array's metadata."""
        return cls(BoundedCompressor.from_config(data["configuration"]))

    def to_dict(self) -> dict[str, Any]:
        """Return what stands for it in an array's metadata."""
        values = {"compressor": self.within.compressor, "size": self.within.size}
        return {"name": BOUNDED, "configuration": values}

    def compute_encoded_size(self, input_byte_length: int, chunk_spec: ArraySpec) -> int:
        """Refuse: it is not known."""
        raise NotImplementedError("depends on the pixels")

    async def _decode_single(self, chunk_data: Buffer, chunk_spec: ArraySpec) -> Buffer:
        return await asyncio.to_thread(self._decode, chunk_data, chunk_spec)

    def _decode(self, chunk: Buffer, spec: ArraySpec) -> Buffer:
        return spec.prototype.buffer.from_bytes(self.within.decode(chunk.as_numpy_array()))


numcodecs.register_codec(BoundedCompressor)
zarr.registry.register_codec(BOUNDED, BoundedCodec)
