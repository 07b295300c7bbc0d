"""From raw numbers to pixels: BLANK in every integer form, asinh magnitudes, bits of masks."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from astropy.io import fits
from astropy.io.fits import Header
from hypothesis import given, settings
from hypothesis import strategies as st

from deblend_batch.errors import FieldError
from deblend_batch.ingest.files.encoding import Encoding
from deblend_batch.ingest.files.opening import open_files
from deblend_batch.ingest.reference import ImageRef

WINDOW = slice(0, 3), slice(0, 4)
FORMS = {  # BITPIX, BZERO of the signed, and of the unsigned integers of this size
    "u1": (8, 0),
    "i1": (8, -128),
    "i2": (16, 0),
    "u2": (16, 1 << 15),
    "i4": (32, 0),
    "u4": (32, 1 << 31),
    "i8": (64, 0),
    "u8": (64, 1 << 63),
}


def written(folder: str, raw: np.ndarray, cards: dict[str, Any], *, compressed: bool) -> ImageRef:
    """Write raw integers and the cards that say what they mean."""
    path = Path(folder, "a.fits")
    hdu: Any = fits.PrimaryHDU(raw)
    if compressed:
        hdu = fits.CompImageHDU(raw, compression_type="GZIP_1")
        fits.HDUList([fits.PrimaryHDU(), hdu]).writeto(path)
    else:
        hdu.writeto(path)
    content = path.read_bytes()
    where = content.index(b"ZIMAGE") if compressed else 0
    end = content.index(b"END" + b" " * 77, where)
    more = b"".join(fits.Card(key, value).image.encode() for key, value in cards.items())
    assert content[end : end + len(more) + 80].strip() == b"END"  # there is room in the block
    path.write_bytes(
        content[:end] + more + content[end : end + 80] + content[end + 80 + len(more) :]
    )
    return ImageRef(str(path), 1 if compressed else 0)


@pytest.mark.parametrize("compressed", [False, True], ids=["plain", "compressed"])
@pytest.mark.parametrize("form", [form for form in FORMS if form != "u8"])
@settings(max_examples=10, deadline=None)
@given(data=st.data())
def test_blank_is_no_value_in_every_integer_form(
    form: str, compressed: bool, data: st.DataObject
) -> None:
    bitpix, zero = FORMS[form]
    if compressed and bitpix == 64:
        return  # the standard compresses no such integers
    low, high = (0, 255) if bitpix == 8 else (-(1 << (bitpix - 1)), (1 << (bitpix - 1)) - 1)
    values = data.draw(st.lists(st.integers(low, high), min_size=12, max_size=12))
    blank = data.draw(st.sampled_from(values) | st.sampled_from([low, high, 0]))
    raw = np.array(values, "u1" if bitpix == 8 else f"i{bitpix // 8}").reshape(3, 4)
    cards = {"BZERO": zero, "BSCALE": 1, "BLANK": blank}
    with tempfile.TemporaryDirectory() as folder, open_files() as files:
        plane = files.plane(written(folder, raw, cards, compressed=compressed))
        found, (bits, unknown) = plane.read(*WINDOW), plane.read_bits(*WINDOW)
    expected = np.where(raw == blank, np.nan, raw.astype(np.float64) + zero)
    np.testing.assert_array_equal(found, expected.astype(np.float32))
    np.testing.assert_array_equal(unknown, raw == blank)
    unsigned = np.where(raw == blank, 0, raw.astype(object) + max(zero, 0)) % (1 << bitpix)
    if zero >= 0:
        np.testing.assert_array_equal(bits, unsigned.astype(np.uint64))


@pytest.mark.parametrize(("blank", "raw"), [(65535, 32767), (32768, 0), (70000, None), (0.5, None)])
def test_blank_as_the_value_that_it_stands_for(blank: Any, raw: int | None) -> None:
    header = Header([("BITPIX", 16), ("BZERO", 32768), ("BLANK", blank)])
    assert Encoding.of(header, header, "a").blank == raw


@given(
    soften=st.floats(1e-3, 1e6), offset=st.floats(-100, 100), flux=st.lists(st.floats(-1e5, 1e5))
)
def test_asinh_magnitudes_are_made_linear(soften: float, offset: float, flux: list[float]) -> None:
    values = np.array(flux)
    stored = 2.5 / np.log(10) * np.arcsinh((values - offset) / (2 * soften))
    found = Encoding(asinh=(soften, offset)).values(stored)
    np.testing.assert_allclose(found, values, rtol=1e-9, atol=1e-9 * (soften + abs(offset)))


@pytest.mark.parametrize("cards", [{"BSOFTEN": 0.0}, {"BSOFTEN": "n/a", "BOFFSET": 0.0}])
def test_asinh_magnitudes_of_no_scale_are_refused(cards: dict[str, Any]) -> None:
    with pytest.raises(FieldError, match=r"^a: BSOFTEN says .* mend them, or make a linear image"):
        Encoding.of(Header(cards), Header(cards), "a")


@pytest.mark.parametrize("cards", [{"BSCALE": "n/a"}, {"BZERO": "x"}, {"BSCALE": 0.0}])
def test_a_scale_that_is_none_is_refused(cards: dict[str, Any]) -> None:
    with pytest.raises(FieldError, match=r"^a: B(SCALE|ZERO) is .*; mend it"):
        Encoding.of(Header(cards), Header(cards), "a")


def test_a_mask_of_floats_has_bits_where_they_are_whole(tmp_path: Path) -> None:
    values = np.array([[0, 1, 6, np.nan], [0.5, -1, 2**40, np.inf], [0, 0, 0, 0]], np.float32)
    fits.PrimaryHDU(values).writeto(tmp_path / "a.fits")
    with open_files() as files:
        bits, unknown = files.plane(ImageRef(f"{tmp_path}/a.fits")).read_bits(*WINDOW)
    assert bits.tolist() == [[0, 1, 6, 0], [0, 0, 2**40, 0], [0, 0, 0, 0]]
    assert unknown.tolist() == [[False] * 3 + [True], [True, True, False, True], [False] * 4]
