"""The smooth background."""

from __future__ import annotations

import galsim
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from deblend_batch.field.sky.background import BackgroundMesh
from tests.ingest.fits_files import add_gaussians, grid_positions, noise_image


def measured(image: NDArray[np.float32], most_px: int = 8192, cell_px: int = 256) -> BackgroundMesh:
    mesh = BackgroundMesh((image.shape[0], image.shape[1]), cell_px)
    for rows, columns in mesh.windows(most_px):
        mesh.add(rows, columns, image[rows, columns])
    return mesh


@given(
    height=st.integers(1, 1500), width=st.integers(1, 1500), most_px=st.sampled_from([1, 300, 9999])
)
def test_windows_cover_the_image_once(height: int, width: int, most_px: int) -> None:
    seen = np.zeros((height, width), np.uint8)
    for rows, columns in BackgroundMesh((height, width)).windows(most_px):
        seen[rows, columns] += 1
    assert (seen == 1).all()


@pytest.mark.parametrize("shape", [(200, 200), (300, 1100), (700, 900)])
def test_a_level_is_found_under_sources(shape: tuple[int, int]) -> None:
    image = add_gaussians(
        noise_image(shape, sigma=7.0, level=50.0), grid_positions(shape, 60), 3000.0, 5.0
    )
    mesh = measured(image)
    surface = mesh.surface().window(slice(0, shape[0]), slice(0, shape[1]))
    assert mesh.is_significant
    assert np.abs(surface - 50).max() < 0.9
    assert mesh.noise_sigma == pytest.approx(7.0, rel=0.05)


def test_a_gradient_is_followed() -> None:
    y, x = np.indices((1024, 1024), np.float32)
    gradient = 20 + 0.01 * y - 0.02 * x
    surface = measured(noise_image((1024, 1024)) + gradient).surface()
    window = surface.window(slice(128, 896), slice(128, 896))
    assert np.abs(window - gradient[128:896, 128:896]).max() < 0.35


@pytest.mark.parametrize(
    ("level", "significant"), [(0.0, False), (0.02, False), (0.1, True), (-1, True)]
)
def test_only_a_level_that_matters_is_significant(level: float, significant: bool) -> None:
    assert measured(noise_image((800, 800), level=level)).is_significant is significant


def test_one_giant_galaxy_is_not_sky() -> None:
    shape = (1280, 1280)
    image = add_gaussians(noise_image(shape), np.array([[640.0, 640.0]]), 3e5, 80.0)
    mesh = measured(image)
    assert not mesh.is_significant
    surface = mesh.surface().window(slice(0, 1280), slice(0, 1280))
    assert np.abs(surface).max() < 0.3


def test_bad_pixels_and_empty_cells_are_filled_from_their_neighbours() -> None:
    image = noise_image((1024, 1024), level=10.0)
    image[:300, :300] = np.nan
    image[500, ::3] = np.inf
    mesh = measured(image)
    assert np.isnan(mesh.level[0, 0])
    assert mesh.surface().window(slice(0, 10), slice(0, 10)) == pytest.approx(10.0, abs=0.2)


@pytest.mark.parametrize("value", [np.nan, 0.0])
def test_an_image_without_sky_has_no_background(value: float) -> None:
    mesh = measured(np.full((300, 300), value, np.float32))
    assert not mesh.is_significant
    assert np.isnan(mesh.noise_sigma)
    assert (mesh.surface().window(slice(0, 300), slice(0, 300)) == 0).all()


@settings(max_examples=10)
@given(st.integers(0, 700), st.integers(0, 700))
def test_what_is_subtracted_does_not_depend_on_the_window(y: int, x: int) -> None:
    surface = SURFACE
    whole = np.zeros((900, 900), np.float32)
    surface.subtract_from(whole, slice(0, 900), slice(0, 900))
    rows, columns = slice(y, y + 150), slice(x, x + 150)
    part = np.zeros((150, 150), np.float32)
    surface.subtract_from(part, rows, columns)
    np.testing.assert_array_equal(part, whole[rows, columns])


@pytest.mark.parametrize("shape", [(40, 1000), (300, 300), (600, 600)])
def test_noise_that_is_taken_for_sources_lowers_no_level(shape: tuple[int, int]) -> None:
    levels = [measured(noise_image(shape, seed=seed)).level.mean() for seed in range(4)]
    assert abs(np.mean(levels)) < 0.025


@pytest.mark.parametrize("fwhm", [3.0, 6.0])
def test_the_wings_of_sources_are_no_sky(fwhm: float) -> None:
    """Moffat profiles, of all brightnesses: clipping alone leaves a tenth of the noise."""
    rng = np.random.default_rng(6)
    drawn = galsim.ImageF(512, 512, xmin=0, ymin=0, scale=1.0)
    for x, y in rng.uniform(0, 512, (60, 2)):
        star = galsim.Moffat(beta=3.5, fwhm=fwhm, flux=float(40 * fwhm**2 * rng.pareto(1.0)))
        star.drawImage(image=drawn, center=galsim.PositionD(x, y), add_to_image=True)
    image = drawn.array + noise_image((512, 512))
    assert abs(np.median(measured(image).level)) < 0.05
    assert not measured(image).is_significant


def test_where_sources_leave_no_sky_the_level_is_that_of_clipping() -> None:
    rng = np.random.default_rng(6)
    image = add_gaussians(noise_image((256, 256)), rng.uniform(0, 256, (900, 2)), 300.0, 4.0)
    assert np.isfinite(measured(image).level).all()


def test_a_small_image_is_not_shifted_by_its_noise() -> None:
    assert not any(measured(noise_image((30, 30), seed=seed)).is_significant for seed in range(30))


SURFACE = measured(noise_image((900, 900), level=30.0)).surface()
