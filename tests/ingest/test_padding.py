"""Zeros that mean "not observed"."""

from __future__ import annotations

import numpy as np
import pytest

from deblend_batch.ingest.planes.padding import rim_blocks, zero_blocks, zero_is_missing
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
