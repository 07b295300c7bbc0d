"""The whole way on a small image: shreds go, hidden sources come, and nothing depends on tiles."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import galsim
import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
from numpy.typing import NDArray

from deblend_batch.cli.main import main
from deblend_batch.detect.extract import ExtractParams
from deblend_batch.detect.field import Columns, detect_field
from deblend_batch.detections.counted import read_counts, say_counts
from deblend_batch.errors import OutputConflictError
from deblend_batch.field.layout import Field, create_field, finish_field
from deblend_batch.refine.field import CANDIDATES, Refinement, how_to_detect
from deblend_batch.refine.fits import Fits
from deblend_batch.refine.rules import FROM_SPACE, THROUGH_SEEING, RefineRules
from tests.support import make_meta

SHAPE_YX = (230, 260)
FWHM_PX = 4.0
NOISE = 0.02
ISOLATED = (60.0, 200.0)
HIDDEN = ((60.0, 60.0), (60.0, 63.4))  # 0.85 of the PSF's width: one peak
BESIDE = ((170.0, 190.0), (176.0, 196.0))
FLUX = {ISOLATED: 40.0, HIDDEN[0]: 40.0, HIDDEN[1]: 30.0, BESIDE[0]: 60.0, BESIDE[1]: 6.0}
TRUE_YX = np.array(list(FLUX))
WIDE, CLUMPY = ((60.0, 60.0), (60.0, 66.0)), (100.0, 140.0)


def drawn(rng: np.random.Generator) -> NDArray[np.float32]:
    """Draw discs through a Moffat PSF."""
    psf = galsim.Moffat(beta=3.5, fwhm=FWHM_PX)
    image = galsim.ImageD(SHAPE_YX[1], SHAPE_YX[0], xmin=0, ymin=0, scale=1.0)
    for (y, x), flux in FLUX.items():
        disc = galsim.Exponential(half_light_radius=1.5).shear(g1=0.1).withFlux(flux)
        galsim.Convolve(disc, psf).shift(x, y).drawImage(
            image, add_to_image=True, center=galsim.PositionD(0, 0)
        )
    return np.asarray(image.array + rng.normal(0, NOISE, SHAPE_YX), np.float32)


def drawn_from_space(seed: int) -> NDArray[np.float32]:
    """Draw two faint wide discs in one spot, three PSF widths apart, and a disc with clumps."""
    psf = galsim.Moffat(beta=3.5, fwhm=2.0)
    image = galsim.ImageD(200, 160, xmin=0, ymin=0, scale=1.0)
    wide = galsim.Exponential(half_light_radius=4.0).shear(g1=0.1)
    disc = galsim.Exponential(half_light_radius=5.0)
    clumps = galsim.RandomKnots(15, profile=disc, rng=galsim.BaseDeviate(seed + 1))
    for light, (y, x), flux in (
        (wide, WIDE[0], 22.0),
        (wide, WIDE[1], 16.0),
        (0.75 * disc + 0.25 * clumps, CLUMPY, 150.0),
    ):
        galsim.Convolve(light.withFlux(flux), psf).shift(x, y).drawImage(
            image, add_to_image=True, center=galsim.PositionD(0, 0)
        )
    noise = np.random.default_rng(seed).normal(0, NOISE, image.array.shape)
    return np.asarray(image.array + noise, np.float32)


@pytest.fixture(scope="module")
def field_url(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The image as a field."""
    url = str(tmp_path_factory.mktemp("refine") / "field.zarr")
    meta = make_meta(bands=("i",), zero_point=(27.0,), psf_fwhm_arcsec=(0.4,), noise_sigma=(NOISE,))
    group = create_field(url, meta, SHAPE_YX, with_variance=False)
    dict(group.arrays())["image"][0] = drawn(np.random.default_rng(3))
    finish_field(group, meta)
    return url


def refined(field_url: str, url: Path, **changes: Any) -> Any:
    """Detect and refine in this process."""
    detect_field(field_url, str(url), params=CANDIDATES, finish=Refinement(), **changes)
    return pq.read_table(url).to_pandas()


@pytest.fixture(scope="module")
def table(
    field_url: str, tmp_path_factory: pytest.TempPathFactory, monkeypatch_module: None
) -> tuple[Path, Any]:
    """The table, and what it says."""
    url = tmp_path_factory.mktemp("refined") / "sources.parquet"
    return url, refined(field_url, url)


@pytest.fixture(scope="module")
def monkeypatch_module() -> Any:
    """All is done in this process, however many tiles; ``tests/detect/test_field_on_ray.py`` has tasks."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("deblend_batch.detect.field._ALONE_TILES", 100)
        patch.setattr("deblend_batch.detect.field.is_named", lambda: False)
        patch.setattr("deblend_batch.refine.field.is_named", lambda: False)
        yield


def distances(found: Any) -> NDArray[np.float64]:
    """Distance of every row from every true source, px."""
    yx = found[["y", "x"]].to_numpy()
    return np.asarray(np.linalg.norm(yx[:, None] - TRUE_YX, axis=2))


def test_every_source_is_there_once(table: tuple[Path, Any]) -> None:
    apart = distances(table[1])
    assert len(table[1]) == len(TRUE_YX)
    assert sorted(apart.argmin(axis=1).tolist()) == list(range(len(TRUE_YX)))
    assert apart.min(axis=0).max() < 1.0
    unit = 10 ** (-0.4 * (27.0 - 31.4))
    true = np.array(list(FLUX.values()))[apart.argmin(axis=1)] * unit
    pull = (table[1].flux.to_numpy() - true) / table[1].flux_err.to_numpy()
    assert np.abs(pull).max() < 4


def test_without_fits_the_hidden_pair_is_one(field_url: str, tmp_path: Path) -> None:
    url = tmp_path / "plain.parquet"
    detect_field(field_url, str(url), params=ExtractParams())
    assert len(pq.read_table(url)) == len(TRUE_YX) - 1


def test_a_table_says_what_became_of_everyone(table: tuple[Path, Any]) -> None:
    told = pq.read_table(table[0].with_name("sources-provenance.parquet")).to_pandas()
    kept = told[told.fate == "kept"]
    assert sorted(kept.id) == sorted(table[1].id)
    assert told.id.is_unique
    assert (kept.origin == "added").sum() >= 1
    assert (told[told.fate == "dropped"].reason != "").all()
    assert (kept.reason == "").all()


@pytest.mark.parametrize("tile_size", [64, 200])
def test_nothing_depends_on_tiles(
    field_url: str, table: tuple[Path, Any], tmp_path: Path, tile_size: int
) -> None:
    url = tmp_path / "sources.parquet"
    refined(field_url, url, tile_size=tile_size)
    pd.testing.assert_frame_equal(pq.read_table(url).to_pandas(), table[1], check_exact=True)


@pytest.mark.parametrize("seed", [0, 1])
def test_from_space_a_wide_spot_that_is_two_becomes_two_and_clumps_stay_one(
    tmp_path: Path, seed: int
) -> None:
    url, plain, fine = (str(tmp_path / name) for name in ("f.zarr", "a.parquet", "b.parquet"))
    meta = make_meta(bands=("i",), zero_point=(27.0,), psf_fwhm_arcsec=(0.2,), noise_sigma=(NOISE,))
    group = create_field(url, meta, (160, 200), with_variance=False)
    dict(group.arrays())["image"][0] = drawn_from_space(seed)
    finish_field(group, meta)
    params, finish = how_to_detect(Field.open(url), None, refine=True)
    detect_field(url, plain, params=params)
    detect_field(url, fine, params=params, finish=finish)
    before, after = (pq.read_table(each).to_pandas() for each in (plain, fine))
    assert (before.y < 80).sum() == 1
    yx, true = after[["y", "x"]].to_numpy(), np.array([*WIDE, CLUMPY])
    apart = np.linalg.norm(yx[:, None] - true, axis=2)
    assert sorted(apart.argmin(axis=1).tolist()) == [0, 1, 2]
    assert apart.min(axis=0).max() < 1.0
    unit = 10 ** (-0.4 * (27.0 - 31.4))
    flux = np.array([22.0, 16.0, 150.0])[apart.argmin(axis=1)] * unit
    np.testing.assert_allclose(after.flux, flux, rtol=0.25)


def test_shreds_go(field_url: str, table: tuple[Path, Any]) -> None:
    """A source that is not there, in the light of one that is."""
    rows = table[1].reset_index(drop=True)
    shred = rows.iloc[[int(distances(rows)[:, 0].argmin())]].copy()
    shred["id"] += 1
    shred["x"] += 2.5
    found: Columns = {
        name: np.concatenate([rows[name], shred[name]]).astype(rows[name].dtype) for name in rows
    }
    order = np.random.default_rng(1).permutation(len(found["id"]))
    finished = Refinement()(
        {name: values[order] for name, values in found.items()}, Field.open(field_url), 0
    )
    assert sorted(finished.columns["id"]) == sorted(rows.id)
    told = finished.provenance
    assert told is not None
    gone = told["fate"] == "dropped"
    assert told["id"][gone].tolist() == shred.id.tolist()
    assert told["beside"][gone].tolist() == [int(rows.id[int(distances(rows)[:, 0].argmin())])]


def test_empty_sky_stays_empty(tmp_path: Path) -> None:
    url = str(tmp_path / "empty.zarr")
    meta = make_meta(bands=("i",), zero_point=(27.0,), psf_fwhm_arcsec=(0.4,), noise_sigma=(NOISE,))
    group = create_field(url, meta, SHAPE_YX, with_variance=False)
    image = np.random.default_rng(5).normal(0, NOISE, SHAPE_YX)
    dict(group.arrays())["image"][0] = image
    finish_field(group, meta)
    assert len(refined(url, tmp_path / "none.parquet")) == 0


def test_the_command_refines_unless_told_not_to(
    field_url: str, table: tuple[Path, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    plain, fine = tmp_path / "plain.parquet", tmp_path / "fine.parquet"
    assert main(["detect", field_url, str(fine)]) == 0
    counts = read_counts(str(fine))
    told = pq.read_table(fine.with_name("fine-provenance.parquet")).to_pandas()
    assert say_counts(counts) in capsys.readouterr().out
    assert counts["kept"] == len(TRUE_YX) == (told.fate == "kept").sum()
    assert counts["detected"] + counts["added"] == len(told)
    assert sum(counts.values()) == 2 * len(told)
    assert main(["detect", field_url, str(plain), "--no-refine"]) == 0
    pd.testing.assert_frame_equal(pq.read_table(fine).to_pandas(), table[1], check_exact=True)
    assert len(pq.read_table(plain)) == len(TRUE_YX) - 1
    assert not plain.with_name("plain-provenance.parquet").exists()
    assert read_counts(str(plain)) == {}


def test_another_table_s_provenance_is_not_lost_and_does_not_stay(
    field_url: str, tmp_path: Path
) -> None:
    beside = tmp_path / "a-provenance.parquet"
    beside.write_bytes(b"mine")
    with pytest.raises(OutputConflictError, match=r"a-provenance.parquet: exists already; give"):
        detect_field(field_url, str(tmp_path / "a.csv"))
    assert beside.read_bytes() == b"mine"
    detect_field(field_url, str(tmp_path / "a.csv"), overwrite=True)
    assert not beside.exists()


@pytest.mark.parametrize(("width_arcsec", "rules"), [(0.4, THROUGH_SEEING), (0.15, FROM_SPACE)])
def test_what_is_asked_of_sources_depends_on_the_telescope(
    tmp_path: Path, width_arcsec: float, rules: RefineRules
) -> None:
    url = str(tmp_path / "field.zarr")
    meta = make_meta(bands=("i",), zero_point=(27.0,), psf_fwhm_arcsec=(width_arcsec,))
    finish_field(create_field(url, meta, (64, 64), with_variance=False), meta)
    opened = Field.open(url)
    assert how_to_detect(opened, None, refine=False) == (ExtractParams(), None)
    params, finish = how_to_detect(opened, None, refine=True)
    assert finish is not None
    assert finish.rules == rules
    assert params == (CANDIDATES if rules is THROUGH_SEEING else ExtractParams())


def test_fits_of_parts_are_put_end_to_end() -> None:
    from tests.refine.test_verdicts import fits_of

    part = fits_of([1.0, 2.0], [0.0, 0.0])
    both = Fits.joined([part, part])
    assert both.blend.tolist() == [0, 0, 1, 1]
