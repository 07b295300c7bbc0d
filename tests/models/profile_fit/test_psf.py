"""PSFs as Gaussians: how near they come, and what is refused."""

from __future__ import annotations

from typing import Any

import galsim
import numpy as np
import pytest

from deblend_batch.errors import ModelError
from deblend_batch.models.profile_fit.light.psf import (
    PsfMixture,
    PsfStack,
    psf_from_fwhm,
    psf_from_kernel,
    psf_of_width,
)


def moffat(size: int = 31, method: str = "auto") -> np.ndarray:
    psf = galsim.Moffat(beta=3.5, fwhm=1.8).shear(g1=0.05, g2=-0.02)
    return np.asarray(psf.drawImage(nx=size, ny=size, scale=1.0, method=method).array, np.float64)


@pytest.mark.parametrize(("components", "limit"), [(3, 0.006), (4, 0.003), (5, 0.0015)])
def test_a_kernel_is_met_the_better_the_more_gaussians(components: int, limit: float) -> None:
    mixture = psf_from_kernel(moffat(), components=components)
    assert mixture.residual < limit
    assert mixture.weight.sum() == pytest.approx(1.0)


def test_the_image_is_that_of_the_kernel() -> None:
    kernel = moffat()
    shown = psf_from_kernel(kernel, components=4).image(31)
    np.testing.assert_allclose(shown, kernel / kernel.sum(), atol=1e-3)


def test_a_kernel_without_the_pixel_gets_it() -> None:
    with_pixel = psf_from_kernel(moffat(), components=4).image(31)
    sampled = psf_from_kernel(moffat(method="no_pixel"), pixel_included=False, components=4)
    np.testing.assert_allclose(sampled.image(31), with_pixel, atol=3e-3)


@pytest.mark.parametrize("factor", [1e-6, 3.0])
def test_the_sum_of_a_kernel_does_not_matter(factor: float) -> None:
    """Of the PSF, that is: Gaussians may share its light in ways that look alike to the last digits."""
    one, other = (psf_from_kernel(scale * moffat()).image(31) for scale in (1.0, factor))
    np.testing.assert_allclose(one, other, rtol=0, atol=5e-6 * one.max())


def test_a_width_gives_what_an_image_of_that_psf_gives() -> None:
    image = galsim.Moffat(beta=3.5, fwhm=1.8).drawImage(nx=31, ny=31, scale=1.0).array
    np.testing.assert_allclose(
        psf_from_fwhm(1.8, "moffat", beta=3.5).image(31), image / image.sum(), atol=2e-3
    )


def test_a_gaussian_is_one_gaussian_with_the_pixel() -> None:
    mixture = psf_from_fwhm(2.3548200450309493, "gaussian")
    np.testing.assert_allclose(mixture.covariance, [[1 + 1 / 12, 0, 1 + 1 / 12]])


def airy(size: int, fwhm: float = 3.0) -> np.ndarray:
    """A telescope's PSF in space, of unit light far beyond the image."""
    core = galsim.Airy(lam_over_diam=1.0, obscuration=0.33)
    psf = galsim.Convolve(core, galsim.Gaussian(fwhm=0.88))
    psf = psf.dilate(fwhm / psf.calculateFWHM())
    psf = psf.shear(g1=0.03, g2=-0.02)
    image = galsim.Convolve(psf, galsim.Pixel(1.0)).drawImage(
        nx=size, ny=size, scale=1.0, method="no_pixel", dtype=np.float64
    )
    return np.asarray(image.array)


@pytest.mark.parametrize("size", [41, 51, 61])
def test_light_beyond_a_kernel_from_space_is_counted(size: int) -> None:
    kernel = airy(size)
    lost = 1.0 - kernel.sum()
    assert 0.015 < lost < 0.04
    mixture = psf_from_kernel(kernel, "diffraction")
    assert mixture.weight.sum() == pytest.approx(1.0)
    assert 1.0 - mixture.image(size).sum() == pytest.approx(lost, abs=0.006)
    # Further out, too, where no kernel tells.
    wide = 2 * size + 1
    assert mixture.image(wide).sum() == pytest.approx(airy(wide).sum(), abs=0.01)
    assert psf_from_kernel(kernel).image(size).sum() > 0.995


def test_rings_are_met_better_with_weights_of_either_sign() -> None:
    kernel = airy(51)
    mixture = psf_from_kernel(kernel, "diffraction")
    assert mixture.residual < 0.03 < psf_from_kernel(kernel).residual
    off = np.abs(mixture.image(51) - kernel).max() / kernel.max()
    assert off < 0.05
    # Single precision can bear it.
    assert np.abs(mixture.weight).sum() < 20


@pytest.mark.parametrize("kernel", [np.ones((3, 3)), np.eye(9) + 1.0, airy(7)])
def test_a_kernel_that_ends_in_its_core_tells_little_of_what_is_beyond(kernel: np.ndarray) -> None:
    mixture = psf_from_kernel(kernel, "diffraction")
    assert np.isfinite(mixture.weight).all()
    assert mixture.weight.sum() == pytest.approx(1.0)


@pytest.mark.parametrize("fwhm", [1.7, 3.0, 6.0])
def test_a_telescopes_psf_is_as_wide_as_asked(fwhm: float) -> None:
    size = 2 * int(7 * fwhm) + 1
    shown = psf_from_fwhm(fwhm, "airy").image(size)
    assert shown.max() == pytest.approx(airy(size, fwhm).max(), rel=0.08)


def test_noise_of_a_kernel_is_no_error_of_its_gaussians() -> None:
    noise = np.random.default_rng(1).normal(0.0, 2e-3, (31, 31))
    kernel = moffat() / moffat().sum() + noise - noise.mean()
    mixture = psf_from_kernel(kernel)
    assert mixture.residual > 0.3
    assert mixture.error == 0.05


def test_a_shape_that_is_assumed_may_be_wrong() -> None:
    assert psf_of_width(3.0, "seeing").error > 10 * psf_from_fwhm(3.0).error
    assert psf_of_width(3.0, "diffraction").error > psf_from_fwhm(3.0, "airy").error


@pytest.mark.parametrize(
    ("kernel", "message"),
    [
        (np.zeros((9, 9)), "sums to 0: a PSF has a positive sum"),
        (np.full((9, 9), -1.0), "a PSF has a positive sum"),
        (np.where(np.eye(9) > 0, np.nan, 1.0), "holds NaN or infinite pixels"),
        (np.ones((9, 7)), r"shape \(9, 7\): give a square image"),
        (np.ones(9), "give a square image"),
        (np.ones((1, 1)), "give a square image of 3 px or more"),
    ],
)
def test_a_kernel_that_is_no_psf_is_refused(kernel: np.ndarray, message: str) -> None:
    with pytest.raises(ModelError, match=message):
        psf_from_kernel(kernel)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((0.0,), "above 0 and up to 50 px"),
        ((float("nan"),), "above 0 and up to 50 px"),
        ((2.0, "sinc"), "'sinc': choose 'gaussian', 'moffat' or 'airy'"),
    ],
)
def test_a_width_that_is_none_is_refused(arguments: Any, message: str) -> None:
    with pytest.raises(ModelError, match=message):
        psf_from_fwhm(*arguments)


def test_a_stack_fills_mixtures_of_fewer_gaussians() -> None:
    one = PsfMixture(np.ones(1), np.array([[1.0, 0.0, 1.0]]), 0.0)
    two = PsfMixture(np.array([0.6, 0.4]), np.array([[1.0, 0.0, 1.0], [4.0, 0.0, 4.0]]), 0.0)
    stack = PsfStack.of([[one, two]])
    assert stack.weight.tolist() == [[[1.0, 0.0], [0.6, 0.4]]]
    # A Gaussian of sigma 1, and one that is as high in its middle as both together.
    assert stack.sigma_px()[0].tolist() == pytest.approx([1.0, (0.6 + 0.4 / 4) ** -0.5])
