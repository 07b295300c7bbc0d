"""ingest --survey, from files in the layouts of surveys to a field."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from astropy.io import fits

from deblend_batch.cli.main import main
from deblend_batch.errors import FieldError, UserError
from deblend_batch.field.layout import Field
from deblend_batch.ingest.ingest import ingest
from tests.ingest.fits_files import (
    add_gaussians,
    celestial_header,
    grid_positions,
    noise_image,
    write_image,
)

SHAPE = (200, 220)
FILES = os.environ.get("DEBLEND_BATCH_SURVEY_FILES", "")


def sky(seed: int = 1) -> np.ndarray:
    yx = grid_positions(SHAPE, 60)
    return add_gaussians(noise_image(SHAPE, seed=seed), yx, 3000.0, 4.0)


def afw(path: Path, names: bool, bit: int = 5, **cards: Any) -> str:
    """Image, mask and variance as afw writes them; all of the sources are DETECTED."""
    mask = np.where(sky() > 5, 1 << bit, 0).astype(np.int32)
    mask[:10] |= 1 << 8
    bits = fits.Header([("HIERARCH MP_DETECTED", bit), ("HIERARCH MP_NO_DATA", 8)])
    planes = {"IMAGE": sky(), "MASK": mask, "VARIANCE": np.ones(SHAPE, np.float32)}
    hdus = [fits.PrimaryHDU()]
    for name, pixels in planes.items():
        header = celestial_header(exttype=name, **cards)
        if name == "MASK":
            header.update(bits)
        hdus.append(fits.ImageHDU(pixels, header, name=name if names else None))
    fits.HDUList(hdus).writeto(path)
    return str(path)


def test_hsc_without_a_zero_point_in_its_header(tmp_path: Path) -> None:
    url = afw(tmp_path / "calexp-HSC-I-9813-4,5.fits", names=False)
    with pytest.raises(
        FieldError, match=r"give --zero-point.*; its layout is known: --survey hsc-pdr3"
    ):
        ingest([url], f"{tmp_path}/a.zarr")
    summary = ingest([url], f"{tmp_path}/f.zarr", survey="hsc-pdr3")
    field = Field.open(f"{tmp_path}/f.zarr")
    assert (field.meta.bands, field.meta.zero_point) == (("I",), (27.0,))
    assert field.variance is not None
    assert field.meta.mask_bits is not None
    assert "NO_DATA" in field.meta.mask_bits.bad
    assert summary.bad_fraction == pytest.approx(10 / SHAPE[0])
    assert summary.bands[0].zero_point.source == "hsc-pdr3"


def test_an_image_in_another_unit_is_of_another_survey(tmp_path: Path) -> None:
    url = afw(tmp_path / "a.fits", names=True, bunit="nJy")
    message = r"zero point is 31\.400 by BUNIT, and that of hsc-pdr3 is 27: give the right --survey"
    with pytest.raises(FieldError, match=message):
        ingest([url], f"{tmp_path}/f.zarr", survey="hsc-pdr3")
    summary = ingest([url], f"{tmp_path}/f.zarr", mask_hdu=["MASK"])
    assert summary.suggestion.endswith("--survey rubin-dp1")
    ingest([url], f"{tmp_path}/g.zarr", survey="rubin-dp1")


def brick(folder: Path, band: str = "r") -> list[str]:
    """Write a brick of the Legacy Surveys, a bit of whose mask is on every source."""
    mask = np.where(sky() > 5, 1 << 16, 0).astype(np.int32)
    mask[:, :5] |= 1 << 3
    weight = np.full(SHAPE, 1e4, np.float32)
    weight[:20] = 0
    planes = {
        f"image-{band}": (0.01 * sky()).astype(np.float32),
        f"invvar-{band}": weight,
        "maskbits": mask,
        f"psfsize-{band}": np.full(SHAPE, 0.41, np.float32),
    }
    return [
        write_image(folder / f"legacysurvey-0001m002-{name}.fits", pixels)
        for name, pixels in planes.items()
    ]


def test_a_brick_of_four_files(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    image, *_ = brick(tmp_path)
    assert main(["ingest", "--survey", "legacy-dr10", image, f"{tmp_path}/f.zarr"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split() == ["band", "image", "noise", "mask", "psf"]
    assert lines[1].split()[0] == "r"
    assert [cell.rpartition("-0001m002-")[2] for cell in lines[1].split()[1:]] == [
        "image-r.fits",
        "invvar-r.fits",
        "maskbits.fits",
        "psfsize-r.fits",
    ]
    field = Field.open(f"{tmp_path}/f.zarr")
    assert field.meta.mask_bits is not None
    assert field.meta.mask_bits.bad == ("SATUR_R", "ALLMASK_R", "UNOBSERVED")
    np.testing.assert_allclose(field.psf.fwhm_arcsec, 0.41, rtol=1e-3)
    assert field.psf.kernels is not None  # of its stars: the map tells widths alone


@pytest.mark.parametrize(
    ("survey", "message"),
    [
        ("jwst-i2d", "is not laid out as jwst-i2d: no HDU 'SCI'; it has 0 PRIMARY"),
        ("des-y6", "is not laid out as des-y6: no HDU 'SCI'"),
        ("euclid-mer", "is not called as euclid-mer's images are"),
        ("nowhere", "--survey: no survey 'nowhere'"),
    ],
)
def test_a_file_of_another_layout_is_one_line(
    survey: str, message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    url = write_image(tmp_path / "a.fits", noise_image(SHAPE), magzero=25.0)
    assert main(["ingest", "--survey", survey, url, f"{tmp_path}/f.zarr"]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert len(error.strip().splitlines()) == 1
    assert not (tmp_path / "f.zarr").exists()


def test_a_card_that_says_otherwise(tmp_path: Path) -> None:
    url = write_image(tmp_path / "a_drz.fits", noise_image(SHAPE), magzero=25.0, telescop="JWST")
    with pytest.raises(FieldError, match="is none of hst-drz: TELESCOP is 'JWST', not 'HST'"):
        ingest([url], f"{tmp_path}/f.zarr", survey="hst-drz")


def test_an_hdu_of_the_layout_that_is_not_there(tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text(
        "{name: mine, title: ours, source: [wiki], known_from: us, layout: {hdus: [SCI, INFO]},\n"
        " image: {hdu: SCI}, noise: {kind: rms, hdu: RMS}}"
    )
    (tmp_path / "empty.yaml").write_text("")
    header = celestial_header(magzero=25.0, psf_fwhm=0.4)
    hdus = [fits.PrimaryHDU(), fits.ImageHDU(sky(), header, name="SCI")]
    fits.HDUList(hdus).writeto(tmp_path / "a.fits")
    how: dict[str, Any] = {"survey": f"{tmp_path}/mine.yaml", "rms_hdu": ["none"]}
    with pytest.raises(
        FieldError, match="is not laid out as mine: no HDU 'INFO'; it has 0 PRIMARY"
    ):
        ingest([f"{tmp_path}/a.fits"], f"{tmp_path}/f.zarr", **how)
    fits.HDUList([*hdus, fits.ImageHDU(name="INFO")]).writeto(tmp_path / "a.fits", overwrite=True)
    ingest([f"{tmp_path}/a.fits"], f"{tmp_path}/f.zarr", **how)
    with pytest.raises(UserError, match=r"the file is empty; .* see docs/surveys.md"):
        ingest([f"{tmp_path}/a.fits"], f"{tmp_path}/f.zarr", survey=f"{tmp_path}/empty.yaml")


def test_surveys_of_ones_own(tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text(
        "{name: mine, title: ours, source: [wiki], known_from: us, zero_point: 25.5,\n"
        " image: {file: 't_{band}.fits'}, band: name, noise: {kind: rms, file: 't_{band}_rms.fits'},\n"
        " mask: {file: 't_{band}_flag.fits', bits: {SAT: 2, HOLE: 4, DETECTED: 5}}}"
    )
    mask = np.where(sky() > 5, 1 << 5, 0).astype(np.int16)
    mask[:6] |= 1 << 4
    image = write_image(tmp_path / "t_r.fits", sky())
    write_image(tmp_path / "t_r_rms.fits", np.ones(SHAPE, np.float32))
    write_image(tmp_path / "t_r_flag.fits", mask)
    summary = ingest([image], f"{tmp_path}/f.zarr", survey=f"{tmp_path}/mine.yaml")
    field = Field.open(f"{tmp_path}/f.zarr")
    assert (field.meta.bands, field.meta.zero_point) == (("r",), (25.5,))
    assert field.meta.mask_bits is not None
    assert field.meta.mask_bits.bad == ("SAT", "HOLE", "UNOBSERVED")
    assert summary.bad_fraction == pytest.approx(6 / SHAPE[0])


@pytest.mark.skipif(not FILES, reason="DEBLEND_BATCH_SURVEY_FILES names no folder")
def test_rubins_own_files_need_no_software_of_theirs(tmp_path: Path) -> None:
    url = f"{FILES}/rubin_dp2_layout.fits"
    summary = ingest([url], f"{tmp_path}/f.zarr", survey="rubin-dp2")
    field = Field.open(f"{tmp_path}/f.zarr")
    assert field.meta.bands == ("i",)
    assert field.psf.kernels is not None
    assert field.psf.kernels.grid.counts_yx == (8, 8)
    assert summary.bad_fraction < 0.01
    assert any("0.0% of 216 peaks on bad pixels" in check for check in summary.bands[0].checks)


def test_errors_are_users(tmp_path: Path) -> None:
    with pytest.raises(UserError):
        ingest([str(tmp_path / "nothing.fits")], f"{tmp_path}/f.zarr", survey="legacy-dr10")
