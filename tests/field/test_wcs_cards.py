"""Which cards of a WCS reach a library."""

from __future__ import annotations

import time
from typing import Any

import pytest

from deblend_batch.field.wcs.cards import celestial_cards, remarks
from tests.field.test_wcs import GALACTIC, SIP, TPV
from tests.support import WCS_CARDS


def picked(**cards: Any) -> dict[str, Any]:
    return celestial_cards({**WCS_CARDS, **cards})


@pytest.mark.parametrize("cards", [{}, SIP, TPV, {"LONPOLE": 170.0}])
def test_what_counts_is_passed_on_as_it_stands(cards: dict[str, Any]) -> None:
    assert picked(**cards) == {**WCS_CARDS, **cards}


@pytest.mark.parametrize(
    "cards",
    [
        {"OBJECT": "M31", "DATE-OBS": "2009-13-77", "MJD-OBS": 1e308, "OBSGEO-X": float("nan")},
        {f"CTYPE1{letter}": "RA---XYZ" for letter in "ABCDEFGHIJKLMNOPQRSTUVWXYZ"},
        {"CTYPE3": "WAVE-TAB", "CD3_3": 0.0, "PS3_0": "x", "PV3_1": 1e300, "CD1_3": 0, "NAXIS": 3},
        {"A_ORDER": None, "CUNIT1": "deg", "LONPOLE": "  "},
        {"EQUINOX": 1e300, "EPOCH": float("nan")},  # ICRS has none
        {"A_2_0": 1e-5, "B_9_9": 1.0},
        {"WAT1_001": "wtype=tan axtype=ra", "WAT2_001": 3},
        {"WCSAXES": 2.0},
    ],
)
def test_what_no_position_depends_on_is_left_out(cards: dict[str, Any]) -> None:
    assert picked(**cards) == WCS_CARDS


def test_old_names_and_frames_without_an_equinox() -> None:
    old = {**WCS_CARDS, "RADECSYS": "FK5 ", "EQUINOX": 2000.0, "EPOCH": 1e300}
    del old["RADESYS"]
    found = celestial_cards(old)
    assert (found["RADESYS"], found["EQUINOX"]) == ("FK5", 2000.0)
    assert not {"RADECSYS", "EPOCH"} & set(found)
    assert not {"RADESYS", "EQUINOX"} & set(picked(**GALACTIC, EQUINOX=2000.0))
    assert "EQUINOX" not in picked(RADESYS="FK5", EQUINOX="J2000")


@pytest.mark.parametrize(
    ("cards", "types", "has_sip"),
    [
        (SIP, "RA---TAN-SIP", True),
        ({**SIP, "CTYPE1": "RA---TAN", "CTYPE2": "DEC--TAN"}, "RA---TAN", False),
        ({**SIP, **TPV}, "RA---TPV", False),
        ({**TPV, **SIP}, "RA---TAN-SIP", True),
        ({**SIP, **TPV, "CTYPE1": "RA---TAN", "CTYPE2": "DEC--TAN"}, "RA---TPV", False),
    ],
    ids=["sip", "left-over sip", "tpv and sip", "named sip and scamp", "scamp and sip"],
)
def test_there_is_one_distortion(cards: dict[str, Any], types: str, *, has_sip: bool) -> None:
    found = picked(**cards)
    assert found["CTYPE1"] == types
    assert ("A_ORDER" in found) is ("A_2_0" in found) is has_sip


NUMBERS = [
    *("WCSAXES", "NAXIS", "A_ORDER", "BP_ORDER", "A_1_1", "CRVAL1", "CRPIX2", "CD1_2", "CDELT2"),
    *("PC2_1", "PC001002", "CROTA2", "LONPOLE", "LATPOLE", "PV1_0", "PV2_39", "PROJP1", "CD1_9"),
]
BAD_NUMBERS = (float("nan"), float("inf"), -1e308, 1e308, 10**4000, "150.0", True, 3 + 4j, [1.0])


@pytest.mark.parametrize("key", NUMBERS)
@pytest.mark.parametrize("value", BAD_NUMBERS, ids=lambda value: type(value).__name__)
def test_a_number_is_one_within_bounds(key: str, value: Any) -> None:
    with pytest.raises(ValueError, match=f"^'?{key}'? is ") as caught:
        picked(**{key: value})
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 200


@pytest.mark.parametrize(
    ("cards", "message"),
    [
        ({"WCSAXES": 2_000_000}, "WCSAXES is 2000000; it must be a whole number from 0 to 9"),
        ({"WCSAXES": 2.5}, "WCSAXES is 2.5; it must be a whole number"),
        ({"A_ORDER": 25_000}, "A_ORDER is 25000; it must be a whole number from 0 to 9"),
        ({"B_ORDER": -1}, "B_ORDER is -1"),
        ({"PV1_1000000000": 1.0}, "'PV1_1000000000' belongs to a distortion that is not read"),
        ({"PV2_" + "9" * 3_000_000: 1.0}, r"'PV2_999+\.\.\.9+' belongs to a distortion"),
        ({"CPDIS1": "LOOKUP"}, "'CPDIS1' belongs to a distortion that is not read .*resample"),
        ({"CQDIS2": "TPD"}, "'CQDIS2' belongs to a distortion"),
        ({"WAT1_001": "wtype=tnx axtype=ra"}, "'WAT1_001' belongs to a distortion"),
        (
            {"CTYPE1": "RA---TNX", "CTYPE2": "DEC--TNX"},
            "CTYPE1 is 'RA---TNX' and CTYPE2 'DEC--TNX'",
        ),
        ({"CTYPE1": "RA---TAB"}, "CTYPE1 is 'RA---TAB'"),
        ({"CTYPE1": "GLON-TAN"}, "CTYPE1 is 'GLON-TAN' and CTYPE2 'DEC--TAN'; they must be RA and"),
        ({"CTYPE1": "TLON-TAN", "CTYPE2": "TLAT-TAN"}, "CTYPE1 is 'TLON-TAN'"),
        ({"CTYPE2": None}, "CTYPE2 'missing'"),
        ({"CTYPE1": "x" * 10_000_000}, r"CTYPE1 is 'x+\.\.\.x+' and"),
        ({"CTYPE1": 10**4000}, "CTYPE1 is <13288 bits>"),
        ({"CUNIT1": "(" * 10_000_000}, r"CUNIT1 is '\(+\.\.\.\(+'; it must be a word"),
        ({"CUNIT2": 1.0}, "CUNIT2 is 1.0; it must be a word"),
        ({"RADESYS": "FK5\nX"}, r"RADESYS is 'FK5\\nX'; it must be a word"),
        (
            {"RADESYS": "FK4", "EQUINOX": 1e300},
            "EQUINOX is 1e[+]300; it must be a number from 1000",
        ),
        (
            {"AMDX14": 1.0},
            "'AMDX14' belongs to a distortion",
        ),  # with which wcslib writes outside its memory
        ({"CD1_3": 1e-5}, "'CD1_3' is 1e-05: the sky's axes must not depend on others"),
    ],
)
def test_what_nobody_can_read_is_refused_in_one_line(cards: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message) as caught:
        picked(**cards)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 300


def test_many_cards_take_no_time() -> None:
    cards: dict[str, Any] = {f"K{number}": "x" for number in range(200_000)}
    started = time.process_time()
    assert celestial_cards({**cards, **WCS_CARDS}) == WCS_CARDS
    assert time.process_time() - started < 2


def test_one_matrix_counts() -> None:
    """CD wins over what older programs left beside it, unless nobody knows which is meant."""
    pc = {"PC1_1": WCS_CARDS["CD1_1"], "PC2_2": WCS_CARDS["CD2_2"], "CDELT1": 1.0, "CDELT2": 1.0}
    assert picked(**pc) == WCS_CARDS
    assert picked(CDELT1=9.0, CDELT2=9.0, CROTA2=30.0) == WCS_CARDS
    with pytest.raises(ValueError, match=r"CD1_1 is .*, PC and CDELT say 1; remove one kind"):
        picked(PC1_1=1.0, PC2_2=1.0)


def without_cd(**cards: Any) -> dict[str, Any]:
    return {key: each for key, each in WCS_CARDS.items() if not key.startswith("CD")} | cards


@pytest.mark.parametrize("key", ["CRPIX1", "CRPIX2", "CRVAL1", "CRVAL2"])
def test_what_has_no_default_must_be_there(key: str) -> None:
    with pytest.raises(ValueError, match=f"{key} is missing"):
        celestial_cards({name: value for name, value in WCS_CARDS.items() if name != key})


def test_a_half_of_a_scale_or_a_rotation_is_none() -> None:
    with pytest.raises(ValueError, match="CDELT2 is missing"):
        celestial_cards(without_cd(CDELT1=1e-5))
    steps = {"CDELT1": -1e-5, "CDELT2": 1e-5}
    with pytest.raises(ValueError, match=r"CROTA1 is 30.0 and CROTA2 None; .* in CROTA2 alone"):
        celestial_cards(without_cd(**steps, CROTA1=30.0))
    kept = celestial_cards(without_cd(**steps, CROTA1=30.0, CROTA2=30.0))
    assert (kept["CROTA2"], "CROTA1" in kept) == (30.0, False)
    with pytest.raises(ValueError, match="CRVAL2 is 95; a latitude is -90 to 90"):
        picked(CRVAL2=95.0)


def test_a_polynomial_of_a_gnomonic_projection_is_tpv_with_its_defaults() -> None:
    found = picked(PV2_2=1e-3, PV1_0=1e-5)
    assert (found["CTYPE1"], found["PV1_1"], found["PV2_1"]) == ("RA---TPV", 1.0, 1.0)
    assert picked(PV1_3=180.0, PV1_4=2.0)["CTYPE1"] == "RA---TAN"
    with pytest.raises(ValueError, match=r"PV1_1 is 1\.0: a polynomial needs terms of both axes"):
        picked(PV1_1=1.0)


@pytest.mark.parametrize(
    ("cards", "note"),
    [
        ({"A_ORDER": 2, "B_ORDER": 2}, "A_ORDER and B_ORDER are left out, since CTYPE is RA---TAN"),
        ({"CROTA2": 30.0}, "the CD or PC matrix counts, CROTA2 is left out"),
        ({"EQUINOX": 1950.0}, "RADESYS is ICRS, EQUINOX 1950.0 is left out"),
        ({}, ""),
        (SIP, ""),
    ],
)
def test_what_is_decided_is_said(cards: dict[str, Any], note: str) -> None:
    assert note in "".join(remarks({**WCS_CARDS, **cards}))
    assert bool(note) is bool(remarks({**WCS_CARDS, **cards}))
