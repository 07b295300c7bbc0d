from __future__ import annotations

import numpy as np
import pytest

from deblend_batch.errors import ConfigError
from deblend_batch.simulate.presets import get_preset, preset_names


@pytest.mark.parametrize(
    ("name", "scale_arcsec", "fwhm_px"),
    [
        ("candels-h", 0.06, (2.5, 3.5)),
        ("euclid-vis", 0.1, (1.5, 2.0)),
        ("hst-acs", 0.03, (2.5, 4.0)),
        ("lsst-i", 0.2, (3.0, 4.0)),
        ("hsc-i", 0.168, (3.0, 4.0)),
        ("kids-r", 0.2, (3.0, 4.0)),
    ],
)
def test_presets_have_the_pixels_of_their_surveys(
    name: str, scale_arcsec: float, fwhm_px: tuple[float, float]
) -> None:
    preset = get_preset(name)
    assert preset.pixel_scale_arcsec == scale_arcsec
    assert fwhm_px[0] < preset.psf_fwhm_px < fwhm_px[1]


@pytest.mark.parametrize("name", preset_names())
def test_every_preset_names_its_source_and_sees_its_faintest_galaxies(name: str) -> None:
    preset = get_preset(name)
    area_px = 4 * np.pi * (preset.psf_fwhm_px / 2.355) ** 2
    point_source_snr = preset.flux(preset.magnitude_range[1]) / (
        preset.noise_sigma * np.sqrt(area_px)
    )
    assert len(preset.source) > 40
    assert 5 < point_source_snr < 1000


def test_flux_of_the_zero_point_is_one() -> None:
    preset = get_preset("candels-h")
    assert preset.flux(preset.zero_point) == 1.0
    assert preset.flux(preset.zero_point - 2.5) == pytest.approx(10.0)


def test_an_unknown_preset_is_answered_with_the_nearest() -> None:
    with pytest.raises(
        ConfigError, match=r"preset 'euclid_vis' is unknown; did you mean 'euclid-vis'\?"
    ):
        get_preset("euclid_vis")
