from __future__ import annotations

import math

import numpy as np
import pytest

from deblend_batch.evaluation import group_tables, tables
from deblend_batch.evaluation.members import Recovered, members_of_pairs
from deblend_batch.evaluation.metrics import measure
from deblend_batch.evaluation.scores import Score, score


@pytest.mark.parametrize(
    ("fraction", "text"),
    [
        (0.07566, "7.57 %"),
        (0.29824, "29.8 %"),
        (0.0996, "9.96 %"),
        (0.09996, "10.0 %"),
        (0.00002, "0.00 %"),
        (0.0, "0 %"),
        (1.25, "125.0 %"),
        (math.nan, "–"),
    ],
)
def test_percent(fraction: float, text: str) -> None:
    assert tables.percent(fraction) == text


@pytest.mark.parametrize(
    ("value", "signed", "text"),
    [
        (0.0152, True, "+0.015"),
        (-0.0152, True, "-0.015"),
        (-0.0001, True, "+0.000"),
        (0.1203, False, "0.120"),
        (math.nan, True, "–"),
    ],
)
def test_magnitudes(value: float, signed: bool, text: str) -> None:
    assert tables.magnitudes(value, signed=signed) == text


@pytest.mark.parametrize(
    ("value", "text"),
    [(0.953, "0.95"), (9.996, "10.0"), (83.0, "83.0"), (278.4, "278"), (1553.0, "1,553")],
)
def test_ratio(value: float, text: str) -> None:
    assert tables.ratio(value) == text


def test_ratio_of_what_is_not_known_is_a_dash() -> None:
    assert tables.ratio(math.nan) == "–"


def _score(bound: np.ndarray | None) -> Score:
    rng = np.random.default_rng(0)
    mag = rng.uniform(20, 22, (50, 2))
    members = members_of_pairs(
        flux=10 ** (-0.4 * (mag - 25)),
        mag=mag,
        radius=np.full((50, 2), 3.0),
        kind=np.full((50, 2), "sph"),
        galaxy_id=np.arange(100).reshape(50, 2),
        separation=rng.uniform(2, 20, 50),
        bound=bound,
    )
    return score(members, Recovered("ours", 1.05 * members.flux), 10)


@pytest.mark.parametrize("role", tables.ROLES)
def test_columns_of_which_nothing_is_known_are_left_out(role: str) -> None:
    known = tables.interval_table([_score(np.full((50, 2), 0.1))], role)
    unknown = tables.interval_table([_score(None)], role)
    assert set(known.columns) - set(unknown.columns) == {"/ Cramér–Rao"}


def test_tables_of_groups_show_what_is_known() -> None:
    by_bound = group_tables.group_tables([_score(np.full((50, 2), 0.1))], "px")
    without = group_tables.group_tables([_score(None)], "px")
    assert len(without) == 6
    assert by_bound[:6] == without
    assert by_bound[6].caption.startswith("Scatter of the flux over the Cramér–Rao bound, by true")
    assert [row[0] for row in without[0].rows] == ["20 to 21", "21 to 22"]


def test_intervals_are_ranges_or_empty() -> None:
    found = measure(np.linspace(0.9, 1.1, 50), np.ones(50), draws=20)
    low, high = found.intervals["flux_mape"]
    assert tables.interval(found, "flux_mape", 100, 1) == f"{100 * low:.1f} to {100 * high:.1f}"
    assert tables.interval(measure([1.0], [1.0]), "bias") == ""
