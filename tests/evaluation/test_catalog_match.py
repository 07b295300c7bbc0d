from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from deblend_batch.errors import NotFoundError
from deblend_batch.evaluation.catalog import match_catalog
from deblend_batch.evaluation.errors import EvaluationError

N = 12
"""Sources; pairs are (0, 1), (2, 3), ..., and (1, 2) too, whose rows are not primary."""


def _truth(**changes: Any) -> pa.Table:
    columns = {
        "id": np.arange(N) + 100,
        "ra": 150 + np.arange(N) / 3600,
        "dec": np.full(N, 2.0),
        "flux_njy": 1000.0 * (1 + np.arange(N)),
        "radius": np.full(N, 0.25),
        "type": ["sph", "irr"] * (N // 2),
    }
    return pa.table({name: v for name, v in (columns | changes).items() if v is not None})


def _shard(pairs: list[tuple[int, int]], primary: bool = True, **changes: Any) -> pa.Table:
    members = np.array(pairs).ravel()
    columns: dict[str, Any] = {
        "source_id": members + 100,
        "neighbour_id": np.array([pair[::-1] for pair in pairs]).ravel() + 100,
        "role": ["central", "companion"] * len(pairs),
        "is_primary": np.full(len(members), primary),
        "ra": 150 + members / 3600,
        "dec": np.full(len(members), 2.0),
        "separation": np.full(len(members), 1.0, np.float32),
        "flux_h": (1100.0 * (1 + members)).astype(np.float32),
        "flux_err_h": (100.0 * (1 + members)).astype(np.float32),
    }
    return pa.table({name: v for name, v in (columns | changes).items() if v is not None})


@pytest.fixture
def output(tmp_path: Path) -> Path:
    folder = tmp_path / "run"
    (folder / "shards").mkdir(parents=True)
    (folder / "run.json").write_text("{}")
    pq.write_table(_shard([(0, 1), (2, 3)]), folder / "shards/a.parquet")
    pq.write_table(_shard([(4, 5), (6, 7), (8, 9), (10, 11)]), folder / "shards/b.parquet")
    pq.write_table(_shard([(1, 2)], primary=False), folder / "shards/c.parquet")
    pq.write_table(_truth(), tmp_path / "truth.parquet")
    return folder


def _truth_url(output: Path) -> str:
    return str(output.parent / "truth.parquet")


@pytest.mark.parametrize("match_arcsec", [None, 0.3])
def test_primary_rows_meet_their_truth(output: Path, match_arcsec: float | None) -> None:
    found = match_catalog(str(output), _truth_url(output), match_arcsec=match_arcsec)
    members = found.members
    assert (len(members), found.band, found.n_without_truth, found.n_truth) == (N, "h", 0, N)
    order = np.argsort(members.flux)
    np.testing.assert_allclose(members.flux[order], 1000.0 * (1 + np.arange(N)))
    np.testing.assert_allclose(found.recovered.flux / members.flux, 1.1, rtol=1e-6)
    assert members.is_central[order].tolist() == [True, False] * (N // 2)
    assert members.kind[order].tolist() == ["sph", "irr"] * (N // 2)
    expected = 2.5 * np.log10((2.0 + np.arange(0, N, 2)) / (1.0 + np.arange(0, N, 2)))
    np.testing.assert_allclose(members.mag_difference[order], np.repeat(expected, 2))
    np.testing.assert_allclose(members.separation_radii, 2.0)
    assert members.separation_unit == "arcsec"


def test_a_positional_match_does_not_need_the_truths_ids(output: Path) -> None:
    pq.write_table(_truth(id=np.arange(N) + 7000), _truth_url(output))
    found = match_catalog(str(output), _truth_url(output), match_arcsec=0.3)
    np.testing.assert_allclose(found.recovered.flux / found.members.flux, 1.1, rtol=1e-6)


def test_ids_that_mean_other_sources_are_refused(output: Path) -> None:
    pq.write_table(_truth(ra=149.0 + np.arange(N) / 3600), _truth_url(output))
    with pytest.raises(EvaluationError, match=r"its ids are not those of .* 3597\.8 arcsec apart"):
        match_catalog(str(output), _truth_url(output))


def test_rows_without_truth_are_counted(output: Path) -> None:
    pq.write_table(_truth().slice(0, 9), _truth_url(output))
    found = match_catalog(str(output), _truth_url(output))
    assert (len(found.members), found.n_without_truth) == (9, 3)
    assert np.count_nonzero(np.isnan(found.members.mag_difference)) == 1


def test_blended_sources_without_a_row_are_counted(output: Path) -> None:
    whole = match_catalog(str(output), _truth_url(output))
    assert (whole.reach_arcsec, whole.n_missed) == (1.0, 0)
    (output / "shards/a.parquet").unlink()
    (output / "shards/c.parquet").unlink()
    assert match_catalog(str(output), _truth_url(output)).n_missed == 4
    alone = _truth(ra=150 + np.arange(N) * 2.5 / 3600)
    pq.write_table(alone, output.parent / "apart.parquet")
    apart = match_catalog(str(output), str(output.parent / "apart.parquet"), match_arcsec=100.0)
    assert apart.n_missed == 0


def test_without_positions_nothing_is_known_of_missed_sources(output: Path) -> None:
    pq.write_table(_truth(ra=None, dec=None), output.parent / "blind.parquet")
    assert match_catalog(str(output), str(output.parent / "blind.parquet")).n_missed is None


def test_a_row_without_flux_is_undetected(output: Path) -> None:
    flux = np.array([np.nan, 5.0], np.float32)
    pq.write_table(_shard([(0, 1)], flux_h=flux), output / "shards/a.parquet")
    found = match_catalog(str(output), _truth_url(output))
    assert np.count_nonzero(np.isnan(found.recovered.flux)) == 1


def test_a_file_serves_as_a_catalogue(output: Path) -> None:
    found = match_catalog(str(output / "shards/a.parquet"), _truth_url(output))
    assert len(found.members) == 4


def test_one_band_of_several(output: Path) -> None:
    (output / "shards/b.parquet").unlink()
    (output / "shards/c.parquet").unlink()
    extra = np.full(4, 3.0, np.float32)
    table = _shard([(0, 1), (2, 3)], flux_g=extra, flux_err_g=extra)
    pq.write_table(table, output / "shards/a.parquet")
    found = match_catalog(str(output), _truth_url(output), band="g")
    assert found.recovered.flux.tolist() == [3.0] * 4
    with pytest.raises(EvaluationError, match="has the bands h, g; choose one"):
        match_catalog(str(output), _truth_url(output))


@pytest.mark.parametrize(
    ("changes", "band", "message"),
    [
        ({"flux_h": None, "flux_err_h": None}, None, "no column 'flux_<band>'"),
        ({"is_primary": None}, None, "column 'is_primary' is missing"),
        ({"neighbour_id": None}, None, "column 'neighbour_id' is missing"),
        ({}, "z", "has no band 'z'; it has h"),
    ],
)
def test_a_bad_catalogue_is_one_line(
    output: Path, changes: dict[str, Any], band: str | None, message: str
) -> None:
    catalog = str(output.parent / "catalog.parquet")
    pq.write_table(_shard([(0, 1)], **changes), catalog)
    with pytest.raises(EvaluationError, match=message):
        match_catalog(catalog, _truth_url(output), band=band)


@pytest.mark.parametrize(
    ("changes", "match_arcsec", "message"),
    [
        ({"id": np.arange(N)}, None, "no row of .* has its source here"),
        ({"dec": np.full(N, 3.0)}, 0.3, "no source within 0.3 arcsec"),
        ({"ra": None}, 0.3, "has no columns 'ra' and 'dec'"),
        ({"flux_njy": np.zeros(N)}, None, "no source has a positive flux"),
    ],
)
def test_a_truth_of_something_else_is_one_line(
    output: Path, changes: dict[str, Any], match_arcsec: float | None, message: str
) -> None:
    pq.write_table(_truth(**changes), _truth_url(output))
    with pytest.raises(EvaluationError, match=message):
        match_catalog(str(output), _truth_url(output), match_arcsec=match_arcsec)


def test_an_absent_catalogue_is_named(output: Path) -> None:
    with pytest.raises(NotFoundError, match="nowhere: no such file or object"):
        match_catalog(str(output.parent / "nowhere"), _truth_url(output))
