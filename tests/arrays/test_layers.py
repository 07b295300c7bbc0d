"""The stores that reads go through: sound as Zarr's own tests ask, and with no way round them."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr
from zarr.abc.buffer import Buffer, BufferPrototype
from zarr.abc.store import ByteRequest, OffsetByteRequest, Store, SuffixByteRequest, SupportsGetSync
from zarr.buffer import cpu, default_buffer_prototype
from zarr.storage import LocalStore
from zarr.testing.store import StoreTests

from deblend_batch.arrays.bounds import BoundedDocuments, BoundedStore, KnownDocuments, bounded
from deblend_batch.arrays.counting import CountingStore, bytes_read
from deblend_batch.arrays.indexes import KeptIndexes
from deblend_batch.arrays.layers import Layer
from deblend_batch.arrays.stores import Patient, WithoutEnds
from deblend_batch.errors import FieldError
from tests.support import edit_array

READ_PATHS = frozenset({"get", "get_partial_values", "getsize", "getsize_prefix", "exists"})
WRITES_AND_LISTS = frozenset(
    {
        *("set", "set_if_not_exists", "delete", "delete_dir", "clear", "is_empty"),
        *("list", "list_dir", "list_prefix", "open", "close", "with_read_only", "read_only"),
        *("supports_writes", "supports_deletes", "supports_listing", "supports_partial_writes"),
        "supports_consolidated_metadata",
    }
)


def local(root: str, *, read_only: bool = False) -> LocalStore:
    return LocalStore(root, read_only=read_only)


class Counting(CountingStore):
    def __init__(self, root: str, *, read_only: bool = False) -> None:
        super().__init__(local(root, read_only=read_only))


class Bounded(BoundedStore):
    def __init__(self, root: str, *, read_only: bool = False) -> None:
        super().__init__(local(root, read_only=read_only), 1 << 20)


class Documents(BoundedDocuments):
    def __init__(self, root: str, *, read_only: bool = False) -> None:
        Layer.__init__(self, local(root, read_only=read_only))
        self._documents = BoundedStore(self._below, 1 << 20)

    def with_read_only(self, read_only: bool = False) -> Documents:
        return type(self)(str(self._below.root), read_only=read_only)  # type: ignore[attr-defined]


class Known(KnownDocuments):
    def __init__(self, root: str, *, read_only: bool = False) -> None:
        super().__init__(local(root, read_only=read_only), {})


class Asking(Patient):
    def __init__(self, root: str, *, read_only: bool = False) -> None:
        super().__init__(local(root, read_only=read_only))


class Endless(WithoutEnds):
    def __init__(self, root: str, *, read_only: bool = False) -> None:
        super().__init__(local(root, read_only=read_only))


@pytest.mark.parametrize("kind", [Counting, Bounded, Documents, Known, Asking, Endless])
class TestLayer(StoreTests[Layer, cpu.Buffer]):
    """What Zarr asks of every store."""

    buffer_cls = cpu.Buffer
    # A layer offers no reads or writes beside its coroutines, so that these would all be skipped.
    test_get_sync = test_get_sync_missing = test_set_sync = None  # type: ignore[assignment]
    test_delete_sync = test_delete_sync_missing = None  # type: ignore[assignment]

    @pytest.fixture(autouse=True)
    def _of_kind(self, kind: type[Layer]) -> None:
        self.store_cls = kind

    async def set(self, store: Layer, key: str, value: Buffer) -> None:
        path = Path(store._below.root, key)  # type: ignore[attr-defined]
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(value.to_bytes())

    async def get(self, store: Layer, key: str) -> Buffer:
        return self.buffer_cls.from_bytes(Path(store._below.root, key).read_bytes())  # type: ignore[attr-defined]

    @pytest.fixture
    def store_kwargs(self, tmp_path: Path) -> dict[str, Any]:
        return {"root": str(tmp_path)}

    def test_store_repr(self, store: Layer) -> None:
        assert repr(store).startswith(type(store).__name__)

    def test_store_supports_writes(self, store: Layer) -> None:
        assert store.supports_writes

    def test_store_supports_listing(self, store: Layer) -> None:
        assert store.supports_listing


def test_every_way_to_read_that_zarr_has_is_known() -> None:
    """A release that adds one fails here: see that its default is made of ``get``, then add its name."""
    public = {name for name in dir(Store) if not name.startswith("_")}
    assert public == READ_PATHS | WRITES_AND_LISTS


class Guarded(Store):
    """A store of a later release: whoever reads it by anything but ``get`` has gone round the guards."""

    def __init__(self, below: Store) -> None:
        super().__init__(read_only=below.read_only)
        self.below = below
        self.read = 0

    def __eq__(self, other: object) -> bool:
        return self is other

    __hash__ = None  # type: ignore[assignment]

    async def get(
        self, key: str, prototype: BufferPrototype, byte_range: ByteRequest | None = None
    ) -> Buffer | None:
        found = await self.below.get(key, prototype, byte_range)
        self.read += 0 if found is None else len(found)
        return found

    async def get_partial_values(self, prototype: Any, key_ranges: Any) -> Any:
        raise AssertionError("read past the guards")

    async def get_ranges(self, *_: Any, **__: Any) -> Any:
        raise AssertionError("read past the guards")

    def _get_many(self, requests: Iterable[Any]) -> Any:
        raise AssertionError("read past the guards")

    async def _get_bytes(self, *_: Any, **__: Any) -> Any:
        raise AssertionError("read past the guards")

    def get_sync(self, *_: Any, **__: Any) -> Any:
        raise AssertionError("read past the guards")

    async def exists(self, key: str) -> bool:
        return await self.below.exists(key)

    async def set(self, key: str, value: Buffer) -> None:
        raise NotImplementedError

    async def delete(self, key: str) -> None:
        raise NotImplementedError

    supports_writes = supports_deletes = False
    supports_listing = True

    def list(self) -> AsyncIterator[str]:
        return self.below.list()

    def list_prefix(self, prefix: str) -> AsyncIterator[str]:
        return self.below.list_prefix(prefix)

    def list_dir(self, prefix: str) -> AsyncIterator[str]:
        return self.below.list_dir(prefix)


@pytest.mark.parametrize("zarr_format", [2, 3])
@pytest.mark.parametrize("shards", [None, (32, 32)])
def test_all_bytes_of_an_array_come_through_the_guards(
    shards: tuple[int, int] | None, zarr_format: Any, tmp_path: Path
) -> None:
    """Whole, in part, and in many parts at once, sharded or not."""
    if shards and zarr_format == 2:
        return
    pixels = np.arange(64.0 * 64, dtype="f4").reshape(64, 64)
    group = zarr.open_group(LocalStore(tmp_path), mode="w", zarr_format=zarr_format)
    made = group.create_array("image", shape=(64, 64), dtype="f4", chunks=(8, 8), shards=shards)
    made[...] = pixels
    last = Guarded(LocalStore(tmp_path, read_only=True))
    store = KeptIndexes(CountingStore(BoundedDocuments(last)))
    assert not isinstance(store, SupportsGetSync)
    assert not hasattr(store, "get_ranges")
    before = bytes_read()
    opened = zarr.open_group(store, mode="r")["image"]
    assert isinstance(opened, zarr.Array)
    image = bounded(opened, "a.zarr", "image")
    np.testing.assert_array_equal(image[...], pixels)
    np.testing.assert_array_equal(image[3:40, 5:7], pixels[3:40, 5:7])
    np.testing.assert_array_equal(image[::9, ::7], pixels[::9, ::7])
    assert last.read > pixels.nbytes / 4
    assert bytes_read() - before == last.read


@pytest.mark.parametrize(
    "wanted", [None, OffsetByteRequest(0), OffsetByteRequest(4), SuffixByteRequest(20)]
)
def test_no_kind_of_request_passes_a_bound(wanted: ByteRequest | None, tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(bytes(1000))
    store = BoundedStore(LocalStore(tmp_path, read_only=True), 16)
    with pytest.raises(ValueError, match="a holds more than the 16 bytes that it can need"):
        asyncio.run(store.get("a", default_buffer_prototype(), wanted))


def test_transformers_of_stored_objects_are_refused(tmp_path: Path) -> None:
    """Zarr reads on without them, and would give other pixels than were written."""
    url = str(tmp_path)
    group = zarr.open_group(url, mode="w", zarr_format=3)
    group.create_array("image", shape=(64, 64), dtype="f4", chunks=(8, 8))
    edit_array(url, "image", storage_transformers=[{"name": "indirection", "configuration": {}}])
    opened = zarr.open_group(url, mode="r")["image"]
    assert isinstance(opened, zarr.Array)
    with pytest.raises(FieldError, match="'image' has storage transformers, which are not underst"):
        bounded(opened, url, "image")


def test_a_strangers_array_cannot_name_the_codec_of_ours(tmp_path: Path) -> None:
    url = str(tmp_path)
    group = zarr.open_group(url, mode="w", zarr_format=3)
    group.create_array("image", shape=(64, 64), dtype="f4", chunks=(8, 8))
    document = json.loads((tmp_path / "image" / "zarr.json").read_text())
    ours = {
        "name": "deblend_batch.bounded",
        "configuration": {"compressor": "zstd", "size": 1 << 40},
    }
    edit_array(url, "image", codecs=[document["codecs"][0], ours])
    opened = zarr.open_group(url, mode="r")["image"]
    assert isinstance(opened, zarr.Array)
    with pytest.raises(FieldError, match=r"the codec 'deblend_batch\.bounded', which is not read"):
        bounded(opened, url, "image")
