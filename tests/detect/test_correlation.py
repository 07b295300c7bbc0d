"""Noise that is not independent from pixel to pixel."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter

from deblend_batch.detect.correlation import filtered_noise, measure_correlation
from deblend_batch.detect.extract import ExtractParams, extract_sources
from deblend_batch.detect.filters import Place, gaussian_profile, psf_kernel
from deblend_batch.field.layout import Field, create_field, finish_field
from deblend_batch.tiling.tile import Box
from tests.ingest.fits_files import noise_image
from tests.support import make_meta

PROFILE = gaussian_profile(3.0)


def correlated(shape: tuple[int, int] = (700, 700), seed: int = 1) -> np.ndarray:
    smooth = gaussian_filter(noise_image(shape, seed=seed), 0.8)
    return np.asarray(smooth / smooth.std(), np.float32)


@pytest.mark.parametrize("sigma", [1.0, 50.0, 2.5e-12])
def test_independent_pixels_have_ratio_one(sigma: float) -> None:
    image = (noise_image((700, 700)) * np.float64(sigma)).astype(np.float32)
    ratio = filtered_noise(image, np.full(image.shape, sigma, np.float32), PROFILE)
    assert ratio == pytest.approx(1.0, abs=0.05)


def test_bad_pixels_do_not_change_the_ratio() -> None:
    image = noise_image((700, 700))
    image[::3, ::4] = np.nan
    assert filtered_noise(image, np.ones(image.shape), PROFILE) == pytest.approx(1.0, abs=0.05)


def test_resampled_noise_is_more_than_its_pixels_say() -> None:
    assert 1.5 < filtered_noise(correlated(), np.ones((700, 700)), PROFILE) < 2.5


@pytest.mark.parametrize("with_variance", [True, False])
def test_a_field_is_measured_from_its_blocks(with_variance: bool, tmp_path: Path) -> None:
    url = f"{tmp_path}/a.zarr"
    group = create_field(
        url, make_meta(noise_sigma=None), (700, 700), with_variance=with_variance, mask=True
    )
    image = correlated()
    image[:, :100] = 1e6
    group["image"][0] = image  # type: ignore[index]
    group["mask"][0, :, :100] = 1  # type: ignore[index]
    if with_variance:
        group["variance"][0] = np.full((700, 700), 4.0, np.float32)  # type: ignore[index]
    finish_field(group, make_meta(noise_sigma=None))
    ratio = measure_correlation(Field.open(url), 0, 3.0)
    expected = filtered_noise(correlated(), np.ones((700, 700)), PROFILE)
    assert ratio == pytest.approx(expected / (2 if with_variance else 1), rel=0.05)


def test_with_the_ratio_correlated_noise_holds_hardly_any_sources() -> None:
    image = correlated((1000, 1000), seed=3)
    ratio = filtered_noise(image, np.ones(image.shape), PROFILE)
    places = [Place(Box(0, 0, *image.shape), psf_kernel(3.0))]
    naive = extract_sources(image, 1.0, None, places, ExtractParams())
    calibrated = extract_sources(image, 1.0, None, places, ExtractParams(noise_correlation=ratio))
    assert len(naive) > 100
    assert len(calibrated) <= 5


def test_sources_that_fill_an_image_are_not_taken_for_noise(tmp_path: Path) -> None:
    """A faint and regular forest of stars would raise the threshold above them all."""
    image = noise_image((512, 512))
    psf = psf_kernel(3.0)
    half = len(psf) // 2
    for y in range(20, 490, 5):
        for x in range(20, 490, 5):
            image[y - half : y + half + 1, x - half : x + half + 1] += 400 * psf / psf.sum()
    url = f"{tmp_path}/a.zarr"
    group = create_field(url, make_meta(noise_sigma=(1.0,)), image.shape, with_variance=False)
    group["image"][0] = image  # type: ignore[index]
    finish_field(group, make_meta(noise_sigma=(1.0,)))
    assert filtered_noise(image, np.ones(image.shape), PROFILE) > 5
    assert measure_correlation(Field.open(url), 0, 3.0) == 3.0
