"""WCS cards of a field, from an image's header."""

from __future__ import annotations

import json
import time
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from astropy.io import fits
from astropy.io.fits import Header
from astropy.utils.data import get_pkg_data_path
from astropy.wcs import WCS, FITSFixedWarning
from hypothesis import given, settings

from deblend_batch.errors import FieldError
from deblend_batch.field.wcs.sky_grid import SkyGrid
from deblend_batch.ingest.header.cards import celestial_cards
from tests.field.hostile_cards import hostile_cards
from tests.field.test_wcs import SIP, SWAPPED, TPV
from tests.ingest.fits_files import celestial_header

SHAPE = (500, 600)


@pytest.mark.parametrize(
    "extra",
    [
        {},
        {"RADESYS": "FK5", "EQUINOX": 2000.0},
        SIP,
        TPV,
        SWAPPED,
        {"CTYPE1": "GLON-TAN", "CTYPE2": "GLAT-TAN"},
        {"MJD-OBS": 55139.2, "DATE-OBS": "2009-11-04", "OBJECT": "M31", "EXPTIME": 80.0},
        {"NAXIS": 3, "CTYPE3": "FREQ", "CRVAL3": 1e9, "CDELT3": 1e6, "CRPIX3": 1.0, "CUNIT3": "Hz"},
        {**TPV, "CTYPE1": "RA---TAN", "CTYPE2": "DEC--TAN"},
        {"CTYPE1": "RA---SIN", "CTYPE2": "DEC--SIN", "PROJP1": 0.1, "PROJP2": 0.2, "EPOCH": 2013.2},
    ],
    ids=["tan", "fk5", "sip", "tpv", "swapped", "galactic", "dates", "cube", "scamp", "old names"],
)
def test_cards_give_the_headers_positions(extra: dict[str, Any]) -> None:
    header = celestial_header()
    header.update(extra)
    cards = celestial_cards(header, SHAPE, "a.fits")
    json.dumps(cards)
    assert "OBJECT" not in cards
    yx = np.random.default_rng(1).uniform(0, 500, (50, 2))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FITSFixedWarning)
        expected = WCS(header).celestial.pixel_to_world(yx[:, 1], yx[:, 0]).icrs
    radec = SkyGrid.from_cards(cards, SHAPE, "").pixel_to_world(yx)
    offset = np.hypot(
        (radec[:, 0] - expected.ra.deg) * np.cos(np.radians(2)), radec[:, 1] - expected.dec.deg
    )
    assert offset.max() * 3600 / 0.1 < 1e-3


def test_old_slips_in_headers_are_repaired() -> None:
    header = celestial_header()
    del header["RADESYS"]
    header["RADECSYS"] = "ICRS"
    header["EPOCH"] = 2000.0
    assert celestial_cards(header, SHAPE, "a.fits")["RADESYS"] == "ICRS"


@pytest.mark.parametrize(
    "change",
    [
        {"CTYPE1": "LINEAR", "CTYPE2": "LINEAR"},
        {"CTYPE1": "RA---XYZ", "CTYPE2": "DEC--XYZ"},
        {"CD1_1": 0.0, "CD2_2": 0.0},
    ],
    ids=["linear", "unknown projection", "pixels of no size"],
)
def test_an_image_without_a_usable_wcs_is_refused_in_one_line(change: dict[str, Any]) -> None:
    header = celestial_header()
    header.update(change)
    with pytest.raises(FieldError, match=r"^a\.fits\[SCI\]: ") as caught:
        celestial_cards(header, SHAPE, "a.fits[SCI]")
    assert "\n" not in str(caught.value)


def test_an_empty_header_says_what_is_needed() -> None:
    with pytest.raises(FieldError, match=r"no celestial WCS .* solve its astrometry"):
        celestial_cards(Header(), SHAPE, "a.fits")


@pytest.mark.parametrize("name", ["sip.fits", "j94f05bgq_flt.fits"])
def test_headers_of_real_images_give_astropys_positions(name: str) -> None:
    path = Path(get_pkg_data_path("tests", "data", name, package="astropy.wcs"))
    if not path.exists():
        pytest.skip(f"this astropy comes without its test file {name}")
    with fits.open(path) as hdus:
        header = next(hdu.header for hdu in hdus if "CTYPE1" in hdu.header)
    cards = celestial_cards(header, (100, 100), name)
    yx = np.random.default_rng(1).uniform(0, 100, (50, 2))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        expected = WCS(header).celestial.pixel_to_world(yx[:, 1], yx[:, 0]).icrs
    radec = SkyGrid.from_cards(cards, (100, 100), "").pixel_to_world(yx)
    np.testing.assert_allclose(
        radec, np.stack([expected.ra.deg, expected.dec.deg], axis=1), atol=1e-10
    )


def test_images_of_surveys_are_read_as_astropy_reads_them(shared: Path) -> None:
    paths = sorted((shared / "data" / "fields").glob("*.fits"))
    if not paths:
        pytest.skip("the surveys' images (../shared/data/fields) are not beside this checkout")
    for path in paths:
        with fits.open(path) as hdus:
            image = next(hdu for hdu in hdus if hdu.is_image and "CTYPE1" in hdu.header)
            header, shape = image.header, image.shape[-2:]
        cards = celestial_cards(header, shape, path.name)
        yx = np.random.default_rng(1).uniform(0, shape, (50, 2))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FITSFixedWarning)
            expected = WCS(header).celestial.all_pix2world(yx[:, ::-1], 0)
        mine = WCS(Header(cards.items())).all_pix2world(yx[:, ::-1], 0)
        np.testing.assert_allclose(mine, expected, atol=1e-12)


@settings(max_examples=100, deadline=None)
@given(cards=hostile_cards())
def test_any_header_is_refused_in_one_line_or_gives_cards_in_time(cards: dict[str, Any]) -> None:
    header = Header()
    for key, value in cards.items():
        if isinstance(value, str | bool) or abs(value) < np.inf:  # a header has no others
            header[key] = value
    started = time.process_time()
    try:
        found = celestial_cards(header, SHAPE, "a.fits")
    except FieldError as error:
        assert "\n" not in str(error)  # noqa: PT017
        assert len(str(error)) < 600  # noqa: PT017
    else:
        json.dumps(found, allow_nan=False)
        SkyGrid.from_cards(found, SHAPE, "")
    assert time.process_time() - started < 5


@pytest.mark.parametrize("text", ["nan", "1.0 2.0", "'150.0", "(1.0, 2.0)", "1e400", "T"])
def test_a_damaged_card_is_named(text: str) -> None:
    raw = celestial_header().tostring(padding=False, endcard=False)
    header = Header.fromstring(raw + f"CRVAL1  = {text}".ljust(80))
    with pytest.raises(FieldError, match=r"no celestial WCS in its header \(CRVAL1 "):
        celestial_cards(header, SHAPE, "a.fits")


def test_many_cards_take_no_time() -> None:
    raw = celestial_header().tostring(padding=False, endcard=False)
    raw += "".join(f"K{number:07d}= {number:>20}".ljust(80) for number in range(20_000))
    header = Header.fromstring(raw + "CRVAL1A = 1E308".ljust(80))
    started = time.process_time()
    assert len(celestial_cards(header, SHAPE, "a.fits")) == len(celestial_header())
    assert time.process_time() - started < 2
