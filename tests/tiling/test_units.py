"""Units of work: every pair in one, none too large, each compact."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from deblend_batch.tiling.tile import compact_order
from deblend_batch.tiling.units import divide


@given(st.lists(st.integers(0, 4), max_size=200), st.integers(1, 50), st.integers(0, 99))
def test_every_pair_is_in_one_unit_of_its_tile(
    owners: list[int], max_pairs: int, seed: int
) -> None:
    owner = np.array(owners, np.int64)
    yx = np.random.default_rng(seed).uniform(0, 100, (len(owner), 2))
    units = divide(owner, yx, max_pairs)
    assert sorted(units.rows.tolist()) == list(range(len(owner)))
    lengths = np.diff(units.starts)
    np.testing.assert_array_equal(owner[units.rows], np.repeat(units.tiles, lengths))
    assert lengths.max(initial=0) <= max_pairs
    assert lengths.min(initial=1) >= 1
    for tile in set(owners):
        of_tile = lengths[units.tiles == tile]
        assert of_tile.max() - of_tile.min() <= 1 + len(of_tile) // 2
    names = list(zip(units.tiles.tolist(), units.suffixes, strict=True))
    assert len(set(names)) == len(names)
    for start, stop in zip(units.starts[:-1], units.starts[1:], strict=True):
        assert (np.diff(units.rows[start:stop]) > 0).all()


def test_a_tile_with_few_pairs_keeps_its_name_and_order() -> None:
    units = divide(np.array([2, 0, 2]), np.zeros((3, 2)), 4)
    assert units.rows.tolist() == [1, 0, 2]
    assert units.suffixes == ("", "")


def test_parts_of_a_crowded_tile_are_compact() -> None:
    rng = np.random.default_rng(0)
    yx = rng.uniform(0, 2048, (4096, 2))
    units = divide(np.zeros(4096, np.int64), yx, 256)
    assert len(units.suffixes) == 16
    for start, stop in zip(units.starts[:-1], units.starts[1:], strict=True):
        extent = np.ptp(yx[units.rows[start:stop]], axis=0)
        assert (extent < 650).all()


def test_pairs_at_one_place_are_divided_too() -> None:
    units = divide(np.zeros(100, np.int64), np.ones((100, 2)), 30)
    assert np.diff(units.starts).tolist() == [25] * 4
    assert units.rows.tolist() == list(range(100))


def test_single_rows_follow_each_other_in_space() -> None:
    yx = np.stack([np.zeros(64), np.random.default_rng(1).permutation(64)], axis=1).astype(float)
    np.testing.assert_array_equal(yx[compact_order(yx), 1], np.arange(64))
