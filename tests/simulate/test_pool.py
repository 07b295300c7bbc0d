from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr
from hypothesis import given
from hypothesis import strategies as st

from deblend_batch.errors import ConfigError, NotFoundError, OutputConflictError, UserError
from deblend_batch.simulate.galaxies.pool import (
    SPLITS,
    GalaxyPool,
    Split,
    load_pool,
    save_pool,
    split_of,
)
from tests.support import edit_array, grid


def test_stamps_have_unit_flux_about_their_centres(pool: GalaxyPool) -> None:
    flux = np.array([pool.stamp(row).sum() for row in range(len(pool))])
    assert np.median(flux) == pytest.approx(1.0, abs=0.02)
    assert flux.max() < 1.01
    assert np.median(np.abs(pool.centre_yx - 64)) < 0.6


def test_galaxies_of_a_group_share_a_psf(pool: GalaxyPool) -> None:
    for group in np.unique(pool.group):
        assert np.unique(pool.psf_fwhm_px[pool.group == group]).size == 1
    assert np.unique(pool.psf_fwhm_px).size == 4


def test_the_split_is_a_partition(pool: GalaxyPool) -> None:
    rows = np.concatenate([pool.rows(split) for split in SPLITS])
    np.testing.assert_array_equal(np.sort(rows), np.arange(len(pool)))


@pytest.mark.parametrize(("split", "share"), [("train", 0.8), ("validation", 0.1), ("test", 0.1)])
def test_shares_of_the_split(split: Split, share: float) -> None:
    assigned = split_of(np.arange(50_000, dtype=np.int64))
    assert (assigned == SPLITS.index(split)).mean() == pytest.approx(share, abs=0.01)


@given(ids=st.lists(st.integers(0, 2**63 - 1), min_size=1, max_size=20))
def test_a_galaxys_split_depends_on_nothing_else(ids: list[int]) -> None:
    together = split_of(np.array(ids, np.int64))
    alone = [split_of(np.array([one], np.int64))[0] for one in ids]
    np.testing.assert_array_equal(together, alone)


def test_a_saved_pool_comes_back(pool: GalaxyPool, tmp_path: Path) -> None:
    url = str(tmp_path / "pool.zarr")
    save_pool(url, pool)
    again = load_pool(url)
    assert again.preset == pool.preset
    for name in pool.columns:
        np.testing.assert_array_equal(getattr(again, name), getattr(pool, name))


def test_a_pool_is_replaced_only_when_told_to(pool: GalaxyPool, tmp_path: Path) -> None:
    url = str(tmp_path / "pool.zarr")
    save_pool(url, pool)
    with pytest.raises(
        OutputConflictError, match=r"pool\.zarr: exists already; choose another URL"
    ):
        save_pool(url, pool)
    save_pool(url, pool, overwrite=True)
    assert len(load_pool(url)) == len(pool)


def test_nothing_else_is_ever_replaced(pool: GalaxyPool, tmp_path: Path) -> None:
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "chapter1.tex").write_text("precious")
    with pytest.raises(
        OutputConflictError, match=r"thesis: holds something else; choose another URL"
    ):
        save_pool(str(tmp_path / "thesis"), pool, overwrite=True)
    assert (tmp_path / "thesis" / "chapter1.tex").read_text() == "precious"


def test_a_missing_pool_is_named(tmp_path: Path) -> None:
    with pytest.raises(NotFoundError, match=r"none\.zarr: no galaxy pool here"):
        load_pool(str(tmp_path / "none.zarr"))


def test_an_incomplete_pool_is_refused(tmp_path: Path) -> None:
    zarr.create_group(str(tmp_path / "half.zarr"))
    with pytest.raises(ConfigError, match=r"half\.zarr: not a complete galaxy pool"):
        load_pool(str(tmp_path / "half.zarr"))


@pytest.mark.parametrize(
    ("name", "changes", "message"),
    [
        ("images", {"shape": [10**8, 128, 128]}, "the pool has 3,276,8.* bytes, more than"),
        ("images", {"shape": [160, 10**6, 10**6]}, "'images' has shape .*, rows of more than"),
        ("mag", {"chunk_grid": grid(1 << 40)}, "'mag' has chunks of shape .* to decode one, more"),
    ],
)
def test_a_pool_that_asks_for_too_much_is_refused_before_it_is_read(
    pool: GalaxyPool, tmp_path: Path, name: str, changes: dict[str, Any], message: str
) -> None:
    url = str(tmp_path / "pool.zarr")
    save_pool(url, pool)
    edit_array(url, name, **changes)
    with pytest.raises(UserError, match=rf"pool\.zarr: .*{message}.*; draw "):
        load_pool(url)


def test_a_pool_without_an_array_is_refused(pool: GalaxyPool, tmp_path: Path) -> None:
    url = str(tmp_path / "pool.zarr")
    save_pool(url, pool)
    shutil.rmtree(tmp_path / "pool.zarr" / "mag")
    with pytest.raises(ConfigError, match=r"pool\.zarr: array 'mag' is missing; draw one and save"):
        load_pool(url)


def test_nothing_to_join_is_refused() -> None:
    with pytest.raises(ConfigError, match="cannot join pools of presets"):
        GalaxyPool.concatenate([])
