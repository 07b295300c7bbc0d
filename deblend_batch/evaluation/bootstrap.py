"""Bootstrap intervals of members that are not independent: whole galaxies are drawn.

A galaxy appears in many pairs and errs alike in all of them; drawing members would take every
appearance for new evidence and give intervals that are too short.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

Interval = tuple[float, float]
"""Lower and upper end."""

LEVEL = 0.95


def cluster_intervals(
    statistics: Callable[[NDArray[np.float64]], Mapping[str, NDArray[np.float64]]],
    contributions: NDArray[np.float64],
    clusters: NDArray[Any],
    *,
    draws: int,
    seed: int = 0,
) -> dict[str, Interval]:
    """Return percentile intervals of statistics under resampling of clusters.

    Parameters
    ----------
    statistics : callable
        From sums of shape (draws, k) to named numbers of shape (draws,).
    contributions : ndarray of float64, shape (n, k)
        What each row adds to the sums.
    clusters : ndarray, shape (n,)
        The cluster of each row, such as its galaxy; clusters are drawn with replacement, as many as
        there are, and each brings all of its rows.
    draws : int
        Number of draws; 0 returns no intervals.
    seed : int
        Seed of the draws.
    """
    if draws == 0 or len(clusters) == 0:
        return {}
    labels, cluster_of_row = np.unique(clusters, return_inverse=True)
    of_cluster = np.stack(
        [np.bincount(cluster_of_row, column, len(labels)) for column in contributions.T], axis=1
    )
    generator = np.random.default_rng(seed)
    totals = np.empty((draws, contributions.shape[1]))
    for draw in range(draws):
        chosen = generator.integers(len(labels), size=len(labels))
        totals[draw] = np.bincount(chosen, minlength=len(labels)) @ of_cluster
    return {name: _central(values) for name, values in statistics(totals).items()}


def _central(values: NDArray[np.float64]) -> Interval:
    finite = values[np.isfinite(values)]
    if len(finite) == 0:
        return (float("nan"), float("nan"))
    low, high = np.quantile(finite, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return (float(low), float(high))
