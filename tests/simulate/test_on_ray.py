"""What tasks on Ray simulate is what this process does, to the bit."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from deblend_batch.cluster.workers import ALONE, Workers
from deblend_batch.field.layout import Field
from deblend_batch.simulate.fields.field import simulate_field
from deblend_batch.simulate.galaxies import draw
from deblend_batch.simulate.galaxies.draw import draw_pool
from deblend_batch.simulate.galaxies.pool import GalaxyPool
from deblend_batch.simulate.galaxies.real import pool_from_real_catalog
from deblend_batch.simulate.pairs.blending import PairSampler
from deblend_batch.simulate.pairs.pairset import RANGE, write_pairs
from deblend_batch.simulate.pairs.rules import training_rules

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("cluster")]


def assert_same(first: GalaxyPool, second: GalaxyPool) -> None:
    for name in first.columns:
        np.testing.assert_array_equal(getattr(first, name), getattr(second, name), err_msg=name)


def test_a_pool_of_galaxies(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(draw, "_PER_TASK", 32)  # three tasks
    alone, spread = (
        draw_pool("euclid-vis", 80, 5, group_size=16, stamp_px=64, workers=workers)
        for workers in (ALONE, Workers(3))
    )
    assert_same(alone, spread)


def test_real_galaxies(catalog: str) -> None:
    alone, spread = (
        pool_from_real_catalog(catalog, "candels-h", n_psfs=2, number=6, workers=workers)
        for workers in (ALONE, Workers(2))
    )
    assert_same(alone, spread)


def test_a_field(tmp_path: Path) -> None:
    """In nine tiles."""
    alone, spread = (
        simulate_field(
            str(tmp_path / f"{processes}.zarr"),
            shape_yx=(300, 320),
            n_pairs=5,
            n_isolated=3,
            n_groups=1,
            seed=4,
            tile_size=128,
            processes=processes,
        )
        for processes in (1, 2)
    )
    first, second = (np.array(Field.open(truth.field_url).image[0]) for truth in (alone, spread))
    np.testing.assert_array_equal(first, second)
    assert pq.read_table(alone.truth_url).equals(pq.read_table(spread.truth_url))


def test_a_set_of_pairs(pool: GalaxyPool, tmp_path: Path) -> None:
    sampler = PairSampler(pool, "test", 8, training_rules(32))
    for name, workers in (("one", ALONE), ("two", Workers(2))):
        write_pairs(str(tmp_path / name), sampler, 2 * RANGE + 70, workers=workers)
    files = {
        name: {path.relative_to(tmp_path / name): path for path in (tmp_path / name).rglob("*")}
        for name in ("one", "two")
    }
    assert set(files["one"]) == set(files["two"])
    for relative, path in files["one"].items():
        assert path.is_dir() or path.read_bytes() == files["two"][relative].read_bytes(), relative
