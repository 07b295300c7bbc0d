"""Numbers that mean "not observed", other than zero."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from deblend_batch.ingest.planes.missing_numbers import MissingNumbers
from tests.ingest.fits_files import add_gaussians, noise_image

NOISE = noise_image((120, 130))
STARS = add_gaussians(NOISE, np.array([[40.0, 40.0], [80.0, 90.0]]), 1e4, 4.0)


@settings(max_examples=20, deadline=None)
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
    found = MissingNumbers.find([image])
    assert list(found.numbers) == pytest.approx([number])
    missing = found.where(image * np.float32(0.5), 0.5)
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
    assert MissingNumbers.find([image]).numbers == ()


@pytest.mark.parametrize("step", [0.05, 0.5])
def test_lossy_compression_moves_a_number_by_a_part_of_its_step(step: float) -> None:
    image = STARS.astype(np.float64)
    image[:30] = -999.0
    moved = image + np.random.default_rng(4).uniform(-step / 2, step / 2, image.shape)
    found = MissingNumbers.find([moved], step)
    assert str(found).startswith("-999")
    np.testing.assert_array_equal(found.where(moved * 2, 2.0), image == -999.0)
    assert MissingNumbers.find([moved[40:]], step).numbers == ()
