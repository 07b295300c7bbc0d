from __future__ import annotations

import numpy as np
import pytest

from deblend_batch.evaluation.bootstrap import cluster_intervals


def _mean(totals: np.ndarray) -> dict[str, np.ndarray]:
    return {"mean": totals[:, 0] / totals[:, 1]}


def _interval(
    values: np.ndarray, clusters: np.ndarray, draws: int, seed: int = 0
) -> tuple[float, float]:
    contributions = np.stack([values, np.ones(len(values))], axis=1)
    return cluster_intervals(_mean, contributions, clusters, draws=draws, seed=seed)["mean"]


def test_no_draws_no_intervals() -> None:
    assert cluster_intervals(_mean, np.ones((3, 2)), np.arange(3), draws=0) == {}


def test_the_interval_of_independent_values_is_that_of_the_mean() -> None:
    values = np.random.default_rng(0).normal(5, 1, 400)
    low, high = _interval(values, np.arange(400), 500)
    assert low < values.mean() < high
    assert high - low == pytest.approx(4 * 1 / 20, rel=0.15)


def test_members_of_one_galaxy_count_as_one() -> None:
    values = np.random.default_rng(0).normal(5, 1, 100)
    clusters = np.repeat(np.arange(100), 9)
    alone = _interval(values, np.arange(100), 400)
    assert _interval(np.repeat(values, 9), clusters, 400) == pytest.approx(alone)


@pytest.mark.parametrize("seed", [0, 5])
def test_intervals_are_reproducible(seed: int) -> None:
    values = np.arange(20.0)
    first, again = (_interval(values, np.arange(20), 50, seed) for _ in range(2))
    assert first == again


def test_sums_give_what_drawn_rows_give() -> None:
    values, clusters = np.random.default_rng(3).normal(size=60), np.arange(60) // 3
    generator, means = np.random.default_rng(7), []
    for _ in range(40):
        drawn = generator.integers(20, size=20)
        means.append(np.mean([values[clusters == each] for each in drawn]))
    assert _interval(values, clusters, 40, 7) == pytest.approx(np.quantile(means, [0.025, 0.975]))


def test_undefined_statistics_have_nan_ends() -> None:
    ends = cluster_intervals(
        lambda totals: {"mean": np.full(len(totals), np.nan)},
        np.ones((4, 1)),
        np.arange(4),
        draws=5,
    )["mean"]
    assert np.isnan(ends).all()
