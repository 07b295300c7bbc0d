from __future__ import annotations

import galsim
import numpy as np
import pytest

from deblend_batch.simulate.presets import PsfModel, get_preset
from deblend_batch.simulate.psf import (
    Psf,
    draw_psf,
    draw_wide_psf,
    fourier_image,
    transfer_function,
)

MODELS = [
    PsfModel("airy", 0.18, 0.03, obscuration=0.33, diffraction_fraction=0.7),
    PsfModel("moffat", 0.7, 0.1, beta=3.5),
]


@pytest.mark.parametrize("model", MODELS, ids=lambda model: model.kind)
@pytest.mark.parametrize("fwhm_px", [1.6, 3.0, 5.0])
def test_profile_has_the_width_asked_for(model: PsfModel, fwhm_px: float) -> None:
    profile = Psf(model, fwhm_px, 0.0, 0.0).profile()
    assert profile.calculateFWHM() == pytest.approx(fwhm_px, rel=0.02)
    assert profile.flux == pytest.approx(1.0)


@pytest.mark.parametrize("name", ["candels-h", "lsst-i"])
def test_drawn_widths_scatter_about_the_presets(name: str) -> None:
    preset, rng = get_preset(name), np.random.default_rng(1)
    widths = [draw_psf(preset.psf, preset.pixel_scale_arcsec, rng).fwhm_px for _ in range(300)]
    assert np.median(widths) == pytest.approx(preset.psf_fwhm_px, rel=0.02)
    assert np.std(np.log(widths)) == pytest.approx(preset.psf.fwhm_spread, rel=0.2)


def test_wide_psfs_cover_range_and_families() -> None:
    rng = np.random.default_rng(2)
    drawn = [draw_wide_psf((1.6, 5.0), 0.05, rng) for _ in range(300)]
    widths = [psf.fwhm_px for psf in drawn]
    assert 1.6 <= min(widths) < 1.7
    assert 4.8 < max(widths) <= 5.0
    assert {psf.model.kind for psf in drawn} == {"airy", "moffat"}
    assert max(np.hypot(psf.e1, psf.e2) for psf in drawn) <= 0.05


def test_transfer_function_is_one_at_zero_frequency() -> None:
    transfer = transfer_function(Psf(MODELS[1], 3.0, 0.01, 0.02), 96, 2)
    assert transfer.shape == (96, 49)
    assert transfer[0, 0] == pytest.approx(1.0, abs=1e-5)


def test_fourier_image_inverts_to_the_profile_that_galsim_draws() -> None:
    profile = galsim.Convolve(galsim.Gaussian(sigma=2.0).shift(0.3, -0.2), galsim.Pixel(1.0))
    drawn = profile.drawImage(galsim.ImageD(33, 33, scale=1.0), method="no_pixel").array
    image = np.fft.fftshift(np.fft.irfft2(fourier_image(profile, 64, 1)))
    np.testing.assert_allclose(image[16:49, 16:49], drawn, atol=1e-5)
