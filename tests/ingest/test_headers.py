"""What headers say."""

from __future__ import annotations

import math
from typing import Any

import pytest
from astropy.io.fits import Header

from deblend_batch.ingest import headers


def header(**cards: Any) -> Header:
    made = Header()
    for key, value in cards.items():
        made[key.replace("__", " ")] = value
    return made


@pytest.mark.parametrize(
    ("cards", "value", "source"),
    [
        ({"MAGZERO": 24.6}, 24.6, "MAGZERO"),
        ({"ZEROPNT": "25.5"}, 25.5, "ZEROPNT"),
        ({"MAGZPT": 30}, 30.0, "MAGZPT"),
        ({"PHOTZP": 26.0, "BUNIT": "Jy"}, 26.0, "PHOTZP"),
        ({"FLUXMAG0": 63095734448.0194}, 27.0, "FLUXMAG0"),
        ({"PHOTFLAM": 1.9275e-20, "PHOTPLAM": 15369.0}, 25.9463, "PHOTFLAM"),
        (
            {"PHOTFLAM": 1.9275e-20, "PHOTPLAM": 15369.0, "BUNIT": "ELECTRONS/S", "EXPTIME": 100.0},
            25.9463,
            "PHOTFLAM",
        ),
        (
            {"PHOTFLAM": 1.9275e-20, "PHOTPLAM": 15369.0, "BUNIT": "ELECTRONS", "EXPTIME": 100.0},
            30.9463,
            "PHOTFLAM",
        ),
        ({"BUNIT": "nJy"}, 31.4, "BUNIT"),
        ({"BUNIT": "nanomaggies"}, 22.5, "BUNIT"),
        ({"BUNIT": "MJy/sr", "PIXAR_SR": 2.31e-14}, 27.991, "BUNIT, PIXAR_SR"),
        ({"HIERARCH ESO QC MAGZPT": 23.4}, 23.4, "ESO QC MAGZPT"),
    ],
)
def test_zero_points(cards: dict[str, Any], value: float, source: str) -> None:
    found = headers.zero_point([header(**cards)])
    assert found is not None
    assert found.value == pytest.approx(value, abs=0.003)
    assert found.source == source


@pytest.mark.parametrize(
    "cards",
    [
        {},
        {"MAGZERO": "unknown"},
        {"FLUXMAG0": -1.0},
        {"PHOTFLAM": 1e-20},
        {"BUNIT": "ADU"},
        {"BUNIT": "MJy/sr"},
        {"HIERARCH ESO QC MAGLIM": 23.4},
        {"MAGZERO": True},
    ],
)
def test_no_zero_point(cards: dict[str, Any]) -> None:
    assert headers.zero_point([header(**cards)]) is None


def test_the_images_own_header_comes_first() -> None:
    own, primary = header(MAGZERO=24.0), header(MAGZERO=25.0, FILTER="r", FLUXMAG0=1.0)
    found = headers.zero_point([own, primary])
    assert found == headers.Found(24.0, "MAGZERO")
    assert headers.band_name([own, primary]) == "r"


@pytest.mark.parametrize(
    ("key", "value", "comment", "arcsec"),
    [
        ("PSF_FWHM", 0.8, "", 0.8),
        ("PSF_FWHM", 4.0, "Median FWHM from PSFEx [pixel]", 0.8),
        ("SEEING", 0.7, "[arcsec]", 0.7),
        ("FWHM", 4.0, "pixels", 0.8),
        ("FWHM", 0.9, "arcsec", 0.9),
        ("FWHM", 4.0, "", None),
        ("SEEING", -1.0, "", None),
        ("SEEING", 200.0, "", None),
        ("SEEING", "good", "", None),
    ],
)
def test_psf_widths(key: str, value: Any, comment: str, arcsec: float | None) -> None:
    made = Header()
    made[key] = (value, comment)
    found = headers.psf_fwhm_arcsec([made], pixel_scale_arcsec=0.2)
    assert (found and found.value) == (pytest.approx(arcsec) if arcsec else None)


@pytest.mark.parametrize(
    ("cards", "band"),
    [
        ({"FILTER": "NIR_Y   "}, "NIR_Y"),
        ({"FILTER": "g DECam SDSS c0001 4720.0 1520.0"}, "g"),
        ({"FILTER": "H  )"}, "H"),
        ({"FILTER1": "CLEAR1L", "FILTER2": "F814W"}, "F814W"),
        ({"FILTER": "HSC-G"}, "HSC-G"),
        ({"FILTER": "u/v*"}, "u_v"),
        ({"FILTER": ""}, None),
        ({"FILTER": 3}, None),
        ({}, None),
    ],
)
def test_band_names(cards: dict[str, Any], band: str | None) -> None:
    assert headers.band_name([header(**cards)]) == band


@pytest.mark.parametrize(
    ("cards", "value"), [({"SATURATE": 4e4}, 4e4), ({"SATURATE": 0}, math.inf), ({}, math.inf)]
)
def test_saturation(cards: dict[str, Any], value: float) -> None:
    assert headers.saturation([header(**cards)]) == value
