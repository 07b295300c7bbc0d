"""Sky against pixels."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from astropy.coordinates import SkyCoord
from hypothesis import given
from hypothesis import strategies as st

from deblend_batch.errors import FieldError
from deblend_batch.field.wcs import SkyGrid
from tests.support import WCS_CARDS

SHAPE = (500, 600)
SIP = {
    "CTYPE1": "RA---TAN-SIP",
    "CTYPE2": "DEC--TAN-SIP",
    "A_ORDER": 2,
    "B_ORDER": 2,
    "A_2_0": 2e-5,
    "A_1_1": -1e-5,
    "B_0_2": 3e-5,
    "B_1_1": 1e-5,
}
TPV = {
    "CTYPE1": "RA---TPV",
    "CTYPE2": "DEC--TPV",
    "PV1_0": 0.0,
    "PV1_1": 1.0,
    "PV1_7": 30.0,
    "PV2_0": 0.0,
    "PV2_1": 1.0,
    "PV2_7": -20.0,
}
SWAPPED = {
    "CTYPE1": "DEC--TAN",
    "CTYPE2": "RA---TAN",
    "CRVAL1": 2.0,
    "CRVAL2": 150.0,
    "CD1_1": 0.0,
    "CD2_2": 0.0,
    "CD1_2": 0.1 / 3600,
    "CD2_1": -0.1 / 3600,
}
GALACTIC = {"CTYPE1": "GLON-TAN", "CTYPE2": "GLAT-TAN", "CRVAL1": 236.8, "CRVAL2": 42.1}


def grid(**cards: Any) -> SkyGrid:
    return SkyGrid.from_cards({**WCS_CARDS, **cards}, SHAPE, "field.zarr")


@pytest.mark.parametrize(
    "cards",
    [{}, {"RADESYS": "FK5", "EQUINOX": 2000.0}, SIP, TPV, SWAPPED, GALACTIC],
    ids=["tan", "fk5", "sip", "tpv", "swapped", "galactic"],
)
@given(yx=st.lists(st.tuples(st.floats(-50, 550), st.floats(-50, 650)), min_size=1, max_size=20))
def test_there_and_back(cards: dict[str, Any], yx: list[tuple[float, float]]) -> None:
    there = np.array(yx)
    sky = grid(**cards)
    back = sky.world_to_pixel(*sky.pixel_to_world(there).T)
    np.testing.assert_allclose(back, there, atol=1e-5)


def test_the_reference_pixel_is_one_based_in_fits() -> None:
    radec = grid().pixel_to_world(np.array([(249.5, 299.5)]))
    np.testing.assert_allclose(radec, [(150.0, 2.0)], atol=1e-12)


def test_a_larger_row_is_north_and_a_larger_column_is_west() -> None:
    radec = grid().pixel_to_world(np.array([(250.0, 300.0), (251.0, 300.0), (250.0, 301.0)]))
    assert radec[1, 1] > radec[0, 1]
    assert radec[2, 0] < radec[0, 0]


@pytest.mark.parametrize("frame", ["fk5", "galactic"])
def test_positions_are_icrs_whatever_the_frame(frame: str) -> None:
    cards = {"RADESYS": "FK5", "EQUINOX": 2000.0} if frame == "fk5" else GALACTIC
    native = SkyCoord(
        *{"fk5": (150.0, 2.0), "galactic": (236.8, 42.1)}[frame], unit="deg", frame=frame
    )
    radec = grid(**cards).pixel_to_world(np.array([(249.5, 299.5)]))
    expected = native.icrs
    np.testing.assert_allclose(radec, [(expected.ra.deg, expected.dec.deg)], atol=1e-9)


@pytest.mark.parametrize(
    ("ra", "dec"), [(np.nan, 2.0), (150.0, np.nan), (np.inf, 2.0), (150.0, 91.0)]
)
def test_what_is_no_position_is_nan(ra: float, dec: float) -> None:
    yx = grid().world_to_pixel(np.array([ra, 150.0]), np.array([dec, 2.0]))
    assert np.isnan(yx[0]).all()
    np.testing.assert_allclose(yx[1], (249.5, 299.5), atol=1e-7)


def test_the_far_side_of_the_sky_is_infinitely_far() -> None:
    yx = grid().world_to_pixel(np.array([330.0]), np.array([-2.0]))
    assert np.isposinf(yx).all()


def test_positions_round_zero_hours_stay_within_0_and_360() -> None:
    radec = grid(CRVAL1=0.0).pixel_to_world(np.array([(250.0, 0.0), (250.0, 599.0)]))
    assert (radec[:, 0] >= 0).all()
    assert (radec[:, 0] < 360).all()
    assert grid(CRVAL1=0.0).pixel_scale_arcsec() == pytest.approx(0.1, rel=1e-4)


@pytest.mark.parametrize("dec", [-89.9, -28.0, 0.0, 60.0])
def test_pixel_scale(dec: float) -> None:
    assert grid(CRVAL2=dec).pixel_scale_arcsec() == pytest.approx(0.1, rel=1e-4)


def test_far_positions_do_not_need_the_distortion_to_converge() -> None:
    yx = grid(**SIP).world_to_pixel(np.array([150.0, 190.0]), np.array([2.0, 40.0]))
    np.testing.assert_allclose(yx[0], (249.5, 299.5), atol=1e-5)
    assert np.abs(yx[1]).max() > 4096


@pytest.mark.parametrize(
    "cards",
    [{}, {"CTYPE1": "LINEAR", "CTYPE2": "LINEAR"}, {"CTYPE1": "RA---TAN"}, {"CTYPE1": "RA---XYZ"}],
    ids=["empty", "linear", "one axis", "unknown projection"],
)
def test_cards_without_a_celestial_wcs_are_refused(cards: dict[str, Any]) -> None:
    with pytest.raises(FieldError, match=r"field\.zarr: 'wcs' holds no usable celestial WCS"):
        SkyGrid.from_cards(cards, SHAPE, "field.zarr")
