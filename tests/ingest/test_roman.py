"""Roman's images, written by its own data models: what the tree says is what the field holds."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from astropy.modeling import models

from deblend_batch.cli.main import run as command_line
from deblend_batch.errors import ConfigError, FieldError
from deblend_batch.field.layout import Field
from deblend_batch.field.wcs.sky_grid import SkyGrid
from deblend_batch.ingest.files.opening import open_files
from deblend_batch.ingest.header.cards import celestial_cards
from deblend_batch.ingest.ingest import ingest
from deblend_batch.ingest.reference import ImageRef
from tests.ingest.asdf_files import (
    SCALE_ARCSEC,
    gnomonic_wcs,
    plain_asdf,
    polynomial,
    roman_image,
    roman_mosaic,
)
from tests.ingest.fits_files import noise_image, write_image

SHAPE = (120, 150)
SIGMA = 0.02
UNSEEN = (slice(0, 6), slice(None))


def sky() -> np.ndarray:
    return noise_image(SHAPE, SIGMA)


def test_a_mosaic_is_a_field(tmp_path: Path) -> None:
    pixels = sky()
    url = roman_mosaic(tmp_path / "a.asdf", pixels, SIGMA, unseen=UNSEEN)
    summary = ingest([url], f"{tmp_path}/a.zarr", psf_fwhm_arcsec=[0.13])
    field = Field.open(f"{tmp_path}/a.zarr")
    assert field.meta.bands == ("F158",)
    # MJy/sr of a square of the WCS's own edge.
    jansky = 1e6 * np.radians(SCALE_ARCSEC / 3600) ** 2
    assert field.meta.zero_point[0] == pytest.approx(8.9 - 2.5 * np.log10(jansky), abs=1e-3)
    whole = slice(0, SHAPE[0]), slice(0, SHAPE[1])
    assert summary.bad_fraction == pytest.approx(6 / SHAPE[0])
    np.testing.assert_array_equal(field.plane(0, *whole)[6:], pixels[6:])
    np.testing.assert_allclose(field.plane(0, *whole, "variance")[6:], SIGMA**2, rtol=1e-6)
    assert field.plane(0, *whole, "mask")[:6].all()
    _check_positions(field, gnomonic_wcs())


def test_its_record_takes_the_format_of_its_files(tmp_path: Path) -> None:
    """The tree says where the planes are, and a file of PSFs is FITS."""
    url = roman_mosaic(tmp_path / "a.asdf", sky(), SIGMA, unseen=UNSEEN)
    how: dict[str, Any] = {"survey": "roman-l3", "psf_fwhm_arcsec": [0.13]}
    summary = ingest([url], f"{tmp_path}/a.zarr", **how)
    assert summary.bad_fraction == pytest.approx(6 / SHAPE[0])
    other = write_image(tmp_path / "b.fits", sky())
    with pytest.raises(FieldError, match=r"b\.fits: is none of roman-l3: those are ASDF; give an"):
        ingest([other], f"{tmp_path}/b.zarr", **how)
    with pytest.raises(FieldError, match=r"a\.asdf: is none of hst-drz: those are FITS; give an"):
        ingest([url], f"{tmp_path}/b.zarr", survey="hst-drz")
    with pytest.raises(ConfigError, match=r"--psf: .*a\.asdf is no FITS file"):
        ingest([url], f"{tmp_path}/b.zarr", psf=["err"])


def _check_positions(field: Any, wcs: Any, within_px: float = 0.01) -> None:
    rng = np.random.default_rng(3)
    y, x = (rng.uniform(-0.5, edge - 0.5, 200) for edge in SHAPE)
    back = field.world_to_pixel(*wcs(x, y))
    assert np.abs(back - np.stack([y, x], axis=1)).max() < within_px


@pytest.mark.parametrize(
    ("conversion", "said"), [(0.4, None), (None, "give --zero-point"), (-999999.0, "--zero-point")]
)
def test_an_exposure_says_what_a_count_is(
    conversion: float | None, said: str | None, tmp_path: Path
) -> None:
    dq = np.zeros(SHAPE, np.uint32)
    dq[10:20] |= 1  # do not use
    dq[30:90] |= 1 << 16  # nonlinear: a remark
    wcs = gnomonic_wcs((75.0, 60.0), distortion=polynomial(20.0))
    url = roman_image(tmp_path / "a.asdf", sky(), SIGMA, wcs=wcs, dq=dq, conversion=conversion)
    if said is not None:
        with pytest.raises(FieldError, match=said):
            ingest([url], f"{tmp_path}/a.zarr", psf_fwhm_arcsec=[0.13])
        return
    summary = ingest([url], f"{tmp_path}/a.zarr", psf_fwhm_arcsec=[0.13])
    field = Field.open(f"{tmp_path}/a.zarr")
    jansky = 0.4e6 * np.radians(SCALE_ARCSEC / 3600) ** 2
    assert field.meta.zero_point[0] == pytest.approx(8.9 - 2.5 * np.log10(jansky), abs=1e-2)
    assert field.meta.mask_bits is not None
    assert field.meta.mask_bits.bad == ("DO_NOT_USE", "NON_SCIENCE", "UNOBSERVED")
    assert field.meta.mask_bits.bits["NONLINEAR"] == 16
    assert summary.bad_fraction == pytest.approx(10 / SHAPE[0])
    _check_positions(field, wcs)


def _wave(pixels: float) -> Any:
    """A distortion that no polynomial follows, of some pixels."""
    x, y = (models.Mapping((axis,), n_inputs=2) for axis in (0, 1))
    return models.Mapping((0, 1, 0, 1)) | (x + (y | models.Sine1D(pixels, 0.05))) & y


@pytest.mark.parametrize(
    ("distortion", "is_told"),
    [
        (polynomial(300.0, 3), True),
        (polynomial(30.0, 5), True),
        (_wave(1e-4), True),
        (_wave(0.03), False),
    ],
)
def test_a_gwcs_is_told_in_cards_or_refused(distortion: Any, is_told: bool, tmp_path: Path) -> None:
    """What is told is within 0.01 px where nobody has looked, too."""
    wcs = gnomonic_wcs((75.0, 60.0), distortion=distortion)
    url = plain_asdf(tmp_path / "a.asdf", sky(), wcs)
    with open_files() as files:
        plane = files.plane(ImageRef(url))
        if is_told:
            cards = celestial_cards(plane.unsettled, SHAPE, "a")
            _check_positions(SkyGrid(cards, SHAPE), wcs)
            assert (plane.unsettled["BUNIT"], plane.unsettled["FILTER"]) == ("nJy", "F200W")
        else:
            with pytest.raises(FieldError, match=r"as a FITS WCS is .* and may be 0.01; resample"):
                _ = plane.unsettled


def test_planes_may_be_named(tmp_path: Path) -> None:
    url = roman_mosaic(tmp_path / "a.asdf", sky(), SIGMA)
    with open_files() as files:
        for name in ("err", "roman.err", "ERR"):
            assert files.plane(ImageRef(url, name)).shape_yx == SHAPE
        with pytest.raises(FieldError, match=r"no array 'sky'; it has .*data \(120, 150\)"):
            files.plane(ImageRef(url, "sky"))
    made = f"{tmp_path}/a.zarr"
    ingest([url], made, variance_hdu=["var_poisson"], psf_fwhm_arcsec=[0.13], meant=["noise"])
    whole = slice(0, SHAPE[0]), slice(0, SHAPE[1])
    np.testing.assert_allclose(
        Field.open(made).plane(0, *whole, "variance"), SIGMA**2 / 2, rtol=1e-6
    )


def test_without_the_packages_it_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "a.asdf"
    path.write_bytes(b"#ASDF 1.0.0\n")
    monkeypatch.setitem(sys.modules, "gwcs", None)
    words = ["deblend-batch", "ingest", str(path), f"{tmp_path}/a.zarr"]
    monkeypatch.setattr(sys, "argv", words)
    with pytest.raises(SystemExit) as ended:
        command_line()
    assert ended.value.code == ConfigError.exit_code
    said = capsys.readouterr().err
    assert "pip install 'deblend-batch[roman]'" in said
    assert said.count("\n") == 1
