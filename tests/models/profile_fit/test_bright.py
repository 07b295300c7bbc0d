"""Bright members: what the search begins with, and what their clumps do to their neighbours' errors."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from deblend_batch.models.profile_fit.search.config import FitConfig
from deblend_batch.models.profile_fit.search.misfit import Trust
from deblend_batch.models.profile_fit.search.residual import leaked_light
from tests.models.profile_fit.blends import draw, fit, noise

SIZE = 64
MIDDLE = (31.5, 31.5)
BRIGHT, FAINT = 5e5, 4e4


@pytest.mark.parametrize("radius", [1.2, 1.6, 2.5])
@pytest.mark.parametrize("apart", [7.0, 9.0])
def test_a_bright_compact_galaxy_leaves_a_wide_neighbour_its_light(
    radius: float, apart: float
) -> None:
    """Begun with wide galaxies alone, the search makes one of both and gives the other less than nothing."""
    there = (MIDDLE[0], MIDDLE[1] + apart)
    image = draw(BRIGHT, MIDDLE, radius=radius, index=3.5, size=SIZE)
    image = image + draw(FAINT, there, radius=8.0, shear=(0.1, 0.1), size=SIZE)
    found = fit(image + noise(1, SIZE, SIZE), [(31.8, 31.3), (there[0] - 0.3, there[1] + 0.2)])
    assert found.flux[0, 0].tolist() == pytest.approx([BRIGHT, FAINT], rel=0.1)
    assert bool(found.converged.all())


def clumpy(rng: np.random.Generator) -> Tensor:
    """A disc with clumps, as no profile is."""
    image = draw(0.7 * BRIGHT, MIDDLE, radius=6.0, size=SIZE)
    for _ in range(6):
        y, x = rng.normal(31.5, 4.0, 2)
        image = image + draw(0.05 * BRIGHT, (float(y), float(x)), radius=1.2, size=SIZE)
    return image


def beside_clumps(number: int, **trust: float) -> tuple[Tensor, Tensor]:
    """Pulls of faint galaxies beside clumpy ones, and their errors."""
    rng = np.random.default_rng(2)
    images, places = [], []
    for _ in range(number):
        angle = rng.uniform(0, 2 * math.pi)
        there = (31.5 + 12 * math.sin(angle), 31.5 + 12 * math.cos(angle))
        images.append(clumpy(rng) + draw(FAINT, there, radius=3.0, size=SIZE))
        places.append([MIDDLE, there])
    pixels = torch.stack(images)[:, None] + noise(3, number, 1, SIZE, SIZE)
    found = fit(
        pixels,
        [MIDDLE, MIDDLE],
        positions=torch.tensor(places, dtype=torch.float64),
        config=FitConfig(trust=Trust(**trust)),
    )
    error = found.flux_err[:, 0, 1]
    return (found.flux[:, 0, 1] - FAINT) / error, error


def test_errors_tell_of_the_clumps_of_a_neighbour() -> None:
    pull, error = beside_clumps(40)
    assert float((pull.abs() < 1).double().mean()) > 0.6
    without, less = beside_clumps(40, leaked=0.0)
    assert float((without.abs() < 1).double().mean()) < 0.5
    assert bool((less < error).all())


@settings(max_examples=30, deadline=None)
@given(st.floats(0.0, 0.4), st.floats(0.1, 10.0), st.sampled_from([1.0, -0.01]))
def test_the_leak_is_the_untrusted_share_of_what_others_put_into_a_profile(
    share: float, ratio: float, own: float
) -> None:
    """Of two members of one profile, each has in its own all light of the other, whatever its flux."""
    profile = torch.rand((1, 1, 25), generator=torch.Generator().manual_seed(1)) + 0.1
    models = torch.cat([own * profile, ratio * profile], dim=1)
    weight = torch.full((1, 5, 5), 4.0)
    light = models.clamp_min(0.0).sum(dim=1).reshape(1, 5, 5)
    trusted = weight / (1 + weight * (share * light).square())
    flux = float(profile.sum())
    expected = torch.tensor([[share * ratio * flux, share * max(own, 0) * flux]]).double()
    torch.testing.assert_close(
        leaked_light(models, weight, trusted), expected, rtol=2e-3, atol=2e-3
    )


def test_a_first_fit_gone_astray_makes_no_leak() -> None:
    """Where it put light, and the last one next to none, the misfit is no share of what is there."""
    models = torch.full((1, 2, 25), 1e-12)
    models[0, :, :9] = 10.0
    weight, light = torch.ones(1, 5, 5), models.sum(dim=1).reshape(1, 5, 5)
    first = torch.where(light > 1.0, light, 5.0)
    trusted = weight / (1.0 + (0.1 * first).square())
    leaked = leaked_light(models, weight, trusted)
    assert leaked.flatten().tolist() == pytest.approx([0.1 * 90.0] * 2, rel=0.01)


def test_members_apart_leak_nothing() -> None:
    models = torch.zeros(1, 2, 16)
    models[0, 0, :5], models[0, 1, 8:] = 3.0, 5.0
    weight = torch.ones(1, 4, 4)
    assert not leaked_light(models, weight, 0.5 * weight).any()
