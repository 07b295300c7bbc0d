from __future__ import annotations

import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import zarr
from hypothesis import given
from hypothesis import strategies as st

from deblend_batch.catalog.masks import CHANNELS, MaskStore, digest, quantise
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
    store = MaskStore(str(tmp_path))
    store.create()
    store.write("y0_x0", np.arange(300), some_masks(300))
    store.write("y0_x1", np.arange(2), some_masks(2))
    root = zarr.open_group(tmp_path / "masks.zarr", mode="r")
    assert sorted(root.group_keys()) == ["y0_x0", "y0_x1"]
    assert tuple(root.attrs.asdict()["channels"]) == CHANNELS  # type: ignore[arg-type]
    group = root["y0_x0"]
    assert isinstance(group, zarr.Group)
    np.testing.assert_array_equal(member(group, "masks")[...], some_masks(300))
    np.testing.assert_array_equal(member(group, "blend_id")[...], np.arange(300))
    assert member(group, "masks").metadata.dimension_names == ("pair", "channel", "y", "x")  # type: ignore[union-attr]


def test_a_tile_s_masks_take_the_place_of_earlier_ones(tmp_path: Path) -> None:
    store = MaskStore(str(tmp_path))
    store.create()
    for n in (5, 3):
        store.write("tile", np.arange(n), some_masks(n, seed=n))
        store.create()
    group = zarr.open_group(tmp_path / "masks.zarr" / "tile", mode="r")
    np.testing.assert_array_equal(member(group, "masks")[...], some_masks(3, seed=3))


def test_what_is_read_is_what_was_written(tmp_path: Path) -> None:
    store = MaskStore(str(tmp_path))
    sha256 = store.write("tile", np.arange(300), some_masks(300))
    blends, masks = store.read("tile")
    np.testing.assert_array_equal(blends, np.arange(300))
    np.testing.assert_array_equal(masks, some_masks(300))
    assert digest(blends, masks) == sha256 != digest(blends, some_masks(300, seed=1))


@pytest.mark.parametrize("what", ["group", "array", "bits", "metadata"])
def test_masks_that_cannot_be_read_are_named(tmp_path: Path, what: str) -> None:
    store = MaskStore(str(tmp_path))
    store.write("tile", np.arange(2), some_masks(2))
    group = tmp_path / "masks.zarr" / "tile"
    chunk = group / "masks" / "c" / "0" / "0" / "0" / "0"
    if what == "group":
        shutil.rmtree(group)
    elif what == "array":
        shutil.rmtree(group / "masks")
    elif what == "bits":
        content = bytearray(chunk.read_bytes())
        content[-6] ^= 1
        chunk.write_bytes(bytes(content))
    else:
        (group / "masks" / "zarr.json").write_text("{")
    with pytest.raises(CatalogError, match=r"masks\.zarr/tile: masks missing or damaged; remove"):
        store.read("tile")


def test_writers_at_the_same_moment_do_not_hinder_each_other(tmp_path: Path) -> None:
    def write(_: int) -> str:
        store = MaskStore(str(tmp_path))
        store.create()
        return store.write("tile", np.arange(300), some_masks(300))

    with ThreadPoolExecutor(4) as pool:
        (sha256,) = set(pool.map(write, range(12)))
    assert digest(*MaskStore(str(tmp_path)).read("tile")) == sha256


def test_a_store_that_refuses_is_named(tmp_path: Path) -> None:
    (tmp_path / "masks.zarr").write_text("in the way")
    with pytest.raises(StorageError, match=r"masks\.zarr/tile"):
        MaskStore(str(tmp_path)).write("tile", np.arange(2), some_masks(2))
