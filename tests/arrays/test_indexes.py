"""The index of a shard is asked for once, whoever asks, and only an answer is kept."""

from __future__ import annotations

import asyncio
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from itertools import product
from pathlib import Path

import numpy as np
import pytest
import zarr
from zarr.abc.buffer import Buffer, BufferPrototype
from zarr.abc.store import ByteRequest, RangeByteRequest, Store, SuffixByteRequest
from zarr.buffer import default_buffer_prototype
from zarr.storage import LocalStore, MemoryStore, WrapperStore

from deblend_batch.arrays import indexes
from deblend_batch.arrays.indexes import KeptIndexes

EDGE, SHARD, CHUNK = 64, 32, 8
END = SuffixByteRequest(4)


class Watched(WrapperStore[Store]):
    """A store that counts what it is asked for, and fails as often as told."""

    def __init__(self, store: Store, failures: int = 0) -> None:
        super().__init__(store)
        self.asked: Counter[str] = Counter()
        self.failures = failures

    async def get(
        self, key: str, prototype: BufferPrototype, byte_range: ByteRequest | None = None
    ) -> Buffer | None:
        if isinstance(byte_range, SuffixByteRequest):
            self.asked[key] += 1
            await asyncio.sleep(0.02)
            if self.failures:
                self.failures -= 1
                raise ConnectionResetError("gone")
        return await super().get(key, prototype, byte_range)


@pytest.fixture
def watched(tmp_path: Path) -> Watched:
    """A store with an array ``image`` of four shards of 16 chunks; one was never written."""
    group = zarr.open_group(LocalStore(tmp_path), mode="w")
    image = group.create_array(
        "image", shape=(EDGE, EDGE), dtype="f4", chunks=(CHUNK, CHUNK), shards=(SHARD, SHARD)
    )
    image[:SHARD] = np.arange(SHARD * EDGE, dtype="f4").reshape(SHARD, EDGE)
    image[SHARD:, :SHARD] = 5
    return Watched(LocalStore(tmp_path, read_only=True))


def test_threads_that_ask_at_once_ask_the_store_once(watched: Watched) -> None:
    image = zarr.open_group(KeptIndexes(watched), mode="r")["image"]
    assert isinstance(image, zarr.Array)
    corners = list(product(range(0, EDGE, CHUNK), repeat=2))
    with ThreadPoolExecutor(8) as threads:
        parts = list(threads.map(lambda yx: image[yx[0] : yx[0] + 4, yx[1] : yx[1] + 4], corners))
    expected = np.zeros((EDGE, EDGE), "f4")
    expected[:SHARD] = np.arange(SHARD * EDGE).reshape(SHARD, EDGE)
    expected[SHARD:, :SHARD] = 5
    for (y, x), part in zip(corners, parts, strict=True):
        np.testing.assert_array_equal(part, expected[y : y + 4, x : x + 4])
    assert sorted(watched.asked.values()) == [1, 1, 1, 1]  # the one that is not there too


def test_a_failure_is_not_kept(watched: Watched) -> None:
    watched.failures = 1
    image = zarr.open_group(KeptIndexes(watched), mode="r")["image"]
    assert isinstance(image, zarr.Array)
    with pytest.raises(ConnectionResetError, match="gone"):
        image[:4, :4]
    np.testing.assert_array_equal(image[:2, :2], [[0, 1], [EDGE, EDGE + 1]])
    assert watched.asked.total() == 2


def test_ends_of_other_lengths_and_other_parts_are_not_mistaken_for_it() -> None:
    store = MemoryStore()
    asyncio.run(store.set("a", default_buffer_prototype().buffer.from_bytes(b"0123456789")))
    kept = KeptIndexes(Watched(store.with_read_only(True)))

    async def all_at_once() -> list[bytes]:
        ranges: list[ByteRequest | None] = [
            END,
            SuffixByteRequest(2),
            RangeByteRequest(6, 10),
            END,
            None,
        ]
        found = await asyncio.gather(
            *(kept.get("a", default_buffer_prototype(), each) for each in ranges)
        )
        return [part.to_bytes() for part in found if part is not None]

    assert asyncio.run(all_at_once()) == [b"6789", b"89", b"6789", b"6789", b"0123456789"]


def test_only_so_many_are_kept(watched: Watched, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(indexes, "INDEXES_KEPT", 2)
    kept = KeptIndexes(watched)

    async def in_turn(*keys: str) -> None:
        for key in keys:
            await kept.get(key, default_buffer_prototype(), END)

    one, two, three = (f"image/c/{place}" for place in ("0/0", "0/1", "1/0"))
    asyncio.run(in_turn(one, two, one, three, one, two))
    assert watched.asked == {one: 1, two: 2, three: 1}


def test_a_store_that_can_be_written_keeps_none(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="the indexes of a store that is written change"):
        KeptIndexes(LocalStore(tmp_path))
