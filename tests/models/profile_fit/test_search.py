"""The search: one member must not hold back another, and what cannot win is given up without a change."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from deblend_batch.models.profile_fit.search import solver
from deblend_batch.models.profile_fit.search.config import FitConfig
from deblend_batch.models.profile_fit.search.solver import Search
from tests.models.profile_fit.blends import draw, fit, noise

SIZE = 96
BRIGHT, FAINT = 3e6, 2e4
CENTRE = (40.0, 44.0)


def beside_a_bright_galaxy(seed: int) -> tuple[Tensor, list[tuple[float, float]], list[float]]:
    """A bulge in an elongated disc, five faint galaxies in its light; detected positions and true fluxes."""
    rng = np.random.default_rng(seed)
    angle = rng.uniform(0, 2 * np.pi)
    shear = (0.5 * np.cos(angle), 0.5 * np.sin(angle))
    image = draw(BRIGHT, CENTRE, radius=6.0, shear=shear, size=SIZE)
    image = image + draw(0.3 * BRIGHT, CENTRE, radius=2.0, index=4.0, size=SIZE)
    places, fluxes = [CENTRE], [1.3 * BRIGHT]
    for _ in range(5):
        turn, away = rng.uniform(0, 2 * np.pi), rng.uniform(9, 28)
        place = (CENTRE[0] + away * np.sin(turn), CENTRE[1] + away * np.cos(turn))
        fluxes.append(FAINT * 10 ** rng.uniform(-0.3, 0.6))
        image = image + draw(fluxes[-1], place, radius=rng.uniform(1.0, 2.5), size=SIZE)
        places.append(place)
    detected = [(y + rng.normal(0, 0.4), x + rng.normal(0, 0.4)) for y, x in places]
    return image + noise(seed, SIZE, SIZE), detected, fluxes


def test_faint_members_do_not_hold_a_bright_one_back() -> None:
    """Steps cut by the wildest of all unknowns left bright galaxies round, and faint ones below nothing."""
    below, unfinished = 0, 0
    for seed in range(8):
        image, places, fluxes = beside_a_bright_galaxy(seed)
        found = fit(image, places)
        assert float(found.flux[0, 0, 0]) == pytest.approx(fluxes[0], rel=0.03)
        below += int((found.flux < 0).sum())
        unfinished += int((~found.converged).sum())
    assert below <= 4
    assert unfinished <= 2


def test_a_search_that_ends_on_a_step_it_may_not_take_keeps_its_fluxes() -> None:
    """One of 2,400 had 1e8 times its flux: of a step whose shapes were cut the fluxes were taken whole."""
    at_once = Search(iterations=1, tolerance=1e12)
    config = replace(FitConfig(), coarse=at_once, fine=at_once, star_fraction=0.0)
    places = [(19.5, 19.5), (20.5, 21.0)]
    image = draw(3e5, places[0], radius=8.0, shear=(0.5, 0.1)) + draw(5e4, places[1], radius=0.3)
    for seed in range(3):
        found = fit(image + noise(seed, 40, 40), places, config=config)
        assert float(found.flux.min()) > 0
        assert float(found.flux.sum()) < 3.5e5


def test_stars_that_cannot_win_are_given_up_without_a_change(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    places: list[tuple[float, float]] = [(30.0, 30.0), (60.0, 34.0), (45.0, 66.0)]
    image = draw(BRIGHT, places[0], radius=2.6, size=SIZE)
    image = image + draw(FAINT, places[1], radius=0.05, size=SIZE)
    image = image + draw(FAINT, places[2], radius=1.2, size=SIZE) + noise(5, SIZE, SIZE)
    quick = fit(image, places)
    monkeypatch.setattr(solver, "_HOPE", math.inf)
    patient = fit(image, places)
    assert quick.is_star.tolist() == patient.is_star.tolist() == [[False, True, False]]
    assert torch.equal(quick.flux, patient.flux)
    assert torch.equal(quick.flux_err, patient.flux_err)


@pytest.mark.parametrize(("radius", "flux"), [(0.4, 800.0), (0.8, 1500.0)])
def test_where_a_search_ends_does_not_decide_what_is_a_star(radius: float, flux: float) -> None:
    """Of 40 compact pairs one member was a star, or none, because its search had been ended."""
    places: list[tuple[float, float]] = [(29.0, 30.0), (34.0, 34.0)]
    shape: dict[str, Any] = {"radius": radius, "index": 0.5, "size": 64}
    pair = draw(2 * flux, places[0], **shape) + draw(flux, places[1], **shape)
    images = torch.stack([pair + noise(seed, 64, 64) for seed in range(40)])[:, None]
    patient = replace(FitConfig(), fine=Search(iterations=200, tolerance=0.0005))
    found, wanted = fit(images, places), fit(images, places, config=patient)
    assert torch.equal(found.is_star, wanted.is_star)
    assert 0 < int(wanted.is_star.sum()) < 80
