"""Fits of blends whose truth is known."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from deblend_batch.models.profile_fit.search.config import FitConfig
from tests.models.profile_fit.blends import NOISE, draw, fit, noise, psf_of

SIZE = 40
PAIR = [(17.0, 16.0), (23.0, 24.5)]


def pair() -> torch.Tensor:
    return draw(9000.0, PAIR[0], index=1.5, shear=(0.2, 0.1)) + draw(4000.0, PAIR[1], radius=2.5)


def test_without_noise_the_truth_comes_back() -> None:
    found = fit(pair(), [(17.3, 15.8), (22.7, 24.7)])
    assert bool(found.converged.all())
    assert found.flux[0, 0].tolist() == pytest.approx([9000, 4000], rel=0.01)
    assert found.yx[0].flatten().tolist() == pytest.approx([17, 16, 23, 24.5], abs=0.03)
    assert found.radius_px[0].tolist() == pytest.approx([4.0, 2.5], rel=0.02)
    assert found.sersic_n[0].tolist() == pytest.approx([1.5, 1.0], abs=0.08)
    assert found.ellipticity[0, 0].tolist() == pytest.approx([0.2, 0.1], abs=0.01)
    assert not bool(found.is_star.any())


def test_position_angle_and_axis_ratio_follow_from_the_shear() -> None:
    image = draw(20_000.0, (19.0, 20.0), shear=(0.0, 0.3))
    found = fit(image, [(19.0, 20.0)])
    assert float(found.position_angle) == pytest.approx(45.0, abs=1.0)
    assert float(found.axis_ratio) == pytest.approx(0.7 / 1.3, abs=0.01)


def test_errors_are_true() -> None:
    images = pair() + noise(1, 60, 1, SIZE, SIZE)
    found = fit(images, PAIR)
    truth = torch.tensor([9000.0, 4000.0], dtype=torch.float64)
    sigma = (found.flux[:, 0] - truth) / found.flux_err[:, 0]
    assert 0.55 < float((sigma.abs() < 1).double().mean()) < 0.80
    assert abs(float(sigma.mean())) < 0.35
    # A per cent of the model, at least, counts as noise.
    assert float(found.chi2.mean()) == pytest.approx(0.99, abs=0.015)


def test_errors_of_neighbours_are_tied() -> None:
    near = [(19.0, 18.0), (20.0, 22.0)]
    image = draw(3000.0, near[0]) + draw(3000.0, near[1]) + noise(2, SIZE, SIZE)
    found = fit(image, near)
    assert found.neighbour.tolist() == [[1, 0]]
    assert -1.0 < float(found.flux_corr[0, 0, 0]) < -0.1
    assert torch.equal(found.flux_corr[0, 0, 0], found.flux_corr[0, 0, 1])


def test_a_source_that_is_not_there_measures_nothing() -> None:
    images = draw(9000.0, PAIR[0], index=1.5) + noise(3, 30, 1, SIZE, SIZE)
    found = fit(images, PAIR)
    sigma = found.flux[:, 0, 1] / found.flux_err[:, 0, 1]
    assert float((sigma.abs() < 2).double().mean()) >= 0.85
    assert bool((sigma < 0).any())


def test_stars_are_stars_and_galaxies_are_none() -> None:
    star = draw(6000.0, PAIR[0], radius=0.0) + draw(6000.0, PAIR[1], radius=3.0)
    found = fit(star + noise(4, 8, 1, SIZE, SIZE), PAIR)
    assert found.is_star.tolist() == [[True, False]] * 8
    assert bool(found.sersic_n[:, 0].isnan().all())
    assert not bool(found.radius_px[:, 0].any())
    assert float(found.flux[:, 0, 0].mean()) == pytest.approx(6000, rel=0.01)


def test_no_member_is_a_star_where_none_may_be() -> None:
    star = draw(6000.0, PAIR[0], radius=0.0) + noise(5, SIZE, SIZE)
    assert not bool(fit(star, PAIR[:1], config=FitConfig(star_fraction=0.0)).is_star.any())


def test_a_masked_core_costs_little() -> None:
    star = draw(60_000.0, PAIR[0], radius=0.0)
    image = star + draw(3000.0, PAIR[1], radius=2.5)
    weights = torch.where(image > 4000.0, 0.0, NOISE**-2)[None, None]
    found = fit(image.clamp_max(4000.0), PAIR, weights=weights)
    assert float(found.flux[0, 0, 0]) == pytest.approx(60_000, rel=0.02)
    assert float(found.flux[0, 0, 1]) == pytest.approx(3000, rel=0.03)


def test_pixels_without_weight_may_hold_anything() -> None:
    image = pair() + noise(6, SIZE, SIZE)
    weights = torch.full((1, 1, SIZE, SIZE), NOISE**-2, dtype=torch.float64)
    weights[..., 12:15, 12:30] = 0.0
    plain = fit(image, PAIR, weights=weights)
    image[12:15, 12:30] = torch.tensor([math.nan, math.inf, 1e30])[:, None]
    assert torch.equal(fit(image, PAIR, weights=weights).flux, plain.flux)
    weights[..., 12:15, 12:30] = math.nan
    assert torch.equal(fit(image, PAIR, weights=weights).flux, plain.flux)


def test_a_band_without_data_tells_nothing_and_spoils_nothing() -> None:
    image = torch.stack([pair() + noise(7, SIZE, SIZE), torch.full((SIZE, SIZE), math.nan)])
    weights = torch.full((1, 2, SIZE, SIZE), NOISE**-2, dtype=torch.float64)
    weights[:, 1] = 0.0
    both, alone = fit(image[None], PAIR, weights=weights), fit(image[:1], PAIR)
    torch.testing.assert_close(both.flux[0, 0], alone.flux[0, 0], rtol=1e-4, atol=0.1)
    assert bool(both.flux[0, 1].isnan().all())
    assert bool(both.chi2[0, 1].isnan())


def test_a_member_outside_the_stamp_has_no_flux() -> None:
    found = fit(pair() + noise(8, SIZE, SIZE), [*PAIR, (500.0, -300.0)])
    assert bool(found.flux[0, 0, 2].isnan())
    assert found.flux[0, 0, :2].tolist() == pytest.approx([9000, 4000], rel=0.2)


def test_a_psf_that_may_be_wrong_makes_all_fluxes_of_a_blend_uncertain_together() -> None:
    image = pair() + noise(9, SIZE, SIZE)
    known = psf_of(1)._replace(error=torch.zeros(1, 1, dtype=torch.float64))
    sure = fit(image, PAIR, psf=known)
    doubted = fit(image, PAIR, psf=known._replace(error=known.error + 0.05))
    assert torch.equal(doubted.flux, sure.flux)
    expected = torch.hypot(sure.flux_err, 0.05 * sure.flux)
    torch.testing.assert_close(doubted.flux_err, expected, rtol=1e-3, atol=0.0)
    assert bool((doubted.flux_corr > sure.flux_corr).all())
    # Whether there is any flux, it leaves alone.
    assert torch.equal(doubted.flux_noise, sure.flux_noise)


def test_bands_share_shapes_and_have_fluxes_of_their_own() -> None:
    image = torch.stack([pair(), 0.1 * pair()]) + noise(9, 2, SIZE, SIZE)
    both, faint = fit(image[None], PAIR), fit(image[1:], PAIR)
    ratio = both.flux[0, 1] / both.flux[0, 0]
    assert ratio.tolist() == pytest.approx([0.1, 0.1], abs=0.02)
    assert bool((both.flux_err[0, 1] < faint.flux_err[0, 0]).all())


@pytest.mark.parametrize("level", [-3.0, 3.0])
def test_a_background_left_in_is_found_and_does_not_bias(level: float) -> None:
    images = pair() + noise(10, 20, 1, SIZE, SIZE)
    plain, shifted = fit(images, PAIR), fit(images + level, PAIR)
    assert float(shifted.sky.mean()) == pytest.approx(level, abs=0.3)
    assert bool((shifted.sky_sn * math.copysign(1, level) > 5).all())
    assert not bool((plain.sky_sn.abs() > 5).any())
    ratio = shifted.flux[:, 0] / plain.flux[:, 0]
    assert float(ratio.median()) == pytest.approx(1.0, abs=0.03)


def test_a_source_that_nobody_detected_is_a_peak() -> None:
    images = pair() + noise(11, 10, 1, SIZE, SIZE)
    assert not bool((fit(images, PAIR).peak_sn > 5).any())
    third = fit(images + draw(1500.0, (33.0, 12.0), radius=1.5), PAIR)
    assert bool((third.peak_sn > 5).all())
    assert float((third.peak_yx[:, 0] - torch.tensor([33.0, 12.0])).abs().max()) <= 2


def test_what_is_wrong_with_a_member_that_is_not_measured_is_not_told_of_the_others() -> None:
    """A source that nobody detected is told of the blend whose measured member it is nearer to."""
    images = pair() + noise(11, 4, 1, SIZE, SIZE)
    first, second = PAIR
    measured = torch.ones(4, dtype=torch.int64)
    for near, told in ((first, True), (second, False)):
        away = (2 * near[0] - (first[0] + second[0]) / 2, 2 * near[1] - (first[1] + second[1]) / 2)
        spoilt = images + draw(2500.0, away, radius=1.5)
        both, found = fit(spoilt, PAIR), fit(spoilt, PAIR, n_measured=measured)
        assert bool((both.peak_sn > 5).all())
        assert bool((found.peak_sn > 5).any()) == told
        ours = found.peak_yx[:, 0] - torch.tensor(first)
        theirs = found.peak_yx[:, 0] - torch.tensor(second)
        assert bool((ours.square().sum(1) <= theirs.square().sum(1)).all())
        assert not bool((found.chi2 == both.chi2).any())
    whole = fit(images, PAIR)
    counted = fit(images, PAIR, n_measured=torch.full((4,), 2))
    assert torch.equal(whole.chi2, counted.chi2)
    assert torch.equal(whole.peak_sn, counted.peak_sn)
    assert torch.equal(whole.flux, fit(images, PAIR, n_measured=measured).flux)


def test_models_add_up_to_the_image() -> None:
    found = fit(pair(), PAIR, with_models=True)
    assert found.models is not None
    left = pair() - found.models[0, 0].sum(dim=0) - found.sky[0, 0]
    assert float(left.abs().max()) < 0.02 * float(pair().max())
    assert bool((found.blendedness[0, 0] > 0).all())
    assert bool((found.blendedness[0, 0] < 0.5).all())


def test_an_empty_batch_is_an_empty_answer() -> None:
    none = torch.zeros(0, 1, SIZE, SIZE)
    found = fit(none, PAIR)
    assert found.flux.shape == (0, 1, 2)


def test_what_profiles_do_not_describe_counts_as_noise() -> None:
    """A galaxy with arms: its error grows to what is wrong with its flux; that of a plain one does not."""
    plain = draw(60_000.0, (19.5, 19.5), radius=4.0, size=SIZE)
    y, x = np.indices((SIZE, SIZE)) - 19.5
    angle, radius = np.arctan2(y, x), np.hypot(y, x)
    arms = torch.from_numpy(1 + 0.6 * np.cos(2 * angle - radius))
    images = torch.stack([plain, plain * arms])[:, None] + noise(5, 2, 1, SIZE, SIZE)
    found = fit(images, [(19.5, 19.5)])
    error = found.flux_err[:, 0, 0]
    assert float(error[1]) > 3 * float(error[0])
    off = found.flux[:, 0, 0] - torch.stack([plain.sum(), (plain * arms).sum()])
    assert bool((off.abs() < 3 * error).all())


def test_no_member_takes_away_what_another_has_too_much() -> None:
    """A position where nothing is, beside a galaxy that is no Sersic profile: its flux is about zero."""
    y, x = np.indices((SIZE, SIZE)) - 19.5
    boxy = torch.from_numpy(np.exp(-((np.abs(x) / 5) ** 3) - (np.abs(y) / 5) ** 3)) * 400
    images = boxy[None, None] + noise(6, 20, 1, SIZE, SIZE)
    found = fit(images, [(19.5, 19.5), (19.5, 24.0)])
    faint = found.flux[:, 0].amin(dim=1)
    assert float(faint.min()) > -0.1 * float(boxy.sum())
