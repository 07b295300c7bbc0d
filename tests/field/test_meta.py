"""Attributes of a field."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from deblend_batch.errors import FieldError
from deblend_batch.field.mask_bits import MaskBits
from deblend_batch.field.meta import FieldMeta
from tests.support import WCS_CARDS

NESTED: list[Any] = []
for _ in range(100_000):
    NESTED = [NESTED]
META = FieldMeta("cosmos", ("g", "r"), (25.0, 26.0), (0.8, 0.7), WCS_CARDS, (1.0, 2.0))


def test_attributes_are_the_contract() -> None:
    assert META.to_attributes() == {
        "deblend_batch_field": 1,
        "name": "cosmos",
        "bands": ["g", "r"],
        "zero_point": [25.0, 26.0],
        "psf_fwhm": [0.8, 0.7],
        "wcs": WCS_CARDS,
        "noise_sigma": [1.0, 2.0],
    }


@given(
    zero_point=st.tuples(st.floats(-50, 50), st.floats(-50, 50)),
    noise=st.none() | st.tuples(st.floats(1e-15, 1e6), st.floats(1e-15, 1e6)),
    saturate=st.none() | st.tuples(*[st.none() | st.floats(1e-3, 1e9)] * 2),
    correlation=st.none() | st.tuples(st.floats(0.1, 20), st.floats(0.1, 20)),
    bits=st.none() | st.just(MaskBits({"BAD": 0, "SAT": 1}, ("BAD",))),
)
def test_attributes_come_back(
    zero_point: tuple[float, float],
    noise: tuple[float, float] | None,
    saturate: tuple[float | None, ...] | None,
    correlation: tuple[float, float] | None,
    bits: MaskBits | None,
) -> None:
    meta = FieldMeta(
        "a", ("g", "r"), zero_point, (0.8, 0.7), WCS_CARDS, noise, saturate, correlation, bits
    )
    assert FieldMeta.from_attributes(meta.to_attributes(), "url") == meta


@pytest.mark.parametrize(
    "key", ["deblend_batch_field", "name", "bands", "zero_point", "psf_fwhm", "wcs"]
)
def test_a_missing_attribute_is_named(key: str) -> None:
    attributes = META.to_attributes()
    del attributes[key]
    with pytest.raises(FieldError, match=f"^s3://a.zarr: attribute '{key}' is missing; set it to"):
        FieldMeta.from_attributes(attributes, "s3://a.zarr")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"deblend_batch_field": 2}, "is 2; this release reads layout 1: update deblend-batch"),
        ({"deblend_batch_field": True}, "'deblend_batch_field' is True"),
        ({"name": ""}, "'name' is ''; it must be a non-empty string"),
        ({"bands": "gr"}, "'bands' is 'gr'; it must be a list of band names"),
        ({"bands": []}, r"'bands' is \[\]"),
        ({"bands": ["g", "g"]}, "give every band its own name"),
        ({"zero_point": [25.0]}, "'zero_point' has 1 values for 2 bands; give the AB magnitude"),
        ({"zero_point": 25.0}, "'zero_point' is 25.0; it must be a list"),
        ({"zero_point": [25.0, "x"]}, "'zero_point' holds 'x'; each must be a finite number"),
        ({"zero_point": [25.0, float("nan")]}, "'zero_point' holds nan"),
        ({"psf_fwhm": [0.8, 0.0]}, "'psf_fwhm' holds 0.0; each must be a positive number"),
        ({"psf_fwhm": [0.8, True]}, "'psf_fwhm' holds True"),
        ({"noise_sigma": [1.0, 2.0, 3.0]}, "'noise_sigma' has 3 values for 2 bands"),
        ({"wcs": ["CTYPE1"]}, "'wcs' must be a mapping of FITS header cards"),
        ({"wcs": {"CTYPE1": None}}, "'wcs' must be a mapping of FITS header cards"),
        (
            {"zero_point": [25.0, 1e308]},
            r"holds 1e\+308; each must be a finite number from -60 to 60",
        ),
        ({"zero_point": [10**4000, 25.0]}, "'zero_point' holds <13288 bits>; each must be"),
        (
            {"psf_fwhm": [1e300, 0.8]},
            r"holds 1e\+300; each must be a positive number from 1e-06 to",
        ),
        ({"noise_sigma": [5e-324, 1.0]}, "'noise_sigma' holds 5e-324"),
        ({"name": "x" * 3_000_000}, r"'name' is 'x+\.\.\.x+'; it must be a non-empty string of at"),
        (
            {"bands": ["x" * 3_000_000, "r"]},
            r"'bands' is .*; it must be a list of band names of at",
        ),
        ({"bands": [f"b{n}" for n in range(1_000_000)]}, "names 1000000 bands; give at most 1000"),
        ({"bands": ["g"] * 999}, r"'bands' is \['g', 'g', .*\]; give every band its own name"),
        ({"zero_point": {"g": "x" * 3_000_000}}, "'zero_point' is {'g': 'x.*; it must be a list"),
        ({"zero_point": [25.0] * 1_000_000}, "'zero_point' has 1000000 values for 2 bands"),
        ({"zero_point": [NESTED, 25.0]}, r"'zero_point' holds \[\[\[.*; each must be"),
        ({"deblend_batch_field": NESTED}, r"'deblend_batch_field' is \[\[\[.*; this release reads"),
        ({"deblend_batch_field": 10**4000}, "'deblend_batch_field' is <13288 bits>; this"),
        ({"saturate": [1.0]}, "'saturate' has 1 values for 2 bands; give the pixel value from"),
        ({"saturate": 5e4}, "'saturate' is 50000.0; it must be a list"),
        ({"saturate": [0.0, None]}, "'saturate' holds 0.0; each must be a positive number"),
        ({"saturate": [None, float("inf")]}, "'saturate' holds inf"),
        ({"saturate": ["x" * 3_000_000, None]}, r"'saturate' holds 'x+\.\.\.x+'"),
        ({"noise_correlation": [1.0, None]}, "'noise_correlation' holds None; each must be a pos"),
        ({"noise_correlation": [1.0]}, "'noise_correlation' has 1 values for 2 bands"),
        ({"noise_correlation": [1e9, 1.0]}, r"'noise_correlation' holds 1000000000.0; .* to 1000:"),
        ({"mask_bits": {"SAT": 99}}, "'mask_bits' holds 'SAT': 99"),
        ({"deblend_batch_unfinished": True}, "never finished; ingest or simulate it again"),
    ],
)
def test_a_wrong_attribute_says_how_to_mend_it(change: dict[str, Any], message: str) -> None:
    with pytest.raises(FieldError, match=f"^a.zarr: .*{message}") as caught:
        FieldMeta.from_attributes({**META.to_attributes(), **change}, "a.zarr")
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 300
