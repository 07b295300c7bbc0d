"""The noise of sums over pixels, of images whose correlation is known."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.ndimage import convolve, gaussian_filter

from deblend_batch.ingest.planes.noise_correlation import BlockSums
from tests.ingest.fits_files import add_gaussians, grid_positions

SHAPE = (1024, 1024)
KERNELS = {
    "independent": np.ones((1, 1)),
    "bilinear": np.outer([0.25, 0.5, 0.25], [0.25, 0.5, 0.25]),
    "drizzled": np.outer([0.3, 0.7], [0.3, 0.7]),
    "wide": gaussian_filter(np.pad([[1.0]], 8), 1.2),
}


def correlated(kernel: np.ndarray, seed: int = 0) -> np.ndarray:
    noise = np.random.default_rng(seed).standard_normal(SHAPE)
    return np.asarray(convolve(noise, kernel, mode="wrap"))


def ratio_of(pixels: np.ndarray, variance: np.ndarray | None = None) -> float | None:
    sums = BlockSums()
    sums.add(pixels, variance)
    return sums.ratio()


@pytest.mark.parametrize("name", KERNELS)
@pytest.mark.parametrize("with_variance", [False, True])
def test_the_ratio_is_that_of_many_pixels(name: str, with_variance: bool) -> None:
    kernel = KERNELS[name] / KERNELS[name].sum()
    truth = 1 / np.sqrt((kernel**2).sum())
    variance = np.full(SHAPE, (kernel**2).sum()) if with_variance else None
    assert ratio_of(correlated(kernel), variance) == pytest.approx(truth, rel=0.06)


def test_a_variance_that_allows_for_it_leaves_one() -> None:
    kernel = KERNELS["bilinear"]
    assert ratio_of(correlated(kernel), np.ones(SHAPE)) == pytest.approx(1, rel=0.05)


def test_sources_gradients_and_bad_pixels_do_not_count() -> None:
    kernel = KERNELS["bilinear"]
    image = correlated(kernel)
    rng = np.random.default_rng(4)
    yx = grid_positions(SHAPE, 130)
    image = add_gaussians(image, yx, rng.uniform(10, 3000, len(yx)), rng.uniform(3, 8, len(yx)))
    image += np.linspace(0, 0.2, SHAPE[1])
    image[200:260] = np.nan
    truth = 1 / np.sqrt((kernel**2).sum())
    assert ratio_of(image) == pytest.approx(truth, rel=0.12)


def test_windows_are_taken_together() -> None:
    kernel = KERNELS["drizzled"]
    whole, parts = BlockSums(), BlockSums()
    image = correlated(kernel)
    whole.add(image, None)
    for y in (0, 512):
        parts.add(image[y : y + 512], None)
    assert parts.ratio() == pytest.approx(whole.ratio() or 0, rel=0.03)


@pytest.mark.parametrize(
    "image",
    [
        np.full((300, 300), np.nan),
        np.zeros((300, 300)),
        np.random.default_rng(0).standard_normal((100, 100)),
        np.empty((0, 5)),
    ],
    ids=["nan", "no noise", "small", "empty"],
)
def test_too_little_sky_is_none(image: np.ndarray) -> None:
    assert ratio_of(image) is None


@pytest.mark.parametrize("variance", [np.nan, 0.0, -1.0, np.inf])
def test_a_variance_that_is_none_leaves_no_sky(variance: float) -> None:
    image = np.random.default_rng(0).standard_normal((300, 300))
    assert ratio_of(image, np.full(image.shape, variance)) is None
