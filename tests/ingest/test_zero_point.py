"""Zero points: what one image unit is."""

from __future__ import annotations

import math
import re
from typing import Any

import astropy.units as u
import pytest
from astropy.io.fits import Header
from hypothesis import given
from hypothesis import strategies as st

from deblend_batch.ingest.header.headers import Found
from deblend_batch.ingest.header.units import read_unit
from deblend_batch.ingest.header.zero_point import ZeroPoint, zero_point
from tests.ingest.test_headers import header

AREA_SR = (0.2 / 206264.806247) ** 2
"""Of a pixel of 0.2 arcsec."""
HST = {"PHOTFLAM": 1.9275e-20, "PHOTPLAM": 15369.0}


def said(*headers: Header) -> ZeroPoint:
    return zero_point(headers, AREA_SR)


@pytest.mark.parametrize(
    ("cards", "value", "source"),
    [
        ({"MAGZERO": 24.6}, 24.6, "MAGZERO"),
        ({"ZEROPNT": "25.5"}, 25.5, "ZEROPNT"),
        ({"MAGZPT": 30}, 30.0, "MAGZPT"),
        ({"PHOTZP": 26.0, "BUNIT": "Jy"}, 26.0, "PHOTZP"),
        ({"PHOTZP": 26.0, "PHOTSYS": "AB", "TELESCOP": "ESO-VISTA"}, 26.0, "PHOTZP"),
        ({"FLUXMAG0": 63095734448.0194}, 27.0, "FLUXMAG0"),
        (HST, 25.9463, "PHOTFLAM"),
        ({**HST, "BUNIT": "ELECTRONS/S", "EXPTIME": 100.0}, 25.9463, "PHOTFLAM"),
        ({**HST, "BUNIT": "counts s-1"}, 25.9463, "PHOTFLAM"),
        ({**HST, "BUNIT": "ELECTRONS", "EXPTIME": 100.0}, 30.9463, "PHOTFLAM"),
        ({**HST, "BUNIT": "ELECTRONS", "EXPTIME": "100.0"}, 30.9463, "PHOTFLAM"),
        ({**HST, "BUNIT": "nJy"}, 31.4, "BUNIT"),
        ({"BUNIT": "nanomaggies"}, 22.5, "BUNIT"),
        ({"BUNIT": "maggies", "MAGZERO": 0.0}, 0.0, "MAGZERO"),
        ({"HIERARCH ESO QC MAGZPT": 23.4}, 23.4, "ESO QC MAGZPT"),
        ({"HIERARCH FPA.ZP": 25.0, "EXPTIME": 100.0}, 30.0, "FPA.ZP, EXPTIME"),
    ],
)
def test_zero_points(cards: dict[str, Any], value: float, source: str) -> None:
    found = said(header(**cards)).found
    assert found is not None
    assert found.value == pytest.approx(value, abs=0.003)
    assert found.source == source


JANSKY = [
    *(
        "nJy",
        "uJy",
        "mJy",
        "Jy",
        "MJy",
        "10.0*nanoJansky",
        "1e-8 Jy",
        "erg s-1 cm-2 Hz-1",
        "W m-2 Hz-1",
    ),
]
ANGLES = {"sr": u.sr, "arcsec2": u.arcsec**2, "deg2": u.deg**2, "arcsec^2": u.arcsec**2}


@given(unit=st.sampled_from(JANSKY), space=st.sampled_from(["", " "]), data=st.data())
def test_a_unit_is_what_astropy_reads(unit: str, space: str, data: st.DataObject) -> None:
    area = data.draw(st.floats(1e-14, 1e-9))
    jansky = u.Unit(unit).to(u.Jy)
    assert read_unit(unit, area).jansky == pytest.approx(jansky)
    pixel = data.draw(st.sampled_from(["pix", "pixel"]))
    assert read_unit(f"{unit}{space}/{space}{pixel}", area).jansky == pytest.approx(jansky)
    angle = data.draw(st.sampled_from(sorted(ANGLES)))
    per_angle = jansky * area / ANGLES[angle].to(u.sr)
    assert read_unit(f"{unit}{space}/{space}{angle}", area).jansky == pytest.approx(per_angle)


@pytest.mark.parametrize(
    ("text", "magnitude"),
    [
        ("maggies", 0.0),
        ("nanomaggy", 22.5),
        ("nmgy", 22.5),
        ("nanomaggies/arcsec2", 22.5 - 5 * math.log10(0.2)),
        ("njy", 31.4),
        ("microJansky", 23.9),
        ("muJy", 23.9),
        ("[uJy]", 23.9),
        ("nano Jansky", 31.4),
        ("mJanskys", 16.4),
        ("JANSKY", 8.9),
        ("Jy per pixel", 8.9),
        ("njy/pixel", 31.4),
        ("JY/SR", 8.9 - 2.5 * math.log10(AREA_SR)),
        ("nJy/px", 31.4),
        ("ergs/cm**2/s/hz", 8.9 - 2.5 * 23),
        ("1e-20 erg/s/cm2/A", 8.9 - 2.5 * math.log10(1e-20 * 5000**2 / 2.99792458e-5)),
        ("10^-20 ergs s-1 cm-2 A-1", 8.9 - 2.5 * math.log10(1e-20 * 5000**2 / 2.99792458e-5)),
        ("1e-20 erg/cm2/s/Angstrom", 8.9 - 2.5 * math.log10(1e-20 * 5000**2 / 2.99792458e-5)),
    ],
)
def test_units_beside_the_standard(text: str, magnitude: float) -> None:
    jansky = read_unit(text, AREA_SR, pivot_angstrom=5000.0).jansky
    assert jansky is not None
    assert 8.9 - 2.5 * math.log10(jansky) == pytest.approx(magnitude, abs=1e-3)


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        *(
            (text, "rate")
            for text in (
                "ELECTRONS/S",
                "e-/sec",
                "adu / s",
                "cps",
                "DN s**-1",
                "counts per second",
                "[e-/s]",
            )
        ),
        *((text, "counts") for text in ("ELECTRONS", "ADU", "counts/pixel", "e-", "photons")),
        *(
            (text, "logarithmic")
            for text in ("mag", "mag(AB)", "mag / arcsec2", "MAG", "STmag", "dex")
        ),
        *((text, "unknown") for text in ("", "UNITLESS", "Jy/beam", "MJY/SR", "mjy", "nJy2", "m")),
        *((text, "unknown") for text in ("(m" * 500_000, "m**9999", "1e999 Jy", "-1 Jy")),
    ],
)
def test_what_is_no_flux(text: str, kind: str) -> None:
    unit = read_unit(text, AREA_SR)
    assert (unit.kind, unit.jansky) == (kind, None)


@pytest.mark.parametrize(
    "cards",
    [
        {},
        {"MAGZERO": "unknown"},
        {"FLUXMAG0": -1.0},
        {"PHOTFLAM": 1e-20},
        {"BUNIT": "ADU"},
        {"BUNIT": "erg/s/cm2/Angstrom"},
        {"HIERARCH ESO QC MAGLIM": 23.4},
        {"MAGZERO": True},
        *({"MAGZERO": value} for value in (1e308, "1e400", "9" * 5000, 3 + 4j, 0.0)),
        *({"MAGZERO": value} for value in (-99.0, 99.0, 999.0, -999.0)),
        {"FLUXMAG0": 1e308},
        {"FLUXMAG0": 5e-324},
        {"PHOTFLAM": 1e308, "PHOTPLAM": 1e308},
        {"BUNIT": 3},
        {"HIERARCH ESO QC MAGZPT": 1e300},
    ],
)
def test_no_zero_point(cards: dict[str, Any]) -> None:
    assert said(header(**cards)) == ZeroPoint(None)


@pytest.mark.parametrize(
    ("cards", "why"),
    [
        ({"PHOTZP": 25.0, "PHOTSYS": "VEGA"}, r"PHOTZP is no AB zero point \(PHOTSYS is VEGA\)"),
        ({"MAGZERO": 25.0, "MAGSYS": "STMAG"}, r"\(MAGSYS is STMAG\)"),
        ({"MAGZPT": 23.0, "TELESCOP": "ESO-VISTA"}, r"\(VISTA gives Vega magnitudes\)"),
        ({"MAGZP": 20.5, "TELESCOP": "WISE", "BAND": "W1"}, r"WISE gives .*; in W1 it is 23\.199"),
        ({"MAGZERO": 22.5, "FILTER": "W2", "BUNIT": "nanomaggy"}, r"in W2 it is 25\.839"),
        ({"HIERARCH ESO QC MAGZPT": 23.0, "INSTRUME": "VIRCAM"}, "VIRCAM gives Vega"),
        ({"BUNIT": "mag"}, "BUNIT is mag, and magnitudes cannot be added"),
        ({"BUNIT": "ABMAG", "MAGZERO": 25.0}, "BUNIT is ABMAG, and magnitudes cannot be added"),
        ({**HST, "BUNIT": "DN/exposure"}, "BUNIT is 'DN/exposure', which is neither those nor"),
        ({**HST, "BUNIT": "ELECTRONS"}, r"counts \(ELECTRONS\), and EXPTIME is missing"),
        ({**HST, "BUNIT": "counts", "EXPTIME": "n/a"}, "EXPTIME is missing or no number"),
        ({**HST, "BUNIT": "counts", "EXPTIME": 0.0}, "EXPTIME is 0"),
        ({"HIERARCH FPA.ZP": 25.0}, "FPA.ZP is of counts per second, .* EXPTIME is missing"),
    ],
)
def test_a_zero_point_that_cannot_be_used_says_why(cards: dict[str, Any], why: str) -> None:
    answer = said(header(**cards))
    assert answer.found is None
    assert re.search(why, answer.problem), answer.problem


def test_a_comment_tells_vega_and_seconds() -> None:
    vega = Header([("MAGZERO", 25.0, "Vega magnitude of 1 ADU")])
    assert "its comment says Vega" in said(vega).problem
    rate = [("MAGZERO", 25.0, "[mag] zero point for 1 s"), ("BUNIT", "adu")]
    assert said(Header([*rate, ("EXPTIME", 100.0)])).found == Found(30.0, "MAGZERO, EXPTIME")
    assert "EXPTIME is missing" in said(Header(rate)).problem


@given(
    said_of=st.sampled_from(
        [
            "mag of 1 count/s",
            "[mag] (e-/s)",
            "for one second",
            "per sec",
            "ADU s-1",
            "normalised to 1 sec",
            "mag, for count rates",
            "MAG = -2.5*log(data/EXPTIME) + ZP",
            "exposure-normalised",
            "for EXPTIME = 1",
        ]
    ),
    unit=st.sampled_from(["adu", "ELECTRONS", "counts/s", "nJy", "", "furlong"]),
)
def test_a_zero_point_per_second_goes_with_the_pixels_unit(said_of: str, unit: str) -> None:
    answer = said(Header([("MAGZERO", 25.0, said_of), ("BUNIT", unit), ("EXPTIME", 100.0)]))
    counts = unit in {"adu", "ELECTRONS"}
    if unit == "furlong":
        assert "MAGZERO is of counts per second, and BUNIT is 'furlong'" in answer.problem
    else:
        assert answer.found is not None
        assert answer.found.value == (30.0 if counts else 25.0)
        assert ("BUNIT is missing: taken as counts per second" in " ".join(answer.notes)) == (
            not unit
        )


def test_magnitudes_per_second_are_magnitudes() -> None:
    cards = [
        ("MAGZERO", 30.0, "Mag Zero-point in magnitudes/s"),
        ("BUNIT", "ADU"),
        ("EXPTIME", 90.0),
    ]
    assert said(Header(cards)).found == Found(30.0, "MAGZERO")  # as DES writes


@pytest.mark.parametrize(
    ("cards", "note"),
    [
        ({"MAGZERO": 25.0, "BUNIT": "nJy"}, "25.000 of MAGZERO counts; BUNIT says 31.400"),
        ({"BUNIT": "nJy", **HST}, "31.400 of BUNIT counts; PHOTFLAM says 25.946"),
        (HST, "BUNIT is missing: taken as counts per second, as PHOTFLAM is meant"),
        ({"MAGZERO": 27.0, "MAGZP": 25.0}, "27.000 of MAGZERO counts; MAGZP says 25.000"),
        (
            {"MAGZERO": 25.0, "BUNIT": "ADU", "EXPTIME": 30.0},
            r"MAGZERO is .* one of ADU, not of one a second \(EXPTIME is 30\)",
        ),
        ({"BUNIT": "MJy/sr", "PIXAR_SR": 4e-13}, "PIXAR_SR is 4e-13, .* the WCS counts"),
    ],
)
def test_contradictions_are_said(cards: dict[str, Any], note: str) -> None:
    answer = said(header(**cards))
    assert answer.found is not None
    assert re.search(note, " ".join(answer.notes)), answer.notes


CASU = {"MAGZPT": 23.0, "MAGZRR": 0.02, "EXPTIME": 10.0}


@given(
    card=st.sampled_from(
        ["PHOTSYS", "MAGSYS", "ZPSYS", "ZP_SYS", "PHOTSYST", "MAGTYPE", "MAG_SYS"]
    ),
    system=st.sampled_from(["Vega", "VEGAMAG", "vega mag", "ST", "STmag"]),
    key=st.sampled_from(["MAGZERO", "ZEROPNT", "MAGZPT", "PHOTZP", "MAGZP"]),
)
def test_whatever_a_system_is_called_in_it_is_obeyed(card: str, system: str, key: str) -> None:
    assert f"({card} is {system})" in said(header(**{key: 25.0, card: system})).problem
    assert said(header(**{key: 25.0, card: "AB"})).found == Found(25.0, key)
    kind = said(header(MAGZERO=25.0, MAGTYPE="MAG_AUTO")).found
    assert kind == Found(25.0, "MAGZERO")


@pytest.mark.parametrize("unit", [{}, {"BUNIT": "ADU"}])
def test_casu_writes_vega_magnitudes_of_counts_per_second(unit: dict[str, str]) -> None:
    assert "CASU" in said(header(**CASU, **unit)).problem
    answer = said(header(**CASU, **unit, MAGSYS="AB"))
    assert answer.found == Found(25.5, "MAGZPT, EXPTIME")


def test_cards_that_agree_say_nothing() -> None:
    assert said(header(MAGZERO=31.4, BUNIT="nJy", FLUXMAG0=10**12.56)).notes == ()
    assert said(header(BUNIT="MJy/sr", PIXAR_SR=AREA_SR * 1.005)).notes == ()


def test_a_value_that_is_none_gives_way_to_the_next_rule() -> None:
    found = said(header(MAGZERO=1e308, PHOTZP=99.0, MAGZP=25.5)).found
    assert found == Found(25.5, "MAGZP")


def test_the_images_own_header_comes_first() -> None:
    own, primary = header(MAGZERO=24.0), header(MAGZERO=25.0, FLUXMAG0=10**9.6)
    assert said(own, primary) == ZeroPoint(Found(24.0, "MAGZERO"))
