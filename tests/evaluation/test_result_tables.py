from __future__ import annotations

import math

import numpy as np
import pytest

from deblend_batch.evaluation import tables
from deblend_batch.evaluation.metrics import measure


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


def test_intervals_are_ranges_or_empty() -> None:
    found = measure(np.linspace(0.9, 1.1, 50), np.ones(50), draws=20)
    low, high = found.intervals["flux_mape"]
    assert tables.interval(found, "flux_mape", 100, 1) == f"{100 * low:.1f} to {100 * high:.1f}"
    assert tables.interval(measure([1.0], [1.0]), "bias") == ""
