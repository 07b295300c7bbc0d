from __future__ import annotations

import numpy as np
import pytest

from deblend_batch.simulate.galaxies.variation import WIDE, Variation
from deblend_batch.simulate.presets import get_preset

PRESET = get_preset("candels-h")


@pytest.mark.parametrize(
    ("variation", "fwhm_px", "factor"),
    [(Variation(), (2.7, 3.3), (1.0, 1.0)), (WIDE, (1.6, 5.0), (0.6, 1.5))],
    ids=["preset", "wide"],
)
def test_draws_stay_in_range(
    variation: Variation, fwhm_px: tuple[float, float], factor: tuple[float, float]
) -> None:
    rng = np.random.default_rng(1)
    widths = [variation.draw_psf(PRESET, rng).fwhm_px for _ in range(100)]
    factors = [variation.draw_radius_factor(rng) for _ in range(100)]
    assert fwhm_px[0] <= min(widths) <= max(widths) <= fwhm_px[1]
    assert factor[0] <= min(factors) <= max(factors) <= factor[1]


@pytest.mark.parametrize("share", [0.0, 0.3, 1.0])
def test_a_share_of_the_psfs_is_the_preset_s_own(share: float) -> None:
    rng = np.random.default_rng(3)
    far = Variation(psf_fwhm_px=(8.0, 9.0), own_psf_fraction=share)
    own = np.mean([far.draw_psf(PRESET, rng).fwhm_px < 4 for _ in range(400)])
    assert own == pytest.approx(share, abs=0.08)
