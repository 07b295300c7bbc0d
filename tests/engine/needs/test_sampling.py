"""Sampling tiles: which are read, and what is said of those that cannot be."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from deblend_batch.catalog.ledger import Ledger
from deblend_batch.engine.inputs.index.file import read_index
from deblend_batch.engine.inputs.work import RunContext
from deblend_batch.engine.inputs.workload import FieldTiles
from deblend_batch.engine.needs.sampling import Sample, sample_tiles, tiles_to_sample
from deblend_batch.field.layout import Field
from deblend_batch.tiling.tile import TileGrid
from tests.engine.finished import finish_run
from tests.support import SmallField


@pytest.mark.parametrize(("tiles", "chosen"), [(0, 0), (1, 1), (100, 1), (101, 2), (5000, 50)])
def test_one_in_a_hundred_and_at_least_one(tiles: int, chosen: int) -> None:
    pairs = np.random.default_rng(0).integers(1, 1000, tiles)
    rows = tiles_to_sample(pairs)
    assert len(set(rows.tolist())) == chosen


def test_the_sample_is_as_crowded_as_the_field() -> None:
    pairs = np.random.default_rng(1).lognormal(3, 1.5, 5000).astype(np.int64)
    assert pairs[tiles_to_sample(pairs)].mean() == pytest.approx(pairs.mean(), rel=0.2)


def tiles_of(ledger: Ledger, field_url: str) -> FieldTiles:
    """The tiles of a finished run of the small field."""
    field = Field.open(field_url)
    index = read_index(ledger.output, ledger.output.index_url("field"))
    return FieldTiles(field.url, index, TileGrid(field.shape_yx, 200))


def test_a_tile_is_read_and_cut(small_field: SmallField, tmp_path: Path) -> None:
    ledger = finish_run(small_field, str(tmp_path / "out"))
    context = RunContext(ledger.output, "", None, False, str(tmp_path), "")
    found = sample_tiles(tiles_of(ledger, small_field.url), context)
    assert (found.tiles, found.unreadable) == (1, ())
    assert found.pairs > 0
    assert found.seconds_per_pair == found.seconds / found.pairs > 0
    assert sample_tiles(tiles_of(ledger, small_field.url), context, 0.0) == Sample()


def test_a_tile_that_cannot_be_decoded_is_told(small_field: SmallField, tmp_path: Path) -> None:
    ledger = finish_run(small_field, str(tmp_path / "out"))
    url = str(tmp_path / "field.zarr")
    shutil.copytree(small_field.url, url)
    for chunk in (Path(url) / "image" / "c").rglob("*"):
        if chunk.is_file():
            chunk.write_bytes(chunk.read_bytes()[::-1])
    context = RunContext(ledger.output, "", None, False, str(tmp_path), "")
    found = sample_tiles(tiles_of(ledger, url), context)
    assert (found.tiles, found.seconds_per_pair) == (0, 0.0)
    (line,) = found.unreadable
    assert "cannot decode a chunk" in line


def test_samples_add_up() -> None:
    one = Sample(1, 10, 0.5, ("a",))
    assert one + replace(one, unreadable=()) == Sample(2, 20, 1.0, ("a",))
    assert Sample().seconds_per_pair == 0
