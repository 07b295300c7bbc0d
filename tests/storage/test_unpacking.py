"""Packed files give what was packed, within bounds, or one line."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from deblend_batch import storage
from deblend_batch.errors import DamagedFileError, TooLargeError

PACKERS: dict[str, Callable[[bytes], bytes]] = {
    "gzip": gzip.compress,
    "bzip2": bz2.compress,
    "xz": lzma.compress,
}
Packer = Callable[[bytes], bytes]


def unpack(content: bytes) -> bytes:
    return storage.unpacked(io.BytesIO(content), "a").read()


@given(
    packer=st.sampled_from(list(PACKERS.values())),
    parts=st.lists(st.binary(max_size=2000), min_size=1, max_size=3),
    padding=st.sampled_from([0, 4, 100]),
)
def test_what_was_packed_comes_back(packer: Packer, parts: list[bytes], padding: int) -> None:
    assert unpack(b"".join(map(packer, parts)) + bytes(padding)) == b"".join(parts)


@given(st.sampled_from(sorted(PACKERS)), st.data())
def test_a_stream_that_is_cut_or_altered_is_said_to_be(kind: str, data: st.DataObject) -> None:
    packed = PACKERS[kind](bytes(range(256)) * 20)
    cut = data.draw(st.integers(8, len(packed) - 1))
    with pytest.raises(
        DamagedFileError, match=rf"^a: the {kind} stream is (truncated|damaged); fetch"
    ):
        unpack(packed[:cut])


@pytest.mark.parametrize("kind", PACKERS)
def test_a_bomb_is_not_unpacked(kind: str) -> None:
    bomb = PACKERS[kind](bytes(1 << 27))
    with pytest.raises(TooLargeError, match=r"^a: unpacks to more than 300 times its size"):
        unpack(bomb)
    with pytest.raises(TooLargeError, match=r"unpacks to more than 1,000 bytes"):
        storage.unpacked(io.BytesIO(bomb), "a", most=1000).read()


def test_a_dictionary_of_gigabytes_is_not_made() -> None:
    filters = [{"id": lzma.FILTER_LZMA2, "dict_size": 1 << 30}]
    with pytest.raises(TooLargeError, match=r"takes more than .* bytes of memory"):
        unpack(lzma.compress(b"a", filters=filters))


def test_a_failure_of_the_store_is_not_the_stream_s() -> None:
    class Broken(io.BytesIO):
        def read(self, size: int | None = -1) -> bytes:
            if self.tell() > 10:
                raise OSError(5, "Input/output error")
            return super().read(min(size or -1, 20))

    with pytest.raises(OSError, match="Input/output error"):
        storage.unpacked(Broken(bz2.compress(bytes(100))), "a").read()
