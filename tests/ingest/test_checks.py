"""What a file says against what its image shows."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from astropy.io import fits
from hypothesis import given
from hypothesis import strategies as st

from deblend_batch.errors import ConfigError, FieldError
from deblend_batch.field.layout import Field
from deblend_batch.ingest.checks import compare_noise, settle_width
from deblend_batch.ingest.header.headers import Found
from deblend_batch.ingest.ingest import ingest
from deblend_batch.ingest.psf.width import PsfWidth
from tests.ingest.fits_files import (
    add_gaussians,
    celestial_header,
    grid_positions,
    noise_image,
    write_extensions,
    write_image,
)

SCALE = 0.2
SHAPE = (300, 320)


@given(seen_px=st.floats(1.5, 10), wrong=st.floats(0.8, 1.25), scale=st.floats(0.03, 0.5))
def test_a_card_in_pixels_is_known_by_the_stars(seen_px: float, wrong: float, scale: float) -> None:
    said = Found(seen_px * wrong, "SEEING")
    found, check = settle_width(said, PsfWidth(seen_px, 0.02, 30), scale)
    assert found.value == pytest.approx(said.value * scale)
    assert (found.source, check.problem) == ("SEEING, in pixels", "")
    option, asked = settle_width(Found(said.value, "option"), PsfWidth(seen_px, 0.02, 30), scale)
    assert option.value == said.value
    assert "the number that the stars have in pixels" in asked.problem


@pytest.mark.parametrize(
    ("said", "seen_px", "stops"),
    [(0.8, 4.0, False), (0.8, 3.0, False), (0.8, 8.0, False), (0.8, 2.0, True), (0.8, 1.0, False)],
)
def test_no_star_is_much_narrower_than_the_psf(said: float, seen_px: float, *, stops: bool) -> None:
    found, check = settle_width(Found(said, "SEEING"), PsfWidth(seen_px, 0.02, 30), SCALE)
    assert found.value == said
    assert bool(check.problem) is stops


@given(seen=st.floats(0.4, 3), stars=st.integers(5, 100), scatter=st.floats(0.001, 0.09))
def test_a_sigma_is_no_width(seen: float, stars: int, scatter: float) -> None:
    said = Found(seen / 2.3548, "PSF_FWHM")
    found, check = settle_width(said, PsfWidth(seen / SCALE, scatter, stars), SCALE)
    assert found == said
    assert bool(check.problem) is (stars >= 20 and scatter < 0.05)  # else they may be galaxies


def test_without_stars_nothing_is_compared() -> None:
    found, check = settle_width(Found(0.8, "SEEING"), None, SCALE)
    assert (found.value, check.text) == (0.8, "PSF not compared: too few stars")


@given(scale=st.floats(1e-20, 1e20), ratio=st.floats(0.35, 3.5), wrong=st.floats(6, 1e4))
def test_a_noise_plane_is_that_of_the_pixels(scale: float, ratio: float, wrong: float) -> None:
    fits = compare_noise(scale * ratio, scale, "rms")
    assert fits is not None
    assert not fits.problem
    for sigma in (scale * wrong, scale / wrong):
        check = compare_noise(sigma, scale, "weight")
        assert check is not None
        assert "a relative weight or an exposure map; leave it out" in check.problem


def test_nothing_is_compared_with_an_image_without_noise() -> None:
    assert compare_noise(1.0, 0.0, "rms") is None
    assert compare_noise(None, 1.0, "rms") is None


def test_an_exposure_map_stops_unless_it_is_meant(tmp_path: Path) -> None:
    planes: Any = {
        "SCI": (noise_image(SHAPE), {"magzero": 25.0, "psf_fwhm": 0.4}),
        "WHT": (np.full(SHAPE, 4000.0, np.float32), {}),
    }
    url = write_extensions(tmp_path / "a.fits", **planes)
    with pytest.raises(FieldError, match=r"a noise of 0\.0158, .* --meant noise$"):
        ingest([url], f"{tmp_path}/a.zarr", weight_hdu=["WHT"])
    summary = ingest([url], f"{tmp_path}/a.zarr", weight_hdu=["WHT"], meant=["noise"])
    assert "noise plane 0.016 of the pixels' scatter" in summary.bands[0].checks
    with pytest.raises(ConfigError, match="--meant: 'nois' is none of psf, noise, mask"):
        ingest([url], f"{tmp_path}/b.zarr", meant=["nois"])


@pytest.mark.parametrize(
    ("kind", "shift_px"), [("rms", 3.0), ("mask", -40.0), ("rms", 0.5), ("mask", None)]
)
def test_a_plane_of_another_place_stops_unless_it_is_meant(
    kind: str, shift_px: float | None, tmp_path: Path
) -> None:
    """By its WCS; one that has none is taken as the image's."""
    image = noise_image()
    url = write_image(tmp_path / "a.fits", image, magzero=25.0, psf_fwhm=0.4)
    header = celestial_header()
    if shift_px is None:
        header = fits.Header()
    else:
        header["CRPIX1"] += shift_px
    plane = np.ones(image.shape, np.float32) if kind == "rms" else np.zeros(image.shape, np.uint8)
    fits.PrimaryHDU(plane, header).writeto(tmp_path / "b.fits")
    planes: dict[str, Any] = {f"{kind}_hdu": [f"{tmp_path}/b.fits"]}
    name = "noise" if kind == "rms" else "mask"
    if shift_px is not None and abs(shift_px) > 1:
        message = rf"b.fits\[PRIMARY\] is {abs(shift_px):g} px off the image .* --meant {name}"
        with pytest.raises(FieldError, match=message):
            ingest([url], f"{tmp_path}/f.zarr", **planes)
        found = ingest([url], f"{tmp_path}/f.zarr", **planes, meant=[name])
        assert any("px off the image" in check for check in found.bands[0].checks)
    else:
        found = ingest([url], f"{tmp_path}/f.zarr", **planes)
        assert not any("px off the image" in check for check in found.bands[0].checks)


def test_seeing_in_pixels_is_said_and_taken(tmp_path: Path) -> None:
    image = add_gaussians(noise_image(SHAPE), grid_positions(SHAPE, 40), 3000.0, 4.0)
    url = write_image(tmp_path / "a.fits", image, magzero=25.0, seeing=4.1)
    band = ingest([url], f"{tmp_path}/a.zarr").bands[0]  # pixels are 0.1 arcsec
    assert band.psf_fwhm_arcsec.value == pytest.approx(0.41)
    assert band.psf_fwhm_arcsec.source == "SEEING, in pixels"
    assert band.checks == ("SEEING 4.1 is in pixels, by the stars",)


@pytest.mark.parametrize("unit", [1e-33, 1e-24, 1.0, 1e13])
def test_the_unit_of_the_pixels_changes_no_flux(unit: float, tmp_path: Path) -> None:
    image = noise_image(SHAPE).astype(np.float64) * unit
    zero_point = 25.0 + 2.5 * np.log10(unit)
    planes: Any = {
        "SCI": (image, {"psf_fwhm": 0.4, "saturate": 50 * unit}),
        "WHT": (np.full(SHAPE, 1 / unit / unit), {}),
    }
    url = write_extensions(tmp_path / "a.fits", **planes)
    ingest([url], f"{tmp_path}/a.zarr", weight_hdu=["WHT"], zero_points=[zero_point])
    field = Field.open(f"{tmp_path}/a.zarr")
    njy = 10 ** (0.4 * (31.4 - field.meta.zero_point[0]))
    rows = slice(0, 50), slice(0, 60)
    expected = image[rows] * 10 ** (0.4 * (31.4 - zero_point))
    np.testing.assert_allclose(field.plane(0, *rows) * njy, expected, rtol=1e-5)
    sigma = np.sqrt(field.plane(0, *rows, "variance")) * njy
    np.testing.assert_allclose(sigma, unit * 10 ** (0.4 * (31.4 - zero_point)), rtol=1e-5)
    assert field.meta.saturate is not None
    assert field.meta.saturate[0] is not None
    assert field.meta.saturate[0] * njy == pytest.approx(
        50 * unit * 10 ** (0.4 * (31.4 - zero_point))
    )
