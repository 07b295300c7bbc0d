from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from deblend_batch.evaluation.errors import EvaluationError
from deblend_batch.evaluation.methods.method import Estimate, Method, crop
from deblend_batch.evaluation.pairsets import EXAMPLE_RANKS, run_methods
from deblend_batch.simulate.galaxies.population import KINDS
from deblend_batch.simulate.pairs.batch import PairBatch


def _known(batch: PairBatch) -> Estimate:
    """A method that errs by ever more, and draws the true masks."""
    seen = crop(batch, 48, "known")
    error = np.linspace(0, 0.5, 2 * len(batch)).reshape(-1, 2)
    masks = seen.masks().astype(np.float32)
    return Estimate(batch.flux * (1 + error), seen, 0.1 * batch.flux.astype(float), masks)


def _blind(batch: PairBatch) -> Estimate:
    return Estimate(np.full((len(batch), 2), np.nan), batch)


METHODS = (Method("known", _known), Method("blind", _blind))


def test_batches_are_joined_in_order(pairs_of_gaussians: Callable[..., PairBatch]) -> None:
    batches = [pairs_of_gaussians(n, seed) for seed, n in enumerate((5, 3))]
    found = run_methods(iter(batches), METHODS)
    assert len(found.members) == 16
    expected = np.concatenate([batch.flux.ravel() for batch in batches])
    np.testing.assert_allclose(found.members.flux, expected)
    kinds = np.array(KINDS)[np.concatenate([batch.kind.ravel() for batch in batches])]
    assert found.members.kind.tolist() == kinds.tolist()
    bound = np.concatenate([batch.cramer_rao().ravel() for batch in batches])
    assert found.members.bound is not None
    np.testing.assert_allclose(found.members.bound, bound)
    np.testing.assert_allclose(found.members.separation, 14.0, rtol=1e-4)


def test_masks_are_compared_on_the_methods_own_stamps(gaussian_pairs: PairBatch) -> None:
    known, blind = run_methods([gaussian_pairs], METHODS).recovered
    assert known.iou is not None
    np.testing.assert_allclose(known.iou, 1.0)
    assert blind.iou is None
    assert np.isnan(blind.flux).all()


@pytest.mark.parametrize("threshold", [1.5, 10.0])
def test_true_masks_follow_the_sets_threshold(gaussian_pairs: PairBatch, threshold: float) -> None:
    known = run_methods([gaussian_pairs], METHODS, mask_threshold=threshold).recovered[0]
    assert known.iou is not None
    assert bool(known.iou.mean() < 0.9) is (threshold != 1.5)


def test_examples_are_chosen_by_rank(gaussian_pairs: PairBatch) -> None:
    examples = run_methods([gaussian_pairs], METHODS).examples
    ranks = [example.rank for example in examples]
    np.testing.assert_allclose(ranks, EXAMPLE_RANKS, atol=0.03)
    errors = [np.abs(e.flux / e.true_flux - 1).mean() for e in examples]
    assert errors == sorted(errors)
    assert {e.stamp.shape for e in examples} == {(48, 48)}


def test_what_each_method_saw_is_counted(pairs_of_gaussians: Callable[..., PairBatch]) -> None:
    batches = [pairs_of_gaussians(10, seed, separation_px=26.0) for seed in range(2)]
    found = run_methods(batches, METHODS)
    small = [crop(batch, 48, "known").companion_yx for batch in batches]
    outside = sum(int(((yx < -0.5) | (yx > 47.5)).any(axis=1).sum()) for yx in small)
    assert found.stamp_px == 64
    assert outside > 0
    assert [(view.stamp_px, view.n_outside) for view in found.views] == [(48, outside), (64, 0)]


def test_a_method_that_finds_nothing_has_no_examples(gaussian_pairs: PairBatch) -> None:
    assert run_methods([gaussian_pairs], METHODS[1:]).examples == ()


@pytest.mark.parametrize("batches", [0, 1])
def test_no_pairs_is_one_line(pairs_of_gaussians: Callable[..., PairBatch], batches: int) -> None:
    empty = [pairs_of_gaussians(0)] * batches
    with pytest.raises(EvaluationError, match="has no pairs"):
        run_methods(empty, METHODS)
