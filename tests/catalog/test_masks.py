from __future__ import annotations

import os
import shutil
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
import zarr
from hypothesis import given
from hypothesis import strategies as st

from deblend_batch.catalog.masks import CHANNELS, MaskStore, quantise
from deblend_batch.catalog.output import Output
from deblend_batch.errors import CatalogError, StorageError
from tests.support import member


def some_masks(n: int, seed: int = 0) -> np.ndarray:
    return quantise(np.random.default_rng(seed).random((n, 3, 8, 8), np.float32))


@given(st.floats(0, 1, width=32))
def test_a_byte_is_within_half_a_step_of_its_probability(probability: float) -> None:
    byte = quantise(np.array([probability], np.float32))
    assert byte.dtype == np.uint8
    assert abs(float(byte[0]) / 255 - probability) <= 1 / 510 + 1e-6


def test_what_is_written_is_read_with_plain_zarr(tmp_path: Path) -> None:
    store = MaskStore(Output(str(tmp_path)))
    store.create()
    first = store.write("y0_x0", np.arange(300), some_masks(300))
    other = store.write("y0_x1", np.arange(2), some_masks(2))
    root = zarr.open_group(tmp_path / "masks.zarr", mode="r")
    names = [f"y0_x0-{first[:16]}", f"y0_x1-{other[:16]}"]
    assert sorted(root.group_keys()) == names
    assert tuple(root.attrs.asdict()["channels"]) == CHANNELS  # type: ignore[arg-type]
    group = root[names[0]]
    assert isinstance(group, zarr.Group)
    np.testing.assert_array_equal(member(group, "masks")[...], some_masks(300))
    np.testing.assert_array_equal(member(group, "blend_id")[...], np.arange(300))
    assert member(group, "masks").metadata.dimension_names == ("pair", "channel", "y", "x")  # type: ignore[union-attr]


def test_what_is_read_is_what_was_written(tmp_path: Path) -> None:
    """Also where another writer of the tile has other masks, and where it was cut short."""
    store = MaskStore(Output(str(tmp_path)))
    ours = store.write("tile", np.arange(300), some_masks(300))
    theirs = store.write("tile", np.arange(2), some_masks(2))
    assert ours != theirs
    shutil.rmtree(tmp_path / "masks.zarr" / f"tile-{ours[:16]}" / "blend_id")
    assert store.write("tile", np.arange(300), some_masks(300)) == ours
    blends, masks = store.read("tile", ours, 300)
    np.testing.assert_array_equal(blends, np.arange(300))
    np.testing.assert_array_equal(masks, some_masks(300))
    store.remove("tile", theirs)
    store.remove("tile", theirs)
    with pytest.raises(CatalogError, match="masks missing"):
        store.read("tile", theirs, 2)


@pytest.mark.parametrize(
    "what", ["group", "array", "bits", "metadata", "chunk", "pipe", "device", "too many"]
)
def test_masks_that_cannot_be_read_are_named(tmp_path: Path, what: str) -> None:
    store = MaskStore(Output(str(tmp_path)))
    sha256 = store.write("tile", np.arange(2), some_masks(2))
    group = tmp_path / "masks.zarr" / f"tile-{sha256[:16]}"
    chunk = group / "masks" / "c" / "0" / "0" / "0" / "0"
    if what == "group":
        shutil.rmtree(group)
    elif what == "array":
        shutil.rmtree(group / "masks")
    elif what == "bits":
        content = bytearray(chunk.read_bytes())
        content[-6] ^= 1
        chunk.write_bytes(bytes(content))
    elif what == "metadata":
        (group / "masks" / "zarr.json").write_text("{")
    elif what == "chunk":
        chunk.unlink()  # zarr reads zeros then
    elif what == "pipe":
        chunk.unlink()
        os.mkfifo(chunk)
    elif what == "device":
        (group / "masks" / "zarr.json").unlink()
        (group / "masks" / "zarr.json").symlink_to("/dev/zero")
    else:  # a petabyte of them
        text = (group / "masks" / "zarr.json").read_text()
        assert '"shape": [\n    2,' in text
        text = text.replace('"shape": [\n    2,', '"shape": [\n    2000000000000,', 1)
        (group / "masks" / "zarr.json").write_text(text)
    with pytest.raises(
        CatalogError, match=r"masks\.zarr/tile-.*: masks (missing|altered).*; remove"
    ):
        store.read("tile", sha256, 2)


def test_writers_at_the_same_moment_do_not_hinder_each_other(tmp_path: Path) -> None:
    def write(number: int) -> str:
        store, n = MaskStore(Output(str(tmp_path))), 299 + number % 2
        store.create()
        return store.write("tile", np.arange(n), some_masks(n))

    with ThreadPoolExecutor(4) as pool:
        written = set(pool.map(write, range(12)))
    store, found = MaskStore(Output(str(tmp_path))), set()
    for sha256 in written:
        for n in (299, 300):
            with suppress(CatalogError):  # masks of another number of pairs are not read
                found.add(len(store.read("tile", sha256, n)[0]))
    assert found == {299, 300}


def test_a_store_that_refuses_is_named(tmp_path: Path) -> None:
    (tmp_path / "masks.zarr").write_text("in the way")
    with pytest.raises(StorageError, match=r"masks\.zarr/tile"):
        MaskStore(Output(str(tmp_path))).write("tile", np.arange(2), some_masks(2))
