"""How many bytes this process has read from the Zarr groups that it opened, whatever store holds them."""

from __future__ import annotations

from zarr.abc.buffer import Buffer, BufferPrototype
from zarr.abc.store import ByteRequest

from deblend_batch.arrays.layers import Layer


class _Total:
    # Stores are read in zarr's one event loop, so that no two additions meet.
    n_bytes = 0


def bytes_read() -> int:
    """Return the bytes that this process has read, as stored: compressed."""
    return _Total.n_bytes


class CountingStore(Layer):
    """A store that counts the bytes read from the one below."""

    async def get(
        self, key: str, prototype: BufferPrototype, byte_range: ByteRequest | None = None
    ) -> Buffer | None:
        """Read an object, or a range of it."""
        found = await super().get(key, prototype, byte_range)
        if found is not None:
            _Total.n_bytes += len(found)
        return found
