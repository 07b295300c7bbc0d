"""Bits of a mask: which pixels are bad, which are saturated."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from deblend_batch.errors import FieldError
from deblend_batch.field.mask_bits import MaskBits, bad_pixels, saturated_pixels

names = st.text(min_size=1, max_size=20)
tables = st.dictionaries(names, st.integers(0, 63), min_size=1, max_size=20)


@given(tables, st.data())
def test_attributes_come_back(bits: dict[str, int], data: st.DataObject) -> None:
    bad = tuple(data.draw(st.lists(st.sampled_from(sorted(bits)), unique=True)))
    found = MaskBits.from_attributes(MaskBits(bits, bad).to_attributes(), "url")
    assert found == MaskBits(bits, bad)


def test_without_a_word_of_which_are_bad_all_are_but_those_of_sources() -> None:
    found = MaskBits.from_attributes({"mask_bits": {"SAT": 1, "X": 2, "DETECTED": 5}}, "url")
    assert found is not None
    assert found.bad == ("SAT", "X")
    assert MaskBits.from_attributes({"name": "a"}, "url") is None


@pytest.mark.parametrize(
    ("attributes", "message"),
    [
        ({"mask_bits": ["SAT"]}, r"'mask_bits' is \['SAT'\]; it must map the names of 1 to 64 bits"),
        ({"mask_bits": {}}, "'mask_bits' is {}; it must map"),
        ({"mask_bad": ["SAT"]}, "'mask_bits' is None; it must map"),
        ({"mask_bits": {f"b{n}": 0 for n in range(100_000)}}, "it must map the names of 1 to 64"),
        ({"mask_bits": {"SAT": 64}}, "holds 'SAT': 64; each must be a name of at most 64 .* to 63$"),
        ({"mask_bits": {"SAT": -1}}, "holds 'SAT': -1"),
        ({"mask_bits": {"SAT": True}}, "holds 'SAT': True"),
        ({"mask_bits": {"SAT": 10**4000}}, "holds 'SAT': <13288 bits>"),
        ({"mask_bits": {"SAT": "1"}}, "holds 'SAT': '1'"),
        ({"mask_bits": {"": 1}}, "holds '': 1"),
        ({"mask_bits": {"x" * 1_000_000: 1}}, r"holds 'x+\.\.\.x+': 1; each must be a name of at most"),
        ({"mask_bits": {"SAT": 1}, "mask_bad": "SAT"}, "'mask_bad' is 'SAT'; it must be a list of"),
        ({"mask_bits": {"SAT": 1}, "mask_bad": ["CR"]}, r"'mask_bad' is \['CR'\]; it must be a list"),
        ({"mask_bits": {"SAT": 1}, "mask_bad": [["SAT"]]}, r"'mask_bad' is \[\['SAT'\]\]"),
    ],
)  # fmt: skip
def test_wrong_attributes_say_how_to_mend_them(attributes: dict[str, Any], message: str) -> None:
    with pytest.raises(FieldError, match=f"^a.zarr: attribute .*{message}") as caught:
        MaskBits.from_attributes(attributes, "a.zarr")
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 300


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "uint32", "uint64", "bool"])
@given(values=st.lists(st.integers(0, 2**64 - 1), max_size=30), bits=tables, data=st.data())
@settings(max_examples=40)
def test_a_pixel_is_bad_where_one_of_the_bad_bits_is_set(
    dtype: str, values: list[int], bits: dict[str, int], data: st.DataObject
) -> None:
    bad = tuple(data.draw(st.lists(st.sampled_from(sorted(bits)), unique=True)))
    width = 1 if dtype == "bool" else 8 * np.dtype(dtype).itemsize
    mask = np.array([value % 2**width for value in values], np.uint64).astype(dtype)
    expected = [any(int(value) >> bits[name] & 1 for name in bad) for value in mask]
    assert bad_pixels(mask, MaskBits(bits, bad)).tolist() == expected
    np.testing.assert_array_equal(bad_pixels(mask, None), mask != 0)


@pytest.mark.parametrize(
    ("name", "says_so"),
    [
        ("SAT", True), ("sat", True), ("SATUR", True), ("SATURATED", True), ("SATURATE", True),
        ("SATELLITE", False), ("UNSATURATED", False), ("BAD", False),
    ],
)  # fmt: skip
def test_a_bit_whose_name_says_so_marks_saturated_pixels(name: str, says_so: bool) -> None:
    bits = MaskBits({name: 1, "OTHER": 0}, ())
    mask = np.array([0, 1, 2, 3], np.uint8)
    found = saturated_pixels(np.zeros(4, np.float32), None, mask, bits)
    assert found.tolist() == [False, False, says_so, says_so]


def test_pixels_from_the_level_on_are_saturated_whatever_the_mask_says() -> None:
    image = np.array([0, 99.9, 100, 1e9, np.nan, np.inf], np.float32)
    expected = [False, False, True, True, False, True]
    assert saturated_pixels(image, 100.0).tolist() == expected
    mask = np.array([1, 0, 0, 0, 0, 0], np.uint8)
    assert saturated_pixels(image, 100.0, mask, None).tolist() == expected
    bits = MaskBits({"SAT": 0}, ())
    assert saturated_pixels(image, 100.0, mask, bits).tolist() == [True, *expected[1:]]
    assert not saturated_pixels(image, None).any()
