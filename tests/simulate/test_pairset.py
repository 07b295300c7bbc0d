from __future__ import annotations

from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr

from deblend_batch.cluster.workers import Workers
from deblend_batch.errors import ConfigError, NotFoundError, OutputConflictError, UserError
from deblend_batch.simulate.galaxies.pool import GalaxyPool
from deblend_batch.simulate.pairs.batch import Encoding, PairBatch
from deblend_batch.simulate.pairs.blending import PairSampler
from deblend_batch.simulate.pairs.pairset import (
    PairSet,
    create_pairs,
    finish_pairs,
    read_pairs,
    write_pairs,
    write_range,
)
from deblend_batch.simulate.pairs.rules import training_rules
from tests.support import edit_array, grid


@pytest.fixture
def sampler(pool: GalaxyPool) -> PairSampler:
    return PairSampler(pool, "test", 8, training_rules(32))


def test_what_is_written_comes_back(sampler: PairSampler, tmp_path: Path) -> None:
    url = str(tmp_path / "pairs.zarr")
    write_pairs(url, sampler, 70)
    expected, found = sampler.draw_range(0, 70), read_pairs(url)
    for field in fields(PairBatch):
        np.testing.assert_array_equal(getattr(found, field.name), getattr(expected, field.name))
    np.testing.assert_array_equal(read_pairs(url, 10, 20).stamps, expected.stamps[10:20])


@pytest.mark.parametrize(("encoding", "channels"), [("gg", 2), ("ogg", 3), ("bogg", 4)])
def test_masks_come_back_in_their_encoding(
    sampler: PairSampler, tmp_path: Path, encoding: Encoding, channels: int
) -> None:
    url = str(tmp_path / "pairs.zarr")
    write_pairs(url, sampler, 5, encoding=encoding, threshold=2.0)
    pairs = PairSet(url)
    assert len(pairs) == 5
    assert pairs.masks().shape == (5, channels, 32, 32)
    np.testing.assert_array_equal(
        pairs.masks(), sampler.draw_range(0, 5).masks(2.0, encoding=encoding)
    )
    assert len(pairs.description["mask_channels"]) == channels


def test_the_set_describes_itself(sampler: PairSampler, tmp_path: Path) -> None:
    url = str(tmp_path / "pairs.zarr")
    write_pairs(url, sampler, 3)
    group = zarr.open_group(url, mode="r")
    assert all({"unit", "description"} <= set(array.attrs) for _, array in group.arrays())
    arrays = dict(group.arrays())
    np.testing.assert_allclose(np.asarray(arrays["cramer_rao"]), read_pairs(url).cramer_rao())
    pairs = PairSet(url)
    assert pairs.preset.name == "candels-h"
    assert pairs.description["split"] == "test"
    assert pairs.description["rules"]["stamp_size"] == 32


def test_ranges_may_be_written_in_any_order(sampler: PairSampler, tmp_path: Path) -> None:
    url = str(tmp_path / "pairs.zarr")
    group = create_pairs(url, sampler, 130)
    for start, stop in ((64, 130), (0, 64)):
        write_range(group, sampler, start, stop)
    finish_pairs(group)
    np.testing.assert_array_equal(read_pairs(url).stamps, sampler.draw_range(0, 130).stamps)


def test_several_workers_cannot_write_to_memory(sampler: PairSampler) -> None:
    with pytest.raises(ConfigError, match=r"data set: memory://pairs\.zarr lives in one process"):
        write_pairs("memory://pairs.zarr", sampler, 3, workers=Workers(2))


def test_an_unfinished_set_is_refused_and_can_be_made_again(
    sampler: PairSampler, tmp_path: Path
) -> None:
    url = str(tmp_path / "pairs.zarr")
    create_pairs(url, sampler, 3)
    with pytest.raises(ConfigError, match=r"pairs\.zarr: not a complete set of pairs"):
        PairSet(url)
    write_pairs(url, sampler, 3)
    with pytest.raises(OutputConflictError, match=r"pairs\.zarr: exists already"):
        write_pairs(url, sampler, 3)
    write_pairs(url, sampler, 4, overwrite=True)
    assert len(PairSet(url)) == 4


def test_a_missing_set_is_named(tmp_path: Path) -> None:
    with pytest.raises(NotFoundError, match=r"none\.zarr: no set of pairs here; make one with"):
        PairSet(str(tmp_path / "none.zarr"))


@pytest.mark.parametrize(
    ("n", "encoding", "message"),
    [
        (0, "ogg", "a set of 0 pairs is empty; ask for at least 1"),
        (5, "rle", "mask encoding 'rle' is unknown; use one of gg, ogg, bogg"),
    ],
)
def test_sets_that_cannot_be_made(
    sampler: PairSampler, tmp_path: Path, n: int, encoding: Encoding, message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        create_pairs(str(tmp_path / "pairs.zarr"), sampler, n, encoding=encoding)
    assert not (tmp_path / "pairs.zarr").exists()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"shape": [3, 10**6, 10**6]}, r"'stamps' has shape \(3, .*, rows of more than 67,108,864"),
        (
            {"chunk_grid": grid(1 << 20, 32, 32)},
            "'stamps' has chunks of shape .* to decode one, more",
        ),
        ({"codecs": [{"name": "vlen-bytes"}]}, "'stamps' .*vlen-bytes"),
    ],
)
def test_what_a_stranger_s_set_asks_for_is_bounded(
    sampler: PairSampler, tmp_path: Path, changes: dict[str, Any], message: str
) -> None:
    url = str(tmp_path / "pairs.zarr")
    write_pairs(url, sampler, 3)
    edit_array(url, "stamps", **changes)
    with pytest.raises(UserError, match=rf"pairs\.zarr: .*{message}.*; make one with"):
        read_pairs(url)
