from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from deblend_batch.evaluation.bootstrap import cluster_intervals


def _mean(values: np.ndarray) -> Callable[[np.ndarray], dict[str, float]]:
    return lambda rows: {"mean": float(values[rows].mean())}


def test_no_draws_no_intervals() -> None:
    assert cluster_intervals(_mean(np.ones(3)), np.arange(3), draws=0) == {}


def test_the_interval_of_independent_values_is_that_of_the_mean() -> None:
    values = np.random.default_rng(0).normal(5, 1, 400)
    low, high = cluster_intervals(_mean(values), np.arange(400), draws=500)["mean"]
    assert low < values.mean() < high
    assert high - low == pytest.approx(4 * 1 / 20, rel=0.15)


def test_members_of_one_galaxy_count_as_one() -> None:
    values = np.random.default_rng(0).normal(5, 1, 100)
    clusters = np.repeat(np.arange(100), 9)
    alone = cluster_intervals(_mean(values), np.arange(100), draws=400)["mean"]
    repeated = cluster_intervals(_mean(np.repeat(values, 9)), clusters, draws=400)["mean"]
    assert repeated == pytest.approx(alone)


@pytest.mark.parametrize("seed", [0, 5])
def test_intervals_are_reproducible(seed: int) -> None:
    values = np.arange(20.0)
    first, again = (
        cluster_intervals(_mean(values), np.arange(20), draws=50, seed=seed) for _ in range(2)
    )
    assert first == again


def test_undefined_statistics_have_nan_ends() -> None:
    ends = cluster_intervals(lambda _: {"mean": float("nan")}, np.arange(4), draws=5)["mean"]
    assert np.isnan(ends).all()
