from __future__ import annotations

import numpy as np
import pytest

from deblend_batch.errors import ConfigError
from deblend_batch.simulate.galaxies.pool import GalaxyPool
from deblend_batch.simulate.pairs.plan import BLOCK, Floats, PairPlan, PairPlanner, turned
from deblend_batch.simulate.pairs.rules import PairRules, signal_to_noise, training_rules
from deblend_batch.simulate.presets import get_preset

PRESET = get_preset("candels-h")


def make_plans(pool: GalaxyPool, rules: PairRules, count: int = 8) -> list[PairPlan]:
    planner = PairPlanner(pool, np.arange(len(pool)), PRESET, rules)
    return [planner.plan(np.random.default_rng(seed)) for seed in range(count)]


@pytest.mark.parametrize("turn", range(8))
def test_positions_turn_with_pixels(turn: int) -> None:
    image = np.zeros((6, 6))
    image[1, 2] = 1.0
    if turn & 1:
        image = image[::-1]
    if turn & 2:
        image = image[:, ::-1]
    if turn & 4:
        image = image.T
    found = turned(np.array([1.0, 2.0]), np.array(turn), 6)
    assert tuple(found.astype(int)) == np.unravel_index(image.argmax(), image.shape)


@pytest.mark.parametrize("rules", [PairRules(), training_rules(64)], ids=["default", "training"])
def test_members_obey_the_rules(pool: GalaxyPool, rules: PairRules) -> None:
    for plan in make_plans(pool, rules):
        assert (plan.rows[:, 0] != plan.rows[:, 1]).all()
        assert (np.abs(plan.mag[:, 0] - plan.mag[:, 1]) < rules.max_mag_difference).all()
        assert (pool.group[plan.rows[:, 0]] == pool.group[plan.rows[:, 1]]).all()
        np.testing.assert_allclose(plan.flux, 10 ** (-0.4 * (plan.mag - PRESET.zero_point)))


@pytest.mark.parametrize("size", [64, 128])
def test_distances_follow_the_radii(pool: GalaxyPool, size: int) -> None:
    for plan in make_plans(pool, PairRules(stamp_size=size)):
        radius = np.maximum(pool.radius_px, 0.43 * pool.psf_fwhm_px)[plan.rows]
        distance = np.hypot(*(plan.true_yx[:, 1] - plan.true_yx[:, 0]).T)
        # Whole-pixel shifts: the distance asked for is met within half a pixel's diagonal.
        assert (distance < np.minimum(4 * radius.min(axis=1), size / 2 - 2) + 0.71).all()
        usual = radius.max(axis=1) < np.minimum(4 * radius.min(axis=1), size / 2 - 2)
        assert (distance > radius.max(axis=1) - 0.71)[usual].all()


def test_distances_have_the_distribution_of_the_seed(pool: GalaxyPool) -> None:
    distance = np.concatenate(
        [
            np.hypot(*(p.true_yx[:, 1] - p.true_yx[:, 0]).T)
            for p in make_plans(pool, PairRules(), 30)
        ]
    )
    assert 9 < np.median(distance) < 17
    assert 3 < np.quantile(distance, 0.05) < 8


@pytest.mark.parametrize("size", [64, 96, 128])
def test_the_central_is_cut_to_the_nearest_pixel(pool: GalaxyPool, size: int) -> None:
    offsets = np.concatenate(
        [p.detected_yx[:, 0] - size // 2 for p in make_plans(pool, PairRules(stamp_size=size))]
    )
    assert np.abs(offsets).max() <= 0.5 + 1e-9
    assert np.abs(offsets.mean(axis=0)).max() < 0.06
    np.testing.assert_allclose(offsets.std(axis=0), 12**-0.5, atol=0.05)


@pytest.mark.parametrize(
    ("change", "moves"),
    [({}, True), ({"centroid_error": False}, False), ({"seed_faithful": True}, False)],
)
def test_detected_positions_have_errors(
    pool: GalaxyPool, change: dict[str, bool], moves: bool
) -> None:
    plan = make_plans(pool, PairRules(**change), 1)[0]  # type: ignore[arg-type]
    error = plan.detected_yx - plan.true_yx
    assert (np.abs(error).max() > 0) == moves
    assert np.abs(error).max() < 2.5


def test_flux_jitter_keeps_colour_of_the_pool_on_average(pool: GalaxyPool) -> None:
    moved = [
        plan.mag - pool.mag[plan.rows] for plan in make_plans(pool, PairRules(flux_jitter_mag=0.5))
    ]
    assert 0.3 < np.abs(np.concatenate(moved)).max() <= 0.5
    assert abs(np.concatenate(moved).mean()) < 0.05


def test_noise_spans_its_range(pool: GalaxyPool) -> None:
    rules = PairRules(noise_factor=(0.01, 100.0))
    factor = np.concatenate([p.sigma for p in make_plans(pool, rules)]) / PRESET.noise_sigma
    assert 0.005 < factor.min() < 0.05
    assert 20 < factor.max() < 200


def test_both_members_keep_the_least_signal_to_noise(pool: GalaxyPool) -> None:
    free, kept = (
        np.concatenate([_faintest_snr(pool, plan) for plan in make_plans(pool, rules)])
        for rules in (
            PairRules(noise_factor=(0.5, 500.0)),
            PairRules(noise_factor=(0.5, 500.0), least_snr=5.0),
        )
    )
    assert (free < 5).mean() > 0.1
    assert kept.min() >= 5 * (1 - 1e-9)
    assert kept.min() < 6


def _faintest_snr(pool: GalaxyPool, plan: PairPlan) -> Floats:
    radius, fwhm = (
        known[plan.rows].astype(np.float64) for known in (pool.radius_px, pool.psf_fwhm_px)
    )
    faintest: Floats = signal_to_noise(plan.flux, radius, fwhm, plan.sigma[:, None]).min(axis=1)
    return faintest


def test_noise_varies_as_it_does_across_the_survey(pool: GalaxyPool) -> None:
    sigma = np.concatenate([plan.sigma for plan in make_plans(pool, PairRules())])
    assert np.median(sigma) == pytest.approx(PRESET.noise_sigma, rel=0.05)
    assert np.log(sigma).std() == pytest.approx(PRESET.noise_spread, rel=0.1)


def test_neighbours_keep_their_distance_and_are_listed_where_detectable(pool: GalaxyPool) -> None:
    rules = PairRules(stamp_size=96, neighbours_per_stamp=1.0, close_neighbour_fraction=0.0)
    count = listed = 0
    for plan in make_plans(pool, rules):
        third = plan.neighbours
        present = third.flux > 0
        seen = np.isfinite(third.detected_yx).all(axis=2)
        count, listed = count + int(present.sum()), listed + int(seen.sum())
        assert not (seen & ~present).any()
        apart = np.hypot(*(plan.true_yx[:, 1] - plan.true_yx[:, 0]).T)
        for i, k in np.argwhere(seen):
            to_members = np.hypot(*(third.detected_yx[i, k] - plan.true_yx[i]).T)
            assert to_members.min() > apart[i] - 1.5
    assert 0.4 < count / (8 * BLOCK) < 1.0
    assert listed > 0.6 * count


def test_galaxies_that_cannot_pair_are_refused(pool: GalaxyPool) -> None:
    with pytest.raises(ConfigError, match=r"no two of 1 galaxies share a PSF within 2\.0 mag"):
        PairPlanner(pool, np.array([3]), PRESET, PairRules())
