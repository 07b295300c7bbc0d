"""A store laid over another one: what reads go through, whatever a release of Zarr adds to its stores."""

from __future__ import annotations

import asyncio
import copy
from collections.abc import AsyncIterator, Iterable
from typing import Any, Self

from zarr.abc.buffer import Buffer, BufferPrototype
from zarr.abc.store import ByteRequest, Store


class Layer(Store):
    """A store on another one, which reads it by :meth:`get` alone.

    Zarr's own ``WrapperStore`` hands on every method of the store below, those that later releases will add
    too, past whatever its ``get`` does. A layer hands on only what writes, lists and measures: each other way
    to read, of this release or of another, is the one of Zarr's base class, which is made of ``get``.

    Parameters
    ----------
    store : zarr.abc.store.Store
        The store below.
    """

    def __init__(self, store: Store) -> None:
        super().__init__(read_only=store.read_only)
        self._below = store

    def __eq__(self, other: object) -> bool:
        return type(self) is type(other) and self._below == getattr(other, "_below", None)

    __hash__ = None  # type: ignore[assignment]  # as Zarr's own stores

    def __str__(self) -> str:
        return str(self._below)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self._below!r})"

    def with_read_only(self, read_only: bool = False) -> Self:
        """Return the same layer on a store that may be written, or may not."""
        twin = copy.copy(self)
        twin.__setstate__({**vars(self), "_below": self._below.with_read_only(read_only)})
        return twin

    async def get(
        self, key: str, prototype: BufferPrototype, byte_range: ByteRequest | None = None
    ) -> Buffer | None:
        """Read an object, or a range of it: the one way by which anything is read."""
        await self._ensure_open()
        return await self._below.get(key, prototype, byte_range)

    async def get_partial_values(
        self,
        prototype: BufferPrototype,
        key_ranges: Iterable[tuple[str, ByteRequest | None]],
    ) -> list[Buffer | None]:
        """Read several ranges at once, each as :meth:`get` does."""
        asked = (self.get(key, prototype, wanted) for key, wanted in key_ranges)
        return list(await asyncio.gather(*asked))

    async def getsize(self, key: str) -> int:
        """Return the size of an object, without reading it."""
        return await self._below.getsize(key)

    async def exists(self, key: str) -> bool:
        """Tell whether there is such an object."""
        return await self._below.exists(key)

    @property
    def supports_writes(self) -> bool:
        """Whether objects can be written."""
        return self._below.supports_writes

    @property
    def supports_deletes(self) -> bool:
        """Whether objects can be removed."""
        return self._below.supports_deletes

    @property
    def supports_listing(self) -> bool:
        """Whether objects can be listed."""
        return self._below.supports_listing

    async def set(self, key: str, value: Buffer) -> None:
        """Write an object."""
        self._check_writable()
        await self._ensure_open()
        await self._below.set(key, value)

    async def set_if_not_exists(self, key: str, value: Buffer) -> None:
        """Write an object unless it is there."""
        self._check_writable()
        await self._ensure_open()
        await self._below.set_if_not_exists(key, value)

    async def delete(self, key: str) -> None:
        """Remove an object."""
        self._check_writable()
        await self._below.delete(key)

    async def delete_dir(self, prefix: str) -> None:
        """Remove all objects under a prefix."""
        self._check_writable()
        await self._below.delete_dir(prefix)

    def list(self) -> AsyncIterator[str]:
        """List all objects."""
        return self._below.list()

    def list_prefix(self, prefix: str) -> AsyncIterator[str]:
        """List the objects whose names begin so."""
        return self._below.list_prefix(prefix)

    def list_dir(self, prefix: str) -> AsyncIterator[str]:
        """List the members of a folder."""
        return self._below.list_dir(prefix)

    def close(self) -> None:
        """Close this store and the one below."""
        super().close()
        self._below.close()

    def __getstate__(self) -> dict[str, Any]:
        return dict(vars(self))

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state)
        self._read_only = self._below.read_only
        self._is_open = False
