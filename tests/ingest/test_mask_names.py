"""Bits of masks: who names them, and which make a pixel bad."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from astropy.io import fits
from astropy.io.fits import Header
from hypothesis import given
from hypothesis import strategies as st

from deblend_batch.errors import ConfigError, FieldError
from deblend_batch.field.layout import Field
from deblend_batch.field.mask_bits import bad_pixels, marks_sources
from deblend_batch.ingest.header.mask_names import BitChoice, choose_bits, named_bits
from deblend_batch.ingest.ingest import ingest
from tests.ingest.fits_files import add_gaussians, grid_positions, noise_image, write_extensions

AFW = {"BAD": 0, "SAT": 1, "INTRP": 2, "CR": 3, "EDGE": 4, "DETECTED": 5, "NO_DATA": 8}
RUBIN = ("NO_DATA", "INTERPOLATED", "COSMIC_RAY", "SATURATED", "DETECTION_EDGE", "DETECTED")


def afw_header() -> Header:
    return Header([(f"HIERARCH MP_{name}", bit) for name, bit in AFW.items()])


def rubin_header() -> Header:
    cards: list[Any] = []
    for bit, name in enumerate(RUBIN):
        cards += [(f"MSKN{bit:04d}", name), (f"MSKM{bit:04d}", 1 << bit)]
    return Header(cards)


def ztf_header() -> Header:
    comments = {
        0: "AIRCRAFT/SATELLITE TRACK", 1: "CONTAINS SEXTRACTOR DETECTION", 10: "NAN (not a number)",
        8: "SATURATED", 13: "RESERVED FOR FUTURE USE",
    }  # fmt: skip
    cards = [(f"BIT{bit:02d}", bit, said) for bit, said in comments.items()]
    return Header([*cards, ("BIT03", 8, "another thing")])


ZTF = {"AIRCRAFT_SATELLITE_TRACK": 0, "CONTAINS_SEXTRACTOR_DETECTION": 1, "NAN": 10, "SATURATED": 8}


def ipp_header() -> Header:
    names = {"DETECTOR": 1, "SAT": 32, "MARK": 48}  # the last is two bits, and none of its own
    cards: list[Any] = []
    for number, (name, value) in enumerate(names.items()):
        cards += [(f"MSKNAM{number:02d}", name), (f"MSKVAL{number:02d}", value)]
    return Header(cards)


def test_headers_name_bits() -> None:
    assert named_bits([ztf_header()], "a.fits") == ZTF
    assert named_bits([ipp_header()], "a.fits") == {"DETECTOR": 0, "SAT": 5}
    assert named_bits([afw_header()], "a.fits") == AFW
    assert named_bits([rubin_header()], "a.fits") == {name: n for n, name in enumerate(RUBIN)}
    assert named_bits([Header()], "x/legacysurvey-0001m002-maskbits.fits.fz")["NPRIMARY"] == 0
    assert named_bits([Header()], "maskbits/a.fits") == {}
    wrong = [("HIERARCH MP_A", 64), ("HIERARCH MP_B", "x"), ("MSKN0000", "C"), ("MSKM0000", 3)]
    assert named_bits([Header(wrong)], "a.fits") == {}


@pytest.mark.parametrize(
    ("named", "band", "bad"),
    [
        (AFW, "i", ("BAD", "SAT", "CR", "EDGE", "NO_DATA")),
        ({name: n for n, name in enumerate(RUBIN)}, "i", ("NO_DATA", "SATURATED")),
        (
            dict.fromkeys(BitChoice.of_words(["legacy-dr10"]).names or {}, 0),
            "r",
            ("SATUR_R", "ALLMASK_R"),
        ),
        ({"DETECTED": 3, "SOMETHING": 4}, "r", ("SOMETHING",)),
        (ZTF, "r", ("AIRCRAFT_SATELLITE_TRACK", "NAN", "SATURATED")),
    ],
)
def test_what_is_bad_unless_the_user_says_so(
    named: dict[str, int], band: str, bad: tuple[str, ...]
) -> None:
    bits = choose_bits(named, BitChoice(), band, "a")
    assert bits is not None
    assert bits.bad == bad


def test_the_user_chooses_by_name_number_and_table() -> None:
    chosen = choose_bits(AFW, BitChoice.of_words(["cr,8", "20"]), "i", "a")
    assert chosen is not None
    assert chosen.bad == ("CR", "NO_DATA", "BIT20")
    assert chosen.bits["BIT20"] == 20
    table = choose_bits({}, BitChoice.of_words(["des-y6"]), "i", "a")
    assert table is not None
    assert (table.bits["CRAY"], "CRAY" in table.bad, "SUSPECT" in table.bad) == (4, True, False)
    assert choose_bits({}, BitChoice(), "i", "a") is None


@pytest.mark.parametrize(
    ("chosen", "message"),
    [
        (["SATT"], r"--mask-bits: a has no bit 'SATT'; did you mean SAT\? it has BAD, SAT"),
        (["64"], "64 is no bit"),
        (["DETECTED"], "DETECTED marks the sources themselves; leave it out"),
        (["5"], "DETECTED marks the sources"),
    ],
)
def test_a_choice_that_is_none_says_what_there_is(chosen: list[str], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        choose_bits(AFW, BitChoice.of_words(chosen), "i", "a")


@given(
    names=st.dictionaries(
        st.sampled_from([*AFW, "SEG", "DETECTED_NEGATIVE", "SOURCE", "OTHER"]),
        st.integers(0, 63),
        min_size=1,
    )
)
def test_sources_are_never_bad(names: dict[str, int]) -> None:
    bits = choose_bits(names, BitChoice(), "i", "a")
    assert bits is not None
    assert not any(marks_sources(name) for name in bits.bad)
    only = 1 << bits.bits[min(names)]
    mask = np.array([only], np.uint64)
    others = {bits.bits[name] for name in bits.bad}
    assert bool(bad_pixels(mask, bits)[0]) is (bits.bits[min(names)] in others)


SHAPE = (300, 320)


def written(mask: np.ndarray, cards: Any, path: Path) -> str:
    """Write an image, and a mask whose bit 5 is set on every source."""
    yx = grid_positions(SHAPE, 40)
    for y, x in np.round(yx).astype(int):
        mask[y - 3 : y + 4, x - 3 : x + 4] |= 1 << 5
    image = add_gaussians(noise_image(SHAPE), yx, 2000.0, 4.0)
    header = {"magzero": 25.0, "filter": "i", "psf_fwhm": 0.4}
    url = write_extensions(path, SCI=(image, header), MASK=(mask, {}))
    with fits.open(url, mode="update") as file:
        file["MASK"].header.extend(cards)
    return url


def test_a_field_keeps_the_bits_and_their_names(tmp_path: Path) -> None:
    mask = np.zeros(SHAPE, np.int32)
    mask[:7] |= 1 << 8
    mask[9, 9] |= np.int32(-(1 << 31))  # a bit without a name
    url = written(mask, afw_header().cards, tmp_path / "a.fits")
    summary = ingest([url], f"{tmp_path}/a.zarr", mask_hdu=["MASK"])
    field = Field.open(f"{tmp_path}/a.zarr")
    stored = field.plane(0, slice(0, len(mask)), slice(0, mask.shape[1]), "mask")
    bits = field.meta.mask_bits
    assert bits is not None
    assert {name: bits.bits[name] for name in AFW} == AFW
    assert bits.bad == ("BAD", "SAT", "CR", "EDGE", "NO_DATA", "UNOBSERVED")
    np.testing.assert_array_equal(stored, mask & sum(1 << bit for bit in AFW.values()))
    assert summary.bad_fraction == pytest.approx(7 / len(mask))
    assert "bad bits BAD SAT" in summary.bands[0].describe()
    ingest([url], f"{tmp_path}/b.zarr", mask_hdu=["MASK"], mask_bits=["CR, 4"])
    chosen = Field.open(f"{tmp_path}/b.zarr").meta.mask_bits
    assert chosen is not None
    assert chosen.bad == ("CR", "EDGE", "UNOBSERVED")


def test_a_mask_that_leaves_no_source_stops(tmp_path: Path) -> None:
    url = written(np.zeros(SHAPE, np.int32), [], tmp_path / "a.fits")
    message = (
        r"100\.0% of \d+ peaks on bad pixels, .* choose --mask-bits .* names no bits.* --meant mask"
    )
    with pytest.raises(FieldError, match=message):
        ingest([url], f"{tmp_path}/a.zarr", mask_hdu=["MASK"])
    summary = ingest([url], f"{tmp_path}/a.zarr", mask_hdu=["MASK"], mask_bits=["3"])
    assert summary.bad_fraction == 0
