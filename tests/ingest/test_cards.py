"""WCS cards of a field, from an image's header."""

from __future__ import annotations

import json
import warnings
from typing import Any

import numpy as np
import pytest
from astropy.io.fits import Header
from astropy.wcs import WCS, FITSFixedWarning

from deblend_batch.errors import FieldError
from deblend_batch.field.wcs import SkyGrid
from deblend_batch.ingest.cards import celestial_cards
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
    ],
    ids=["tan", "fk5", "sip", "tpv", "swapped", "galactic", "dates", "cube"],
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
