from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from deblend_batch.evaluation.methods import baselines
from deblend_batch.evaluation.methods.baselines import Photometry
from deblend_batch.simulate.pairs.batch import PairBatch

RECIPES: dict[str, Callable[[PairBatch], Photometry]] = {
    "seed": lambda b: baselines.seed_recipe(b.stamps, b.true_yx),
    "fair": lambda b: baselines.fair_recipe(b.stamps, b.true_yx, b.radius_px),
    "split": lambda b: baselines.nearest_split(b.stamps, b.true_yx),
    "profiles": lambda b: baselines.true_profiles(b.stamps, b.truth, b.flux),
}


@pytest.mark.parametrize(
    ("name", "error"), [("seed", 0.4), ("fair", 0.1), ("split", 0.1), ("profiles", 0.02)]
)
def test_well_separated_gaussians_are_recovered(
    gaussian_pairs: PairBatch, name: str, error: float
) -> None:
    found = RECIPES[name](gaussian_pairs)
    assert found.flux.shape == (40, 2)
    assert found.detection.tolist() == [2] * 40
    ratio = found.flux / gaussian_pairs.flux
    assert np.median(np.abs(ratio - 1)) < error


@pytest.mark.parametrize("name", RECIPES)
def test_a_baseline_scales_with_the_image(gaussian_pairs: PairBatch, name: str) -> None:
    one = RECIPES[name](gaussian_pairs).flux
    scaled = {k: getattr(gaussian_pairs, k) for k in gaussian_pairs.__dataclass_fields__}
    scaled |= {k: 4 * scaled[k] for k in ("stamps", "truth", "flux")}
    np.testing.assert_allclose(RECIPES[name](PairBatch(**scaled)).flux, 4 * one, rtol=1e-4)


def test_the_seed_recipe_scales_isophotal_fluxes_to_its_own_zero_point() -> None:
    assert pytest.approx(1.306, abs=5e-4) == baselines.SEED_FLUX_SCALE


@pytest.mark.parametrize(("kept", "flag"), [(0, 0), (1, 1)])
@pytest.mark.parametrize("name", ["seed", "fair"])
def test_a_lone_object_is_the_nearer_member(
    gaussian_pairs: PairBatch, name: str, kept: int, flag: int
) -> None:
    noise = gaussian_pairs.stamps - gaussian_pairs.truth.sum(axis=1)
    changed = {k: getattr(gaussian_pairs, k) for k in gaussian_pairs.__dataclass_fields__}
    changed["stamps"] = (noise + gaussian_pairs.truth[:, kept]).astype(np.float32)
    found = RECIPES[name](PairBatch(**changed))
    assert found.detection.tolist() == [flag] * 40
    assert np.isnan(found.flux[:, 1 - kept]).all()


@pytest.mark.parametrize("name", ["seed", "fair"])
def test_an_empty_stamp_has_no_detection(gaussian_pairs: PairBatch, name: str) -> None:
    noise = (gaussian_pairs.stamps - gaussian_pairs.truth.sum(axis=1))[:3]
    arguments = (noise.astype(np.float32), gaussian_pairs.true_yx[:3])
    found = (
        baselines.seed_recipe(*arguments)
        if name == "seed"
        else baselines.fair_recipe(*arguments, gaussian_pairs.radius_px[:3])
    )
    assert np.isnan(found.flux).all()
    assert found.detection.tolist() == [-1] * 3


def test_blended_gaussians_are_one_object_for_the_fair_recipe(
    pairs_of_gaussians: Callable[..., PairBatch],
) -> None:
    close = pairs_of_gaussians(20, separation_px=3.0)
    found = RECIPES["fair"](close)
    assert (np.isfinite(found.flux).sum(axis=1) <= 1).mean() > 0.8


def test_the_split_conserves_flux_and_gives_third_sources_theirs(gaussian_pairs: PairBatch) -> None:
    whole = baselines.nearest_split(gaussian_pairs.stamps, gaussian_pairs.true_yx).flux
    np.testing.assert_allclose(whole.sum(axis=1), gaussian_pairs.stamps.sum(axis=(1, 2)), rtol=1e-4)
    companions = gaussian_pairs.true_yx[:, 1:]
    split = baselines.nearest_split(
        gaussian_pairs.stamps,
        np.stack([gaussian_pairs.true_yx[:, 0], np.full((40, 2), -99.0)], axis=1),
        companions,
    )
    np.testing.assert_allclose(split.flux[:, 0], whole[:, 0], rtol=1e-4)
    np.testing.assert_allclose(split.flux[:, 1], 0)


def test_least_squares_with_the_true_profiles_reaches_the_bound(
    pairs_of_gaussians: Callable[..., PairBatch],
) -> None:
    pairs = pairs_of_gaussians(600, separation_px=6.0)
    pull = (RECIPES["profiles"](pairs).flux - pairs.flux) / pairs.cramer_rao()
    assert pull.std() == pytest.approx(1.0, abs=0.08)
