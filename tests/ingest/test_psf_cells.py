"""A PSF that varies, measured on stars drawn by GalSim."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache

import galsim
import numpy as np
import pytest

from deblend_batch.ingest.psf.cells import MeasuredPsf, measure_cells, stack
from deblend_batch.ingest.psf.moffat import FittedStar, Moffat, fit_moffat
from deblend_batch.ingest.psf.stars import star_candidates
from deblend_batch.ingest.psf.width import fit_stars
from tests.ingest.stars import SHAPE_YX, add, star_field, true_kernel


@cache
def stars_in(fwhm_px: float, gradient: float, n_stars: int) -> Sequence[FittedStar]:
    """The stars of a field with fifty galaxies; several tests look at the same."""
    return stars_of(star_field(fwhm_px, gradient, n_stars))


def stars_of(image: np.ndarray) -> Sequence[FittedStar]:
    candidates = []
    for y in (0, 550):
        for x in (0, 550):
            candidates += star_candidates(image[y : y + 550, x : x + 550], origin_yx=(y, x))
    return fit_stars(candidates, image.shape)


def measured(*bands: Sequence[FittedStar], fwhm: float = 0.35) -> MeasuredPsf | None:
    return measure_cells(bands, SHAPE_YX, [fwhm] * len(bands), 0.1)


def width_px(kernel: np.ndarray) -> float:
    """Width of a kernel by the fit that measures stars."""
    fit = fit_moffat(kernel)
    assert fit is not None
    return fit[0].fwhm_px


@pytest.mark.parametrize(("fwhm_px", "gradient"), [(1.8, 0.0), (3.5, 0.2), (5.0, 0.1)])
def test_kernels_are_what_stars_look_like_there(fwhm_px: float, gradient: float) -> None:
    found = measured(stars_in(fwhm_px, gradient, 250))
    assert found is not None
    kernels = found.psf.kernels
    assert kernels is not None
    n_y, n_x = kernels.grid.counts_yx
    assert min(n_y, n_x) >= 3
    size = kernels.images.shape[-1]
    for y in range(n_y):
        for x in range(n_x):
            if not kernels.is_known[0, y, x]:
                continue
            centre = (np.array([y, x]) + 0.5) * kernels.grid.edge_yx
            truth = true_kernel(centre, fwhm_px, gradient, size)
            kernel = kernels.images[0, y, x].astype(np.float64)
            assert kernel.sum() == pytest.approx(1, abs=1e-5)
            assert width_px(kernel) == pytest.approx(width_px(truth), rel=0.025)
            assert np.abs(kernel - truth / truth.sum()).sum() < 0.05
            widths = found.psf.fwhm_at(centre[None])[0, 0] / 0.1
            assert widths == pytest.approx(width_px(truth), rel=0.04)
    assert kernels.is_known.mean() >= 0.75
    assert np.isfinite(kernels.images).all()


def test_shapes_vary_too() -> None:
    found = measured(stars_in(3.5, 0.2, 250))
    assert found is not None
    kernels = found.psf.kernels
    assert kernels is not None
    y, x = np.indices((7, 7)) - 3.0
    half = kernels.images.shape[-1] // 2
    core = kernels.images[0, :, :, half - 3 : half + 4, half - 3 : half + 4]
    skew = (core * y * x).sum(axis=(-2, -1)).mean(axis=1)
    assert skew[0] < -0.02
    assert skew[-1] > 0.02


@pytest.mark.parametrize(
    ("n_stars", "cells"), [(250, 3), (60, 1), (20, 1)], ids=["many", "few", "very few"]
)
def test_cells_are_as_fine_as_the_stars_allow(n_stars: int, cells: int) -> None:
    found = measured(stars_in(3.5, 0.2, n_stars))
    assert found is not None
    assert found.psf.kernels is not None
    counts = found.psf.kernels.grid.counts_yx
    assert counts[0] == counts[1]
    assert counts[0] >= cells if n_stars > 100 else cells <= counts[0] <= 3


def test_faint_stars_give_widths_alone() -> None:
    image = star_field(3.5, 0.2, 250, flux=(370.0, 400.0), n_galaxies=0)
    found = measured(stars_of(image))
    assert found is not None
    assert found.psf.kernels is None or found.psf.kernels.grid.counts_yx < found.psf.grid.counts_yx
    low, high = found.width_range_arcsec(0)
    assert high / low > 1.08
    assert (low + high) / 2 == pytest.approx(0.35, rel=0.08)


def test_bands_without_stars_keep_what_is_said_of_them() -> None:
    stars = stars_in(3.5, 0.2, 60)
    found = measured(stars, (), fwhm=0.5)
    assert found is not None
    assert found.n_stars[0] > 30
    assert found.n_stars[1] == 0
    assert (found.psf.fwhm_arcsec[1] == np.float32(0.5)).all()
    assert found.psf.kernels is not None
    assert found.psf.kernels.is_known[0].any()
    assert not found.psf.kernels.is_known[1].any()


@pytest.mark.parametrize("n", [0, 1, 4])
def test_too_few_stars_are_no_psf(n: int) -> None:
    stars = stars_in(3.5, 0.2, 60)[:n]
    assert measured(stars) is None
    assert measured() is None


def test_what_is_no_star_does_not_count() -> None:
    """Three compact galaxies among the stars of a region."""
    stars = list(stars_in(3.5, 0.2, 60))
    wide = [
        FittedStar(star.yx, star.snr, Moffat(4.6, 3.0, 0.0, 0.0), star.centre_yx, star.stamp)
        for star in stars[:3]
    ]
    found, expected = measured([*stars, *wide]), measured(stars)
    assert found is not None
    assert expected is not None
    np.testing.assert_allclose(found.psf.fwhm_arcsec, expected.psf.fwhm_arcsec, rtol=5e-3)


def test_a_stack_is_centred_whatever_the_stars_places_on_the_pixels() -> None:
    rng = np.random.default_rng(3)
    shape = Moffat(2.2, 3.0, 0.05, -0.03)
    y, x = np.indices((25, 25), np.float64)
    stars = []
    for _ in range(8):
        dy, dx = rng.uniform(-0.5, 0.5, 2)
        stamp = 1e4 * shape.at(y - 12 - dy, x - 12 - dx) + rng.normal(0, 1, y.shape)
        stars.append(FittedStar((0, 0), 500, shape, (12 + dy, 12 + dx), stamp.astype(np.float32)))
    image = stack(stars, 12)
    truth = shape.at(y - 12, x - 12)
    np.testing.assert_allclose(image, truth / truth.sum(), atol=3e-4)


PROFILES = {
    "Gaussian": galsim.Gaussian(fwhm=1),
    "Moffat": galsim.Moffat(beta=3.0, fwhm=1),
    "Kolmogorov": galsim.Kolmogorov(fwhm=1),
}


def accompanied_stars(
    psf: galsim.GSObject, fwhm_px: float, distance: float, ratio: float
) -> np.ndarray:
    """Stars on a noise of 1 a pixel, with a galaxy beside each, at a distance in units of the FWHM."""
    rng = np.random.default_rng(7)
    galaxy = galsim.Convolve(psf, galsim.Exponential(half_light_radius=fwhm_px))
    image = np.zeros((600, 600))
    for y in np.linspace(50, 550, 6):
        for x in np.linspace(50, 550, 6):
            light = float(np.exp(rng.uniform(np.log(3e3), np.log(6e4))))
            centre = np.array([y, x]) + rng.uniform(-2, 2, 2)
            angle = rng.uniform(0, 2 * np.pi)
            beside = centre + fwhm_px * distance * np.array([np.sin(angle), np.cos(angle)])
            for shown, flux, at in ((psf, light, centre), (galaxy, light * ratio, beside)):
                if flux:
                    middle = np.rint(at).astype(int)
                    offset = galsim.PositionD(*(at - middle)[::-1])
                    stamp = shown.drawImage(nx=161, ny=161, scale=1.0, offset=offset).array
                    add(image, stamp * flux, middle)
    return np.asarray(image + rng.standard_normal(image.shape), np.float32)


@pytest.mark.parametrize("profile", PROFILES)
@pytest.mark.parametrize(("distance", "ratio"), [(3.0, 0.0), (4.0, 0.03), (3.5, 0.1), (3.5, 0.3)])
def test_neighbours_do_not_change_what_a_star_looks_like(
    profile: str, distance: float, ratio: float
) -> None:
    """A sky that a neighbour shines in digs a moat around the star, and what is lost there its core gains."""
    fwhm_px = 4.0
    psf = PROFILES[profile].dilate(fwhm_px)
    image = accompanied_stars(psf, fwhm_px, distance, ratio)
    found = measure_cells([fit_stars(star_candidates(image), image.shape)], image.shape, [0.8], 0.2)
    assert found is not None
    assert found.psf.kernels is not None
    kernel = found.psf.kernels.images[0, 0, 0].astype(np.float64)
    truth = psf.drawImage(nx=len(kernel), ny=len(kernel), scale=1.0).array.astype(np.float64)
    error = kernel - truth / truth.sum()
    dy, dx = np.indices(kernel.shape) - len(kernel) // 2
    rings = np.bincount((np.hypot(dy, dx) / fwhm_px).astype(int).ravel(), error.ravel())
    assert np.abs(error).sum() < 0.03
    assert np.abs(rings[:4]).max() < 0.008
    assert kernel.min() > -0.01 * kernel.max()
