from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from deblend_batch.cli.main import main
from deblend_batch.errors import ConfigError
from deblend_batch.simulate.galaxies import galaxy_source
from deblend_batch.simulate.galaxies.galaxy_source import GalaxySource
from deblend_batch.simulate.galaxies.pool import GalaxyPool
from deblend_batch.simulate.galaxies.population import UNKNOWN_KIND
from deblend_batch.simulate.galaxies.real import pool_from_real_catalog
from deblend_batch.simulate.pairs.pairset import PairSet


def simulate(folder: Path, *words: str) -> PairSet:
    """Run the command line, in this process alone."""
    url = str(folder / "pairs.zarr")
    always = ("--number", "24", "--stamp-size", "64", "--processes", "1")
    assert main(["simulate", "pairs", url, *always, *words]) == 0
    return PairSet(url)


@pytest.fixture(scope="module")
def drawn_once() -> Iterator[None]:
    """Let all that ask for the same real galaxies have the same pool: a hundred of them take seconds."""
    pools: dict[Any, GalaxyPool] = {}

    def draw(catalog: str, preset: str, **options: Any) -> GalaxyPool:
        of_rows = {key: options[key] for key in options.keys() - {"workers", "progress"}}
        asked = (catalog, preset, *sorted(of_rows.items()))
        if asked not in pools:
            pools[asked] = pool_from_real_catalog(catalog, preset, **options)
        return pools[asked]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(galaxy_source, "pool_from_real_catalog", draw)
        yield
    assert len(pools) <= 1


def test_simulated_galaxies_are_those_of_the_test_split(tmp_path: Path) -> None:
    pairs = simulate(tmp_path, "--galaxies", "64")
    assert len(pairs) == 24
    assert pairs.description["split"] == "test"


def real_words(catalog: str) -> tuple[str, ...]:
    return ("--real-catalog", catalog, "--galaxies", "32", "--preset", "euclid-vis")


@pytest.mark.usefixtures("drawn_once")
def test_pairs_of_real_galaxies(catalog: str, tmp_path: Path) -> None:
    pairs = simulate(tmp_path, *real_words(catalog))
    assert pairs.preset.name == "euclid-vis"
    assert pairs.description["split"] is None
    batch = pairs.batch()
    assert (batch.kind == UNKNOWN_KIND).all()
    assert np.unique(batch.galaxy_id).size > 10
    assert np.isfinite(batch.stamps).all()


@pytest.mark.usefixtures("drawn_once")
def test_a_split_of_real_galaxies_has_its_own(catalog: str, tmp_path: Path) -> None:
    """All three are taken from the same galaxies."""
    words = (*real_words(catalog), "--split")
    ids = [
        set(simulate(tmp_path / split, *words, split).batch().galaxy_id.ravel())
        for split in ("train", "validation", "test")
    ]
    assert len(set.union(*ids)) == sum(len(one) for one in ids)


def test_pairs_of_candels_blender(triplet: Path, tmp_path: Path) -> None:
    pairs = simulate(tmp_path, "--candels-blender", str(triplet))
    assert pairs.preset.name == "candels-h"
    assert set(pairs.batch().galaxy_id.ravel()) == set(range(100, 106))


@pytest.mark.parametrize(
    ("choice", "message"),
    [
        (
            {"real_catalog": "a", "candels_blender": "b"},
            "--real-catalog and --candels-blender excl",
        ),
        (
            {"candels_blender": "b", "number": 40},
            "--galaxies 40: candels-blender's galaxies are tak",
        ),
        (
            {"candels_blender": "b", "preset": "hst-acs"},
            "--preset hst-acs: candels-blender's galax",
        ),
        ({"preset": "candels"}, "preset 'candels' is unknown; did you mean 'candels-h'"),
    ],
)
def test_choices_that_exclude_each_other(choice: dict[str, Any], message: str) -> None:
    usual: dict[str, Any] = {"preset": "candels-h", "seed": 0}
    with pytest.raises(ConfigError, match=message):
        GalaxySource(**(usual | choice))


def test_a_taken_output_costs_no_galaxies(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "pairs.zarr").mkdir()
    (tmp_path / "pairs.zarr" / "mine").write_text("")
    words = ["simulate", "pairs", str(tmp_path / "pairs.zarr"), "--galaxies", "10000000"]
    assert main(words) == 2
    assert "holds something else; choose another URL" in capsys.readouterr().err
