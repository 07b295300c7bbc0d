"""Detection in this process: every source once, where it is, ready for a run."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest

from deblend_batch import storage
from deblend_batch.cli.main import main
from deblend_batch.detect.bits import LARGE
from deblend_batch.detect.field import DetectionSummary, detect_field
from deblend_batch.engine.run import process_field
from deblend_batch.errors import (
    ConfigError,
    DetectionsError,
    NotFoundError,
    OutputConflictError,
)
from deblend_batch.field.layout import create_field, finish_field
from tests.detect.drawn_field import MAG, SOURCES_YX, make_field, nearest, read
from tests.ingest.fits_files import add_gaussians, noise_image
from tests.support import make_meta, member, read_shards


@pytest.fixture(scope="module")
def field_url(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Sources in the first band, empty sky in the second."""
    return make_field(str(tmp_path_factory.mktemp("detect") / "field.zarr"), n_bands=2)


@pytest.fixture(scope="module")
def detected(
    field_url: str, tmp_path_factory: pytest.TempPathFactory
) -> tuple[str, DetectionSummary]:
    """What one tile finds."""
    url = str(tmp_path_factory.mktemp("detected") / "detections.parquet")
    return url, detect_field(field_url, url, tile_size=600)


def test_each_source_is_found_once_where_it_is(
    field_url: str, detected: tuple[str, DetectionSummary]
) -> None:
    url, summary = detected
    found = read(url)
    rows, distance_px = nearest(field_url, found)
    assert sorted(rows.tolist()) == list(range(len(SOURCES_YX))) == list(range(len(found)))
    assert distance_px.max() < 0.2
    np.testing.assert_allclose(found.mag[rows][:-4], MAG[:-4], atol=0.02)
    np.testing.assert_allclose(found.mag[rows][-4:], MAG[-4:], atol=0.3)  # the close pairs
    # Half the light of a round Gaussian is within 1.177 sigma, and sigma is 2 px of 0.1 arcsec.
    np.testing.assert_allclose(found.radius_arcsec[rows][:-4], 0.2355, rtol=0.03)
    assert (summary.sources, summary.tiles, summary.band) == (len(SOURCES_YX), 1, "h")


def test_what_later_stages_need_is_in_the_table(detected: tuple[str, DetectionSummary]) -> None:
    table = pq.read_table(detected[0])
    columns = {name: table[name].to_numpy() for name in table.column_names}
    assert ((columns["x_err"] > 0) & (columns["x_err"] < 0.5)).all()
    np.testing.assert_array_equal(columns["x_err"], columns["y_err"])
    error = 2.5 / np.log(10) * columns["flux_err"] / columns["flux"]
    np.testing.assert_allclose(columns["mag_err"], error, rtol=1e-4)
    assert ((columns["fragment"] >= 0) & (columns["fragment"] <= 0.5)).all()
    assert {"radius", "snr", "flags"} <= set(columns)


@pytest.mark.parametrize("x", [160.0, 500.0])
def test_a_wide_galaxy_is_the_same_in_every_tiling(x: float, tmp_path: Path) -> None:
    """In one tile of two, or in both: its light is that of the image, and a smaller galaxy's is its own."""
    image = add_gaussians(noise_image((420, 1000), seed=5), np.array([[210.0, x]]), 2e5, 110.0)
    image = add_gaussians(image, np.array([[200.0, 850.0]]), 4e4, 50.0)
    image = add_gaussians(image, np.random.default_rng(5).uniform(20, 400, (25, 2)), 300.0, 3.0)
    url = str(tmp_path / "field.zarr")
    meta = make_meta(bands=("r",), psf_fwhm_arcsec=(0.3,), noise_sigma=(1.0,))
    group = create_field(url, meta, image.shape, with_variance=False)
    member(group, "image")[0] = image.astype(np.float32)
    finish_field(group, meta)
    tables = []
    for size in (2048, 501):
        detect_field(url, str(tmp_path / f"{size}.parquet"), tile_size=size)
        tables.append(pq.read_table(tmp_path / f"{size}.parquet").to_pandas())
    pd.testing.assert_frame_equal(*tables, rtol=1e-5)
    assert (tables[0]["flags"] & LARGE).any()


def test_a_few_tiles_need_no_ray(
    field_url: str,
    detected: tuple[str, DetectionSummary],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("deblend_batch.detect.field.is_named", lambda: False)
    monkeypatch.setattr("ray.remote", None)
    url = str(tmp_path / "detections.parquet")
    found = detect_field(field_url, url, tile_size=200)
    assert (found.tiles, found.sources) == (4, detected[1].sources)
    assert Path(url).read_bytes() == Path(detected[0]).read_bytes()


def test_ids_are_unique_sorted_and_name_the_place(detected: tuple[str, DetectionSummary]) -> None:
    from deblend_batch.field.healpix import healpix_29

    found = read(detected[0])
    assert (np.diff(found.id) > 0).all()
    np.testing.assert_array_equal(found.id, healpix_29(found.ra, found.dec))


@pytest.mark.parametrize("suffix", ["parquet", "fits", "ecsv", "csv", "vot"])
def test_every_format_is_read_back(
    field_url: str, detected: tuple[str, DetectionSummary], tmp_path: Path, suffix: str
) -> None:
    url = str(tmp_path / f"detections.{suffix}")
    detect_field(field_url, url, tile_size=600)
    found, expected = read(url), read(detected[0])
    np.testing.assert_array_equal(found.id, expected.id)
    for name in ("ra", "dec", "mag", "radius_arcsec"):
        np.testing.assert_allclose(getattr(found, name), getattr(expected, name), rtol=1e-12)


def test_a_variance_plane_says_the_same_as_its_rms(
    detected: tuple[str, DetectionSummary], tmp_path: Path
) -> None:
    field_url = make_field(str(tmp_path / "field.zarr"), variance=True)
    detect_field(field_url, str(tmp_path / "d.parquet"), tile_size=250)
    np.testing.assert_allclose(
        read(str(tmp_path / "d.parquet")).ra, read(detected[0]).ra, atol=1e-7
    )


def test_empty_sky_is_a_table_without_rows(field_url: str, tmp_path: Path) -> None:
    url = str(tmp_path / "detections.parquet")
    summary = detect_field(field_url, url, band="empty", tile_size=250)
    assert (summary.sources, summary.band, len(read(url))) == (0, "empty", 0)
    assert pq.read_schema(url).names[:3] == ["id", "ra", "dec"]


def test_a_run_takes_the_table(
    field_url: str, detected: tuple[str, DetectionSummary], tiny_model: str, tmp_path: Path
) -> None:
    summary = process_field(
        {
            "field": field_url,
            "detections": detected[0],
            "output": str(tmp_path / "out"),
            "model": tiny_model,
            "engine": {"actors": 1, "gpus_per_actor": 0, "where": "local"},
        }
    )
    assert summary.exit_code == 0
    rows = read_shards(str(tmp_path / "out"))
    separations = np.unique(np.round(rows["separation"].to_numpy(), 1))
    np.testing.assert_allclose(separations, [1.1, 1.2], atol=0.01)
    assert set(rows["source_id"].to_pylist()) <= set(read(detected[0]).id.tolist())


def test_a_table_that_is_there_is_replaced_only_when_told(field_url: str, tmp_path: Path) -> None:
    url = str(tmp_path / "detections.parquet")
    storage.write_bytes(url, b"mine")
    with pytest.raises(
        OutputConflictError, match=r"detections.parquet: exists already; give --overwrite"
    ):
        detect_field(field_url, url)
    assert storage.read_bytes(url) == b"mine"
    assert detect_field(field_url, url, tile_size=600, overwrite=True).sources == len(read(url))


@pytest.mark.parametrize(
    ("field", "table", "band", "kind", "message"),
    [
        ("field.zarr", "d.parquet", "k", ConfigError, r"no band 'k'; it has h, empty"),
        (
            "field.zarr",
            "d.docx",
            None,
            DetectionsError,
            r"d.docx: unknown table format; give .* name it",
        ),
        ("none.zarr", "d.parquet", None, NotFoundError, r"none.zarr: no Zarr group here"),
    ],
    ids=["unknown band", "unknown format", "no field"],
)
def test_what_cannot_be_done_is_refused_at_once(
    field_url: str,
    tmp_path: Path,
    field: str,
    table: str,
    band: str | None,
    kind: type[Exception],
    message: str,
) -> None:
    url = str(Path(field_url).parent / field)
    with pytest.raises(kind, match=message):
        detect_field(url, str(tmp_path / table), band=band)
    assert not list(tmp_path.iterdir())


def test_a_relative_path_in_a_job_is_refused(
    field_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RAY_JOB_CONFIG_JSON_ENV_VAR", "{}")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigError, match=r"detections: 'd.parquet' is a relative path, and a Ray"):
        detect_field(field_url, "d.parquet")


@pytest.mark.parametrize(
    ("option", "message"),
    [
        (["--mesh", "31"], "--mesh is 31; give at least 32 px"),
        (["--threshold", "nan"], "--threshold is nan; give a number from 0.1 to 1e+06"),
        (["--filter", "0.5"], "--filter is 0.5; give a number from 1 to 32"),
    ],
)
def test_an_option_out_of_its_range_is_one_line(
    field_url: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    option: list[str],
    message: str,
) -> None:
    assert main(["detect", field_url, str(tmp_path / "d.parquet"), *option]) == 2
    told = capsys.readouterr().err.strip()
    assert message in told
    assert "\n" not in told
    assert not list(tmp_path.iterdir())
