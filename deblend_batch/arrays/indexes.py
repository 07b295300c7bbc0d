"""The indexes of a remote field's shards, which Zarr asks for anew with each chunk."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from functools import partial
from typing import Any, TypeAlias

from zarr.abc.buffer import Buffer, BufferPrototype
from zarr.abc.store import ByteRequest, Store, SuffixByteRequest

from deblend_batch.arrays.layers import Layer

INDEXES_KEPT = 1024
"""Of 1 KiB each in a field that we made, whose shards have 64 chunks."""

_Place: TypeAlias = tuple[str, int]
_Asked: TypeAlias = "asyncio.Task[Buffer | None]"


class KeptIndexes(Layer):
    """A store that is only read, and asked once for the end of each object, where a shard has its index.

    That an object is written anew is not noticed: a field is opened once for each start of a run.

    Parameters
    ----------
    store : Store
        Where the objects are.
    """

    def __init__(self, store: Store) -> None:
        if not store.read_only:
            raise ValueError("the indexes of a store that is written change")
        super().__init__(store)
        self._indexes: OrderedDict[_Place, _Asked] = OrderedDict()

    def with_read_only(self, read_only: bool = False) -> KeptIndexes:
        """Return a new layer, which has kept nothing yet."""
        return type(self)(self._below.with_read_only(read_only))

    def __getstate__(self) -> dict[str, Any]:
        return {**super().__getstate__(), "_indexes": OrderedDict()}

    async def get(
        self, key: str, prototype: BufferPrototype, byte_range: ByteRequest | None = None
    ) -> Buffer | None:
        """Read an object, or a range of it; the end of one is not to be altered by who gets it."""
        if not isinstance(byte_range, SuffixByteRequest):
            return await super().get(key, prototype, byte_range)
        # All of Zarr's reads are coroutines of one thread: nothing comes between these lines.
        place = key, byte_range.suffix
        if (asked := self._indexes.get(place)) is None:
            asked = asyncio.create_task(super().get(key, prototype, byte_range))
            asked.add_done_callback(partial(self._forget_failed, place))
            self._indexes[place] = asked
            if len(self._indexes) > INDEXES_KEPT:
                self._indexes.popitem(last=False)
        else:
            self._indexes.move_to_end(place)
        return await asyncio.shield(asked)

    def _forget_failed(self, place: _Place, asked: _Asked) -> None:
        failed = asked.cancelled() or asked.exception() is not None
        if failed and self._indexes.get(place) is asked:
            del self._indexes[place]
