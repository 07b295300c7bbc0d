"""What headers say."""

from __future__ import annotations

from typing import Any

import pytest
from astropy.io.fits import Header
from hypothesis import given
from hypothesis import strategies as st

from deblend_batch.ingest.header import headers
from deblend_batch.ingest.header.zero_point import ZeroPoint, zero_point


def header(**cards: Any) -> Header:
    made = Header()
    for key, value in cards.items():
        made[key.replace("__", " ")] = value
    return made


@pytest.mark.parametrize("text", ["nan", "inf", "1 2", "'25.0", "(1.0, 2.0)", "="])
def test_a_damaged_card_says_nothing(text: str) -> None:
    keys = ("MAGZERO", "FLUXMAG0", "PHOTFLAM", "BUNIT", "PSF_FWHM", "FILTER", "SATURATE", "EXPTIME")
    damaged = Header.fromstring("".join(f"{key:8}= {text}".ljust(80) for key in keys))
    assert zero_point([damaged], 1e-12) == ZeroPoint(None)
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
    *("PSF_FWHM", "SEEING", "FWHM", "SATURATE", "FILTER", "LTV1", "LTV2", "HIERARCH ESO QC MAGZPT"),
)


@pytest.mark.filterwarnings("ignore:Card is too long")  # a HIERARCH card of 60 digits
@given(cards=st.dictionaries(st.sampled_from(KEYS), VALUES))
def test_whatever_a_header_says_is_plausible_or_nothing(cards: dict[str, Any]) -> None:
    made = [Header.fromstring(header(**cards).tostring())]
    found = zero_point(made, 1e-12).found
    assert found is None or -60 <= found.value <= 60
    fwhm = headers.psf_fwhm_arcsec(made, 0.2)
    assert fwhm is None or 0.01 < fwhm.value < 30
    level = headers.saturation(made)
    assert level is None or 0 < level.value < 3.5e38
    name = headers.band_name(made)
    assert name is None or 0 < len(name) <= 64
    place = headers.parent_yx(made)
    assert place is None or max(map(abs, place)) <= 1e9


@pytest.mark.parametrize(
    ("cards", "expected"),
    [
        ({"LTV1": -4000.0, "LTV2": -8000.0}, (8000.0, 4000.0)),
        ({"LTV1": -4000.0, "LTV2": -8000.0, "LTM1_1": 1.0, "LTM2_2": 1}, (8000.0, 4000.0)),
        ({"LTV1": -4000.0, "LTV2": -8000.0, "LTM1_1": 0.5, "LTM2_2": 0.5}, None),  # binned
        ({"LTV1": -4000.0}, None),
        ({"LTV1": "x", "LTV2": 1.0}, None),
        (
            {
                "CTYPE1A": "LINEAR",
                "CTYPE2A": "LINEAR",
                "CRPIX1A": 1.0,
                "CRPIX2A": 1.0,
                "CRVAL1A": 30,
                "CRVAL2A": 9,
            },
            (9.0, 30.0),
        ),
        (
            {
                "CTYPE1A": "LINEAR",
                "CTYPE2A": "LINEAR",
                "CRPIX1A": 11.0,
                "CRVAL1A": 30,
                "CRVAL2A": 9,
            },
            (9.0, 20.0),
        ),
        ({"CTYPE1A": "RA---TAN", "CTYPE2A": "DEC--TAN", "CRVAL1A": 30, "CRVAL2A": 9}, None),
        (
            {"CTYPE1A": "LINEAR", "CTYPE2A": "LINEAR", "CRVAL1A": 30, "CRVAL2A": 9, "CDELT1A": 2.0},
            None,
        ),
        ({}, None),
    ],
)
def test_an_image_knows_what_it_was_cut_from(
    cards: dict[str, Any], expected: tuple[float, float] | None
) -> None:
    assert headers.parent_yx([header(**cards)]) == expected


def test_the_images_own_header_comes_first() -> None:
    own, primary = header(SATURATE=3e4), header(SATURATE=4e4, FILTER="r")
    assert headers.saturation([own, primary]) == headers.Found(3e4, "SATURATE")
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
        ("SEEING", "0.7 arcsec", "", 0.7),
        ("PSF_FWHM", "4 pix", "", 0.8),
        ("SEEING", 0.7, "[arcsec], at 0.2 arcsec/pixel", 0.7),
        ("SEEING", 0.7, "FWHM in arcsec (pixel scale 0.2)", 0.7),
        ("FWHM", 0.7, '["] of stars', 0.7),
        ("SEEING", 0.34, "Gaussian sigma [arcsec]", 0.34 * 2.3548),
        ("SEEING", 0.4, "HWHM, arcsec", 0.8),
        ("SEEING", 4.0, "FWHM = 2.35 sigma [pixels]", 0.8),
        ("PSF_FWHM", 2.0, "sigma of the PSF [pixel]", None),
    ],
)
def test_psf_widths(key: str, value: Any, comment: str, arcsec: float | None) -> None:
    made = Header()
    made[key] = (value, comment)
    found = headers.psf_fwhm_arcsec([made], pixel_scale_arcsec=0.2)
    assert (found and found.value) == (pytest.approx(arcsec) if arcsec else None)


WIDTH_UNITS = {
    "arcsec": 1.0, "arcseconds": 1.0, "arc sec": 1.0, '"': 1.0, "px": 0.2, "pix": 0.2, "pixels": 0.2,
    "mas": 1e-3, "milliarcsec": 1e-3, "arcmin": 60.0, "deg": 3600.0, "degrees": 3600.0, "rad": 206264.806,
}  # fmt: skip


@given(
    unit=st.sampled_from(sorted(WIDTH_UNITS)),
    form=st.sampled_from(
        ["[{}]", "({})", "{}", "mean width [{}], r band", "of stars, {}", "in {}"]
    ),
    key=st.sampled_from(["PSF_FWHM", "PSFFWHM", "SEEING", "FWHM"]),
    arcsec=st.floats(0.05, 20),
    in_value=st.booleans(),
)
def test_a_width_is_in_the_unit_that_is_said(
    unit: str, form: str, key: str, arcsec: float, in_value: bool
) -> None:
    size, said = arcsec / WIDTH_UNITS[unit], form.format(unit)
    made = Header()
    made[key] = (f"{size!r} {unit}", "") if in_value and unit != '"' else (size, said)
    found = headers.psf_fwhm_arcsec([made], pixel_scale_arcsec=0.2)
    assert found is not None
    assert found.value == pytest.approx(arcsec)


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
