from __future__ import annotations

import pytest
from matplotlib.figure import Figure

from deblend_batch.evaluation.report.axes import scale_log, scale_medians


@pytest.mark.parametrize(
    ("low", "high"), [(0.3, 0.4), (2, 30), (0.02, 1.5), (0.01, 20), (1, 9000), (5, 5)]
)
def test_a_logarithmic_axis_has_some_ticks_and_holds_all_values(low: float, high: float) -> None:
    axes = Figure().add_subplot()
    axes.plot([0, 1], [low, high])
    scale_log([axes], [axes])
    bottom, top = axes.get_ylim()
    assert bottom < low <= high < top
    assert 1 <= len(axes.get_yticks()) <= 8


def test_nothing_positive_leaves_an_axis_as_it_is() -> None:
    axes = Figure().add_subplot()
    axes.plot([0, 1], [0.0, float("nan")])
    scale_log([axes], [axes])
    assert axes.get_yscale() == "linear"


@pytest.mark.parametrize("most", [0.01, 0.4, 2.0])
def test_medians_are_drawn_round_zero(most: float) -> None:
    axes = Figure().add_subplot()
    axes.plot([0, 1], [-most, most / 2])
    scale_medians([axes], [axes])
    bottom, top = axes.get_ylim()
    assert bottom == -top < -most
    assert 0 in axes.get_yticks()
