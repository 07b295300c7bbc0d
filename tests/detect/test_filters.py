"""Filters matched to the PSF of each place."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.signal import convolve

from deblend_batch.detect.filters import (
    Place,
    filter_places,
    psf_kernel,
    sharpening_kernel,
    width_of,
)
from deblend_batch.detect.places import places_of
from deblend_batch.field.layout import Field
from deblend_batch.field.psf.profile import psf_image
from deblend_batch.tiling.tile import Box
from tests.engine.fitted_field import write_fitted_field

SHAPE = (120, 140)


@pytest.fixture(scope="module")
def field(tmp_path_factory: pytest.TempPathFactory) -> Field:
    return Field.open(write_fitted_field(tmp_path_factory.mktemp("cells"))[0])


@pytest.mark.parametrize("fwhm", [1.7, 3.0, 5.5])
@pytest.mark.parametrize("scale", [0.03, 0.2])
def test_a_psf_becomes_narrower(fwhm: float, scale: float) -> None:
    psf = psf_image(fwhm, scale).astype(np.float64)
    assert psf.sum() == pytest.approx(1, abs=1e-5)
    kernel = sharpening_kernel(psf)
    sharp = convolve(np.pad(psf, len(kernel) // 2), kernel, mode="same")
    assert width_of(psf) == pytest.approx(np.hypot(fwhm, 0.68), rel=0.06), "the pixel is in it"
    assert width_of(sharp) < (0.92 if fwhm > 2 else 1.25) * width_of(psf)
    assert sharp.min() > -0.1 * sharp.max(), "no deep ring"


def test_noise_stays_one() -> None:
    noise = np.random.default_rng(1).standard_normal((400, 400))
    places = [Place(Box(0, 0, 400, 400), psf_kernel(3.0))]
    for kernel in (lambda place: place.matched, lambda place: place.sharpening):
        assert filter_places(noise, places, kernel)[30:-30, 30:-30].std() == pytest.approx(
            1, rel=0.05
        )


def test_places_of_one_psf_are_as_one_place() -> None:
    snr = np.random.default_rng(2).standard_normal(SHAPE)
    psf = psf_kernel(3.0)
    whole = filter_places(snr, [Place(Box(0, 0, *SHAPE), psf)], lambda place: place.matched)
    boxes = [Box(0, 0, 50, 140), Box(50, 0, 120, 61), Box(50, 61, 120, 140)]
    parts = filter_places(snr, [Place(box, psf) for box in boxes], lambda place: place.matched)
    np.testing.assert_allclose(parts, whole, atol=1e-10)


@pytest.mark.parametrize("box", [Box(0, 0, 230, 260), Box(100, 140, 190, 250), Box(10, 20, 60, 70)])
def test_a_box_is_covered_once_by_the_cells_of_its_psf(box: Box, field: Field) -> None:
    count = np.zeros(box.shape_yx, int)
    for place in places_of(field, 0, box):
        count[place.box.slices] += 1
        assert place.psf.shape == (31, 31)
    assert (count == 1).all()
