"""Background statistics."""

from __future__ import annotations

import numpy as np
import pytest

from deblend_batch.field.sky.noise import clipped_median_sigma, sample_blocks
from tests.ingest.fits_files import add_gaussians, grid_positions, noise_image


@pytest.mark.parametrize(("level", "sigma"), [(0.0, 1.0), (50.0, 7.4), (0.0, 2.5e-12)])
def test_sources_and_bad_pixels_do_not_matter(level: float, sigma: float) -> None:
    image = noise_image((512, 512), 1.0)
    image = add_gaussians(image, grid_positions(image.shape, 50), 500.0, 4.0)
    image[::17, ::13] = np.nan
    image[3, :] = np.inf
    scaled = (image.astype(np.float64) * sigma + level).astype(np.float32)
    median, measured = clipped_median_sigma(scaled)
    assert median == pytest.approx(level, abs=0.05 * sigma)
    assert measured == pytest.approx(sigma, rel=0.03)


@pytest.mark.parametrize("pixels", [np.array([]), np.full(9, np.nan), np.array([np.inf, -np.inf])])
def test_nothing_good_is_nan(pixels: np.ndarray) -> None:
    assert np.isnan(clipped_median_sigma(pixels)).all()


def test_a_constant_has_no_noise() -> None:
    assert clipped_median_sigma(np.full(100, 3.0)) == (3.0, 0.0)


@pytest.mark.parametrize(
    "shape", [(1, 1), (511, 513), (300, 4096), (4096, 300), (20000, 20000), (100, 100000)]
)
def test_blocks_are_few_distinct_and_inside(shape: tuple[int, int]) -> None:
    blocks = sample_blocks(shape)
    assert 1 <= len(blocks) <= 32
    assert len({(rows.start, columns.start) for rows, columns in blocks}) == len(blocks)
    assert all(rows.start < shape[0] and columns.start < shape[1] for rows, columns in blocks)


def test_blocks_do_not_share_one_column() -> None:
    starts = {columns.start for _, columns in sample_blocks((512 * 32, 512 * 32))}
    assert len(starts) >= 5
