"""The mixture against the profile that it stands for."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.special import gammainc, gammaincinv

from deblend_batch.models.profile_fit.light.sersic import INDEX_RANGE, sersic_mixture

RADIUS = np.geomspace(0.1, 8.0, 60)


def log_index(*index: float) -> torch.Tensor:
    return torch.tensor(index, dtype=torch.float64).log()


@pytest.mark.parametrize(
    ("index", "limit"),
    [(0.5, 1e-3), (0.7, 1e-3), (1.0, 1e-3), (1.5, 1e-3), (2.0, 1.5e-3), (3.0, 2.5e-3), (4.0, 4e-3)],
)
def test_light_within_a_radius_is_that_of_the_profile(index: float, limit: float) -> None:
    mixture = sersic_mixture(log_index(index))
    truth = gammainc(2 * index, gammaincinv(2 * index, 0.5) * RADIUS ** (1 / index))
    width, amplitude = mixture.width[0].numpy(), mixture.amplitude[0].numpy()
    shown = (amplitude * -np.expm1(-0.5 * (RADIUS[:, None] / width) ** 2)).sum(axis=1)
    assert np.abs(shown - truth).max() < limit


def test_all_light_is_one_and_no_gaussian_is_negative() -> None:
    mixture = sersic_mixture(log_index(*np.geomspace(*INDEX_RANGE, 50)))
    torch.testing.assert_close(mixture.amplitude.sum(dim=1), torch.ones(50, dtype=torch.float64))
    assert bool((mixture.amplitude >= 0).all())


@pytest.mark.parametrize("index", [0.55, 1.0, 2.2, 4.0, 5.9])
def test_slopes_are_those_of_the_values(index: float) -> None:
    step = 1e-5
    at = log_index(index)
    low, here, high = (sersic_mixture(at + shift) for shift in (-step, 0.0, step))
    amplitude = (high.amplitude.log() - low.amplitude.log()) / (2 * step)
    width = (high.width.log() - low.width.log()) / (2 * step)
    torch.testing.assert_close(here.amplitude_slope, amplitude, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(here.log_width_slope, width, atol=1e-5, rtol=1e-5)


def test_a_row_does_not_depend_on_the_others() -> None:
    many = log_index(*np.linspace(0.5, 6.0, 13))
    whole = sersic_mixture(many)
    for row in range(13):
        for alone, together in zip(sersic_mixture(many[row : row + 1]), whole, strict=True):
            assert torch.equal(alone[0], together[row])
