from __future__ import annotations

from dataclasses import fields, replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from deblend_batch.errors import ConfigError
from deblend_batch.simulate.galaxies.pool import SPLITS, GalaxyPool, Split
from deblend_batch.simulate.pairs.batch import PairBatch
from deblend_batch.simulate.pairs.blending import PairSampler, correlated_noise
from deblend_batch.simulate.pairs.rules import PairRules, training_rules


def assert_same(first: PairBatch, second: PairBatch) -> None:
    for field in fields(PairBatch):
        np.testing.assert_array_equal(
            getattr(first, field.name), getattr(second, field.name), err_msg=field.name
        )


@pytest.fixture(scope="module")
def whole(pool: GalaxyPool) -> PairBatch:
    return PairSampler(pool, "train", 11, training_rules(32)).draw(150)


@settings(max_examples=15, deadline=None)
@given(start=st.integers(0, 149), length=st.integers(1, 100))
def test_a_pair_is_the_same_however_one_asks(
    pool: GalaxyPool, whole: PairBatch, start: int, length: int
) -> None:
    stop = min(start + length, 150)
    part = PairSampler(pool, "train", 11, training_rules(32)).draw_range(start, stop)
    expected = PairBatch(**{f.name: getattr(whole, f.name)[start:stop] for f in fields(PairBatch)})
    assert_same(part, expected)


def test_draw_goes_on_where_it_stopped(pool: GalaxyPool, whole: PairBatch) -> None:
    sampler = PairSampler(pool, "train", 11, training_rules(32))
    stamps = np.concatenate([sampler.draw(n).stamps for n in (10, 100, 40)])
    np.testing.assert_array_equal(stamps, whole.stamps)


@pytest.mark.parametrize("seed", [0, 12])
def test_seeds_differ(pool: GalaxyPool, whole: PairBatch, seed: int) -> None:
    other = PairSampler(pool, "train", seed, training_rules(32)).draw(5)
    assert not np.array_equal(other.stamps, whole.stamps[:5])


@pytest.mark.parametrize("split", SPLITS)
def test_a_split_uses_its_own_galaxies(pool: GalaxyPool, split: Split) -> None:
    batch = PairSampler(pool, split, 1, PairRules(stamp_size=32)).draw(64)
    assert np.isin(batch.galaxy_id, pool.galaxy_id[pool.rows(split)]).all()


def test_without_a_split_all_galaxies_pair(pool: GalaxyPool) -> None:
    batch = PairSampler(pool, None, 1, PairRules(stamp_size=32)).draw(640)
    assert np.unique(batch.galaxy_id).size > 0.9 * len(pool)


def test_a_pool_too_small_for_its_split_is_refused(pool: GalaxyPool) -> None:
    one = replace(pool, **{name: getattr(pool, name)[:1] for name in pool.columns})
    with pytest.raises(ConfigError, match="no two of 1 galaxies share a PSF"):
        PairSampler(one, None)


@pytest.mark.parametrize("size", [64, 128])
def test_truth_has_the_flux_and_place_it_says(pool: GalaxyPool, size: int) -> None:
    batch = PairSampler(pool, "train", 2, PairRules(stamp_size=size)).draw(64)
    inside = batch.truth.sum(axis=(2, 3)) / batch.flux
    assert np.median(inside[:, 0]) == pytest.approx(0.99, abs=0.03)
    assert inside.max() < 1.02
    grid = np.arange(size)
    mass_y = (batch.truth.sum(axis=3) * grid).sum(axis=2) / batch.truth.sum(axis=(2, 3))
    assert np.median(np.abs(mass_y[:, 0] - batch.true_yx[:, 0, 0])) < 0.5


def test_a_stamp_is_truth_and_white_noise(pool: GalaxyPool) -> None:
    batch = PairSampler(pool, "train", 3, PairRules(stamp_size=64)).draw(128)
    noise = (batch.stamps - batch.truth.sum(axis=1)) / batch.sigma[:, None, None]
    assert noise.std() == pytest.approx(1.0, abs=0.01)
    assert abs(noise.mean()) < 0.005
    assert abs((noise[:, 1:] * noise[:, :-1]).mean()) < 0.01
    # Filled to the edge: nothing gives the offset away.
    assert noise[:, 0].std() == pytest.approx(1.0, abs=0.03)


def test_the_seed_faithful_form_has_the_seeds_defects(pool: GalaxyPool) -> None:
    rules = PairRules(stamp_size=64, seed_faithful=True)
    batch = PairSampler(pool, "train", 3, rules).draw(128)
    noise = (batch.stamps - batch.truth.sum(axis=1)) / batch.sigma[:, None, None]
    moved = np.rint(batch.true_yx[:, 1] - batch.true_yx[:, 0]).astype(int)
    for image, (dy, dx) in zip(noise[:20], moved[:20], strict=True):
        covered = np.zeros((64, 64), bool)
        covered[max(0, dy) : 64 + min(0, dy), max(0, dx) : 64 + min(0, dx)] = True
        assert image[covered].std() == pytest.approx(2**0.5, abs=0.12)
        assert image[~covered].std() == pytest.approx(1.0, abs=0.12)
    np.testing.assert_array_equal(batch.central_yx, batch.true_yx[:, 0])


@pytest.mark.parametrize("weight", [0.0, 0.2, 0.4])
def test_correlated_noise_keeps_unit_rms(weight: float) -> None:
    noise = correlated_noise(64, np.full(20, weight), np.random.default_rng(4))
    assert noise.dtype == np.float32
    assert noise.std() == pytest.approx(1.0, abs=0.02)
    neighbours = float((noise[:, 1:] * noise[:, :-1]).mean())
    assert neighbours == pytest.approx(2 * weight / (1 + 2 * weight**2), abs=0.03)


def test_background_errors_shift_whole_stamps(pool: GalaxyPool) -> None:
    rules = PairRules(stamp_size=64, background_error=0.5)
    batch = PairSampler(pool, "train", 5, rules).draw(64)
    noise = (batch.stamps - batch.truth.sum(axis=1)) / batch.sigma[:, None, None]
    assert noise.mean(axis=(1, 2)).std() == pytest.approx(0.5, rel=0.3)


def test_turning_shows_every_orientation_of_a_galaxy(pool: GalaxyPool) -> None:
    batch = PairSampler(pool, None, 6, PairRules(stamp_size=64, centroid_error=False)).draw(1500)
    ids, count = np.unique(batch.galaxy_id[:, 0], return_counts=True)
    chosen = batch.galaxy_id[:, 0] == ids[count.argmax()]
    profiles = batch.truth[chosen, 0] / batch.flux[chosen, 0, None, None]
    assert 4 <= len({np.round(one, 5).tobytes() for one in profiles}) <= 8
