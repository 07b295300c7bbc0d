"""Sky against pixels."""

from __future__ import annotations

import time
from typing import Any

import numpy as np
import psutil
import pytest
from astropy.coordinates import SkyCoord
from hypothesis import given, settings
from hypothesis import strategies as st

from deblend_batch.errors import FieldError
from deblend_batch.field.wcs.sky_grid import SkyGrid
from tests.field.hostile_cards import hostile_cards
from tests.support import WCS_CARDS

SHAPE = (500, 600)
S = 0.1 / 3600
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
@settings(max_examples=20)
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


def test_a_part_of_a_matrix_is_no_matrix() -> None:
    cards = {key: value for key, value in WCS_CARDS.items() if not key.startswith("CD")}
    for part in ({"CD1_1": -S}, {"PC1_1": 1.0, "PC2_2": 1.0}, {"CD1_2": S, "CD2_2": S}):
        with pytest.raises(
            FieldError, match=r"its pixels are .* arcsec; mend CD|singular|inf px off"
        ):
            SkyGrid.from_cards({**cards, **part}, SHAPE, "field.zarr")


@given(turn=st.floats(0, 360), ratio=st.floats(0.2, 5), shear=st.floats(-0.5, 0.5))
def test_pixels_may_be_oblong_and_turned(turn: float, ratio: float, shear: float) -> None:
    a = np.radians(turn)
    matrix = S * np.array([[np.cos(a), -np.sin(a)], [np.sin(a), np.cos(a)]])
    matrix = matrix @ np.array([[ratio, shear], [0, 1]])
    cd = {f"CD{i + 1}_{j + 1}": float(matrix[i, j]) for i in (0, 1) for j in (0, 1)}
    assert grid(**cd).pixel_scale_arcsec() == pytest.approx(0.1 * ratio**0.5, rel=1e-4)


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


@pytest.mark.parametrize(
    ("cards", "reason"),
    [
        ({"WCSAXES": 2_000_000}, "WCSAXES is 2000000; it must be a whole number from 0 to 9"),
        (
            {**SIP, "A_ORDER": 25_000, "B_ORDER": 25_000},
            "A_ORDER is 25000; it must be a whole number",
        ),
        (
            {**TPV, "CRVAL1": 1e308, "CD1_1": 1e-308, "PV1_1": 1e300},
            "CRVAL1 is 1e[+]308; it must be",
        ),
        ({"CD1_1": 1e-308, "CD2_2": 1e-308}, "singular|its pixels are 0 arcsec"),
        (
            {"CD1_1": 1e-5, "CD1_2": 1e-5, "CD2_1": 1e-5, "CD2_2": 1e-5},
            "singular|its pixels are 0 arcsec",
        ),
        ({"CD1_1": 1e-9, "CD2_2": 1e-9}, "its pixels are 3.6e-06 arcsec; mend CD or CDELT"),
        ({"CD1_1": 1.0, "CD2_2": 1.0}, "its pixels are .* arcsec; mend CD or CDELT"),
        ({"CD1_1": 1e-5, "CD2_2": 1.0}, "its pixels are 0.036 by 3.6e.03 arcsec; mend CD"),
        (
            {"CD1_1": S, "CD1_2": -S, "CD2_1": -S, "CD2_2": S * (1 + 1e-6)},
            "its pixels are .* by 0.2 arcsec; mend CD",
        ),
        ({"CTYPE1": "RA---SIN", "CTYPE2": "DEC--SIN", "CRPIX1": 1e8}, "its pixels are nan arcsec"),
        ({"CUNIT1": "furlong"}, "CUNIT1"),
        ({"RADESYS": "GAPPT"}, "Could not determine celestial frame"),
        (
            {**SIP, "A_2_0": 1.0},
            "its positions come back .* px off; mend its distortion, or resample",
        ),
        ({**TPV, "PV1_7": 1e20}, "."),
        ({"CTYPE1": "RA---ZPN", "CTYPE2": "DEC--ZPN", "PV2_29": 1e20}, "."),
        ({"CRVAL2": 1e10}, "."),
    ],
)
def test_wild_cards_are_refused_at_once_in_one_line(cards: dict[str, Any], reason: str) -> None:
    started = time.process_time()
    with pytest.raises(FieldError, match=rf"^field\.zarr: 'wcs' holds no .*{reason}") as caught:
        grid(**cards)
    assert time.process_time() - started < 2
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 500


def test_what_is_computed_elsewhere_than_on_the_image_is_bounded_too() -> None:
    wild: dict[str, Any] = {
        **SIP,
        "A_ORDER": 9,
        "B_ORDER": 9,
        "A_9_0": 5.0,
        "A_0_9": -5.0,
        "B_9_0": 5.0,
        "B_0_9": -5.0,
    }
    cards: dict[str, Any] = {**WCS_CARDS, **wild, "CRPIX1": 1.0, "CRPIX2": 1.0}
    dot = SkyGrid.from_cards(cards, (1, 1), "")
    far = np.array([(4090.0, -4090.0), (1e5, 0.0), (1e300, -1e300), (0.0, 0.0)])
    there = SkyGrid.from_cards({**cards, "A_ORDER": 0, "B_ORDER": 0}, (1, 1), "").pixel_to_world(
        far
    )
    assert np.isfinite(there[:2]).all()
    assert dot.world_to_pixel(*there.T).shape == dot.pixel_to_world(far).shape == (4, 2)


@settings(max_examples=200, deadline=None)
@given(
    cards=hostile_cards(),
    shape_yx=st.sampled_from([(500, 600), (1, 1), (30, 40_000), (10_000_000, 2)]),
    yx=st.lists(st.tuples(st.floats(allow_nan=True), st.floats(-5000, 5000)), max_size=5),
)
def test_any_cards_are_refused_in_one_line_or_give_positions_in_time(
    cards: dict[str, Any], shape_yx: tuple[int, int], yx: list[tuple[float, float]]
) -> None:
    started = time.process_time()
    try:
        sky = SkyGrid.from_cards(cards, shape_yx, "field.zarr")
    except FieldError as error:
        assert "\n" not in str(error)  # noqa: PT017
        assert len(str(error)) < 500  # noqa: PT017
    else:
        centre = ((shape_yx[0] - 1) / 2, (shape_yx[1] - 1) / 2)
        some = np.array([*yx, centre, (-4000.0, 4000.0)])
        radec = sky.pixel_to_world(some)
        assert sky.world_to_pixel(*radec.T).shape == some.shape
        assert sky.world_to_pixel(*some.T).shape == some.shape
        assert 1e-4 < sky.pixel_scale_arcsec() < 600
        known = np.isfinite(radec[:, 0])
        assert (np.abs(radec[known, 1]) <= 90).all()
        assert known[-2]
    assert time.process_time() - started < 5


def test_a_distortion_that_takes_pixels_off_the_sky_is_refused() -> None:
    # On both axes of the image it is nothing at all, so these positions do come back.
    wild = {"CTYPE1": "RA---SIN-SIP", "CTYPE2": "DEC--SIN-SIP", "A_ORDER": 7, "B_ORDER": 7}
    with pytest.raises(FieldError, match="its positions come back inf px off"):
        grid(**wild, A_3_4=6e-6)


def test_reading_cards_again_and_again_keeps_no_memory() -> None:
    def read() -> None:
        grid(**SIP)
        grid(**TPV)
        with pytest.raises(FieldError):
            grid(**{**TPV, "PV2_7": 1e19})

    for _ in range(10):
        read()
    before = psutil.Process().memory_info().rss
    for _ in range(60):
        read()
    assert psutil.Process().memory_info().rss - before < 10_000_000


def gnomonic(cards: dict[str, Any], yx: np.ndarray) -> np.ndarray:
    """Sky positions by the formulae themselves: SIP (Shupe et al. 2005), TPV, and the gnomonic projection."""
    x, y = yx[:, 1] + 1 - cards["CRPIX1"], yx[:, 0] + 1 - cards["CRPIX2"]
    if "A_ORDER" in cards:
        x, y = (
            axis
            + sum(
                value * x ** int(key[2]) * y ** int(key[4])
                for key, value in cards.items()
                if key[:2] == f"{family}_" and key[2].isdigit()
            )
            for family, axis in (("A", x), ("B", y))
        )
    xi, eta = (cards[f"CD{axis}_1"] * x + cards[f"CD{axis}_2"] * y for axis in (1, 2))
    if cards["CTYPE1"].endswith("TPV"):
        term = {0: (0, 0, 0), 1: (1, 0, 0), 2: (0, 1, 0), 3: (0, 0, 1), 4: (2, 0, 0), 5: (1, 1, 0)}
        radius = np.hypot(xi, eta)
        xi, eta = (
            sum(
                cards.get(f"PV{axis}_{number}", float(number == 1)) * u**i * v**j * radius**k
                for number, (i, j, k) in term.items()
            )
            for axis, (u, v) in ((1, (xi, eta)), (2, (eta, xi)))
        )
    xi, eta, ra0, dec0 = (np.radians(each) for each in (xi, eta, cards["CRVAL1"], cards["CRVAL2"]))
    ra = ra0 + np.arctan2(xi, np.cos(dec0) - eta * np.sin(dec0))
    dec = np.arctan2(
        (np.sin(dec0) + eta * np.cos(dec0)) * np.cos(ra - ra0), np.cos(dec0) - eta * np.sin(dec0)
    )
    return np.asarray(np.degrees(np.stack([ra, dec], axis=1)))


small = st.floats(-1e-6, 1e-6)


@settings(max_examples=30, deadline=None)
@given(
    ra=st.floats(0, 359),
    dec=st.floats(-80, 80),
    turn=st.floats(0, 360),
    scale=st.floats(0.03, 0.5),
    kind=st.sampled_from(["TAN", "TAN-SIP", "SIP left over", "TPV", "SCAMP", "CROTA"]),
    terms=st.lists(small, min_size=4, max_size=4),
)
def test_positions_are_those_of_the_formulae(
    ra: float, dec: float, turn: float, scale: float, kind: str, terms: list[float]
) -> None:
    c, s = scale / 3600 * np.cos(np.radians(turn)), scale / 3600 * np.sin(np.radians(turn))
    cards: dict[str, Any] = {
        "CTYPE1": "RA---TAN",
        "CTYPE2": "DEC--TAN",
        "CRVAL1": ra,
        "CRVAL2": dec,
        "CRPIX1": 310.0,
        "CRPIX2": 240.0,
        "RADESYS": "ICRS",
        "CD1_1": -c,
        "CD1_2": s,
        "CD2_1": s,
        "CD2_2": c,
    }
    true, sip = dict(cards), {"A_ORDER": 2, "B_ORDER": 2}
    polynomial = dict(zip(("A_2_0", "A_1_1", "B_0_2", "B_1_1"), terms, strict=True))
    if kind == "TAN-SIP":
        cards |= {"CTYPE1": "RA---TAN-SIP", "CTYPE2": "DEC--TAN-SIP", **sip, **polynomial}
        true = cards
    elif kind == "SIP left over":
        cards |= sip | dict.fromkeys(polynomial, 1e-4)
    elif kind in {"TPV", "SCAMP"}:
        names = ("PV1_0", "PV1_2", "PV2_4", "PV2_5")
        cards |= dict(zip(names, terms, strict=True))
        true = cards | {"CTYPE1": "RA---TPV", "CTYPE2": "DEC--TPV"}
        cards = true if kind == "TPV" else cards
    elif kind == "CROTA":
        cards = {key: value for key, value in cards.items() if not key.startswith("CD")}
        cards |= {"CDELT1": -scale / 3600, "CDELT2": scale / 3600, "CROTA2": -turn}
    sky = SkyGrid.from_cards(cards, SHAPE, "a")
    yx = np.array([(0.0, 0.0), (0.0, 599.0), (499.0, 0.0), (499.0, 599.0), (239.0, 309.0)])
    off = sky.pixel_to_world(yx) - gnomonic(true, yx)
    off[:, 0] = (off[:, 0] + 180) % 360 - 180
    assert np.abs(off * [np.cos(np.radians(dec)), 1]).max() * 3600 < 1e-3 * scale


@given(dec=st.sampled_from([-90.0, 90.0]), offset=st.floats(-300, 300), turn=st.floats(0, 360))
@settings(max_examples=20, deadline=None)
def test_no_pole_spoils_the_scale_of_pixels(dec: float, offset: float, turn: float) -> None:
    cards = {"CRVAL1": turn, "CRVAL2": dec, "CRPIX1": 300.5 + offset, "CRPIX2": 250.5}
    assert grid(**cards).pixel_scale_arcsec() == pytest.approx(0.1, rel=1e-6)
