"""Numbers that mean "not observed": zeros, -999 and its like."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from deblend_batch.ingest.padding import (
    is_number,
    missing_numbers,
    rim_blocks,
    zero_blocks,
    zero_is_missing,
)
from tests.ingest.fits_files import add_gaussians, noise_image


def test_blocks_of_zeros_are_found_exactly() -> None:
    image = noise_image((60, 80))
    image[:, :13] = 0
    image[30:36, 40:50] = 0
    image[50, 60] = 0
    image[10:13, 30:70] = 0
    expected = np.zeros(image.shape, bool)
    expected[:, :13] = True
    expected[30:36, 40:50] = True
    np.testing.assert_array_equal(zero_blocks(image), expected)


@pytest.mark.parametrize("level", [0.0, 50.0, -20.0])
def test_a_rim_of_zeros_round_noise_is_missing(level: float) -> None:
    image = noise_image((600, 600), level=level)
    image[:40] = 0
    assert zero_is_missing([image[block] for block in rim_blocks((600, 600))])


@pytest.mark.parametrize(
    "image",
    [
        np.zeros((300, 300), np.float32),
        add_gaussians(np.zeros((300, 300), np.float32), np.array([[150.0, 150.0]]), 1e4, 6.0),
        noise_image((300, 300)),
        np.round(noise_image((300, 300))),
        np.full((300, 300), np.nan, np.float32),
    ],
    ids=["nothing", "noise-free", "no rim", "quantised", "nan"],
)
def test_other_zeros_are_values(image: np.ndarray) -> None:
    assert not zero_is_missing([image])


@pytest.mark.parametrize("shape", [(10, 10), (300, 4000), (5000, 5000)])
def test_the_sample_reaches_all_edges(shape: tuple[int, int]) -> None:
    seen = np.zeros(shape, bool)
    for block in rim_blocks(shape):
        assert seen[block].shape == tuple(part.stop - part.start for part in block)
        seen[block] = True
    assert seen[[0, 0, -1, -1], [0, -1, 0, -1]].all()
    assert len(rim_blocks(shape)) <= 9


NOISE = noise_image((120, 130))
STARS = add_gaussians(NOISE, np.array([[40.0, 40.0], [80.0, 90.0]]), 1e4, 4.0)


@settings(max_examples=30)
@given(
    number=st.sampled_from([-1.0, -99.0, -999.0, -9999.0, -32768.0, -3.4e38, 1e20, 1e30, 1.6e38])
    | st.floats(-1e6, -100.0).map(lambda each: float(np.float32(each))),
    scale=st.sampled_from([1e-9, 1.0, 30.0]),
    rows=st.integers(8, 100),
    scattered=st.booleans(),
)
def test_a_number_far_from_the_sky_or_in_blocks_is_no_data(
    number: float, scale: float, rows: int, scattered: bool
) -> None:
    image = STARS * np.float32(scale) + np.float32(100 * scale)
    image[:rows] = number
    far = not -2000 * scale < number < 1e9 * scale
    if scattered and far:
        image[110:, ::3] = number
    assert missing_numbers([image]) == (pytest.approx(number),)
    missing = is_number(image * np.float32(0.5), (number,), 0.5)
    np.testing.assert_array_equal(missing, image == np.float32(number))


@pytest.mark.parametrize(
    "image",
    [
        np.zeros((120, 130), np.float32),
        STARS,
        np.round(STARS),
        np.round(STARS * 0.3),
        np.clip(STARS + 100, 0, 140),
        np.where(STARS > 20, 65535, STARS),
        np.where(NOISE < -3, -1e4 - np.abs(NOISE), NOISE),
        np.full((120, 130), np.nan, np.float32),
    ],
    ids=["nothing", "stars", "quantised", "coarse", "saturated", "plateau", "damaged", "nan"],
)
def test_other_numbers_are_values(image: np.ndarray) -> None:
    assert missing_numbers([image]) == ()
