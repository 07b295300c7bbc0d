from __future__ import annotations

import numpy as np
import pytest

from deblend_batch.evaluation.errors import EvaluationError
from deblend_batch.evaluation.methods import method as methods
from deblend_batch.evaluation.methods import sextractor
from deblend_batch.models import load_model
from deblend_batch.models.model import Model
from deblend_batch.simulate.pairs.batch import PairBatch


@pytest.mark.parametrize("size", [64, 48, 33, 32])
def test_a_crop_keeps_what_lies_where(gaussian_pairs: PairBatch, size: int) -> None:
    small = methods.crop(gaussian_pairs, size, "ours")
    start = 32 - size // 2
    assert small.stamps.shape == (40, size, size)
    np.testing.assert_array_equal(
        small.stamps, gaussian_pairs.stamps[:, start : start + size, start : start + size]
    )
    for name in ("central_yx", "companion_yx", "true_yx"):
        moved = getattr(small, name) + start
        np.testing.assert_allclose(moved, getattr(gaussian_pairs, name), atol=1e-5)
    np.testing.assert_array_equal(small.flux, gaussian_pairs.flux)


def test_stamps_too_small_for_a_model_are_one_line(gaussian_pairs: PairBatch) -> None:
    with pytest.raises(EvaluationError, match="stamps of 64 px and ours takes 128 px"):
        methods.crop(gaussian_pairs, 128, "ours")


def test_a_model_is_a_method(gaussian_pairs: PairBatch, tiny_model: str) -> None:
    model = load_model(tiny_model)
    assert isinstance(model, Model)
    method = methods.model_method(model)
    estimate = method.estimate(gaussian_pairs)
    assert method.name == model.card.name
    assert estimate.seen.stamps.shape[1:] == (model.card.stamp_size,) * 2
    direct = model.predict(
        estimate.seen.stamps,
        estimate.seen.companion_yx,
        estimate.seen.central_yx,
        estimate.seen.neighbours_yx,
    )
    np.testing.assert_array_equal(estimate.flux, direct.flux)


@pytest.mark.parametrize("name", [n for n in methods.BASELINES if n != "sextractor"])
def test_every_baseline_measures(gaussian_pairs: PairBatch, name: str) -> None:
    (method,) = methods.baseline_methods([name])
    flux = method.estimate(gaussian_pairs).flux
    assert np.median(np.abs(flux / gaussian_pairs.flux - 1)) < 0.4
    assert method.is_limit is (name == "profiles")


def test_an_unknown_baseline_is_one_line() -> None:
    with pytest.raises(EvaluationError, match="'sepp' is unknown; use split, sep-seed, sep-fair"):
        methods.baseline_methods(["sepp"])


def test_an_absent_sextractor_is_left_out_unless_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sextractor, "PROGRAMS", ())
    assert "sextractor" not in methods.available_baselines()
    with pytest.raises(EvaluationError, match="not installed"):
        methods.baseline_methods(["sextractor"])
