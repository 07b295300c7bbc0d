"""The PSF's width from stars."""

from __future__ import annotations

import numpy as np
import pytest

from deblend_batch.ingest.psf.moffat import fit_moffat
from deblend_batch.ingest.psf.stars import star_candidates, stellar_locus
from deblend_batch.ingest.psf.width import PsfWidth, fit_stars, measure_width
from tests.ingest.fits_files import add_gaussians, grid_positions, noise_image

SHAPE = (700, 700)


def moffat(fwhm_px: float, beta: float, size: int = 41) -> np.ndarray:
    alpha = fwhm_px / (2 * np.sqrt(2 ** (1 / beta) - 1))
    offset = np.arange(size) - size // 2
    return np.asarray(1000 * (1 + (offset[:, None] ** 2 + offset**2) / alpha**2) ** -beta)


def width_of(image: np.ndarray) -> PsfWidth | None:
    """Measure the width in an image that is read in two halves."""
    half = image.shape[1] // 2
    stars = star_candidates(image[:, :half])
    stars += star_candidates(image[:, half:], origin_yx=(0, half))
    return measure_width(fit_stars(stars, image.shape))


@pytest.mark.parametrize("fwhm_px", [1.6, 2.0, 3.5, 7.0])
@pytest.mark.parametrize("beta", [2.0, 3.5])
def test_a_moffat_star(fwhm_px: float, beta: float) -> None:
    fit = fit_moffat(moffat(fwhm_px, beta))
    assert fit is not None
    assert fit[0].fwhm_px == pytest.approx(fwhm_px, rel=0.01)
    assert fit[0].beta == pytest.approx(beta, rel=0.05)
    assert fit[1] == pytest.approx((20, 20), abs=0.01)


@pytest.mark.parametrize("fwhm_px", [2.0, 3.0, 6.0])
def test_stars_among_galaxies(fwhm_px: float) -> None:
    rng = np.random.default_rng(7)
    yx = grid_positions(SHAPE, 55)
    widths = np.where(
        np.arange(len(yx)) % 4 == 0, fwhm_px, fwhm_px * rng.uniform(1.3, 4.0, len(yx))
    )
    flux = rng.uniform(2000, 60000, len(yx))
    image = add_gaussians(noise_image(SHAPE, level=5.0), yx, flux, widths)
    width = width_of(image)
    assert width is not None
    assert width.fwhm_px == pytest.approx(fwhm_px, rel=0.05)
    assert width.stars >= 5


def test_saturated_stars_do_not_count() -> None:
    yx = grid_positions(SHAPE, 80)
    flux = np.where(np.arange(len(yx)) % 2, 4e4, 8e5)
    image = np.minimum(add_gaussians(noise_image(SHAPE), yx, flux, 3.0), 2e4)
    stars = star_candidates(image, saturation=2e4)
    assert len(stars) >= 5
    assert max(float(star.stamp.max()) for star in stars) < 0.7 * 2e4


def test_bad_pixels_and_edges_spoil_a_star() -> None:
    yx = np.array([[30.0, 30.0], [30.0, 80.0], [2.0, 55.0]])
    image = add_gaussians(noise_image((60, 110)), yx, 2e4, 3.0)
    image[31, 83] = np.nan
    (star,) = star_candidates(image)
    assert np.unravel_index(np.nanargmax(star.stamp), star.stamp.shape) == (
        star.stamp.shape[0] // 2,
        star.stamp.shape[1] // 2,
    )


@pytest.mark.parametrize(
    "image",
    [
        noise_image((300, 300)),
        np.zeros((300, 300), np.float32),
        np.full((50, 50), np.nan, np.float32),
        add_gaussians(noise_image((200, 200)), np.array([[100.0, 100.0]]), 2e4, 3.0),
    ],
    ids=["noise", "zeros", "nan", "one star"],
)
def test_too_few_stars_is_none(image: np.ndarray) -> None:
    assert width_of(image) is None


@pytest.mark.parametrize(
    ("radii", "expected"),
    [
        ([], []),
        ([1.5] * 4, []),
        ([1.5, 4.0, 1.52, 3.0, 1.48, 5.5, 1.5, 1.51], [0, 2, 4, 6, 7]),
        ([0.6, 1.5, 1.5, 1.5, 1.5, 1.5], [1, 2, 3, 4, 5]),
        ([1.0, 1.6, 2.3, 3.2, 4.4, 6.0, 8.0], []),
    ],
    ids=["nothing", "four", "among galaxies", "a cosmic ray", "spread"],
)
def test_the_stellar_locus(radii: list[float], expected: list[int]) -> None:
    assert stellar_locus(np.array(radii)) == expected
