"""What headers say."""

from __future__ import annotations

from typing import Any

import pytest
from astropy.io.fits import Header
from hypothesis import given
from hypothesis import strategies as st

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
        {"MAGZERO": 1e308},
        {"MAGZERO": "1e400"},
        {"MAGZERO": "9" * 5000},
        {"MAGZERO": -99.0},
        {"MAGZERO": 3 + 4j},
        {"FLUXMAG0": 1e308},
        {"FLUXMAG0": 5e-324},
        {"PHOTFLAM": 1e308, "PHOTPLAM": 1e308},
        {"PHOTFLAM": 5e-324, "PHOTPLAM": 5e-324, "BUNIT": "counts", "EXPTIME": 1e308},
        {"BUNIT": "MJy/sr", "PIXAR_SR": 1e308},
        {"BUNIT": "(m" * 500_000},
        {"BUNIT": 3},
        {"HIERARCH ESO QC MAGZPT": 1e300},
    ],
)
def test_no_zero_point(cards: dict[str, Any]) -> None:
    assert headers.zero_point([header(**cards)]) is None


def test_a_value_that_is_none_gives_way_to_the_next_rule() -> None:
    found = headers.zero_point([header(MAGZERO=1e308, PHOTZP=99.0, MAGZP=25.5)])
    assert found == headers.Found(25.5, "MAGZP")


@pytest.mark.parametrize("text", ["nan", "inf", "1 2", "'25.0", "(1.0, 2.0)", "="])
def test_a_damaged_card_says_nothing(text: str) -> None:
    keys = ("MAGZERO", "FLUXMAG0", "PHOTFLAM", "BUNIT", "PSF_FWHM", "FILTER", "SATURATE", "EXPTIME")
    damaged = Header.fromstring("".join(f"{key:8}= {text}".ljust(80) for key in keys))
    assert headers.zero_point([damaged]) is None
    assert headers.psf_fwhm_arcsec([damaged], 0.1) is None
    assert headers.band_name([damaged]) is None
    assert headers.saturation([damaged]) is None


VALUES = st.one_of(
    st.floats(allow_nan=False, allow_infinity=False),
    st.integers(-(10**60), 10**60),
    st.booleans(),
    st.complex_numbers(allow_nan=False, allow_infinity=False),
    st.text(st.characters(min_codepoint=32, max_codepoint=126), max_size=200),
    st.sampled_from(["nan", "-inf", "1e999", "MJy/sr", "counts", "nJy", "CLEAR", "x" * 1000]),
)
KEYS = (
    *("MAGZERO", "PHOTZP", "FLUXMAG0", "PHOTFLAM", "PHOTPLAM", "EXPTIME", "BUNIT", "PIXAR_SR"),
    *("PSF_FWHM", "SEEING", "FWHM", "SATURATE", "FILTER", "HIERARCH ESO QC MAGZPT"),
)


@pytest.mark.filterwarnings("ignore:Card is too long")  # a HIERARCH card of 60 digits
@given(cards=st.dictionaries(st.sampled_from(KEYS), VALUES))
def test_whatever_a_header_says_is_plausible_or_nothing(cards: dict[str, Any]) -> None:
    made = [Header.fromstring(header(**cards).tostring())]
    found = headers.zero_point(made)
    assert found is None or -60 <= found.value <= 60
    fwhm = headers.psf_fwhm_arcsec(made, 0.2)
    assert fwhm is None or 0.01 < fwhm.value < 30
    level = headers.saturation(made)
    assert level is None or 0 < level.value < 3.5e38
    name = headers.band_name(made)
    assert name is None or 0 < len(name) <= 64


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
        ({"FILTER": "x" * 100_000}, None),
        ({"FILTER": "x" * 65, "BAND": "r"}, "r"),
        ({}, None),
    ],
)
def test_band_names(cards: dict[str, Any], band: str | None) -> None:
    assert headers.band_name([header(**cards)]) == band


@pytest.mark.parametrize(
    ("cards", "found"),
    [
        ({"SATURATE": 4e4}, headers.Found(4e4, "SATURATE")),
        ({"SATURATE": 0, "SATLEVEL": 3e4}, headers.Found(3e4, "SATLEVEL")),
        ({"SATURAT": 2e4}, headers.Found(2e4, "SATURAT")),
        ({"SATURATE": 0}, None),
        ({"SATURATE": 1e308}, None),
        ({"SATURATE": "high"}, None),
        ({}, None),
    ],
)
def test_saturation(cards: dict[str, Any], found: headers.Found | None) -> None:
    assert headers.saturation([header(**cards)]) == found
