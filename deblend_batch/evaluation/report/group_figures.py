"""Figures of errors over groups of members: each function returns a PNG."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from deblend_batch.evaluation.group_tables import without_unit
from deblend_batch.evaluation.report.axes import legend_above, scale_log
from deblend_batch.evaluation.report.figures import LEAST_IN_BIN, Styles
from deblend_batch.evaluation.scores import Score
from deblend_batch.pages.plotting import png, style

_STEP = 0.07
_LEAST_RANGE = 5.0  # per cent

Floats = NDArray[np.float64]


def errors_and_failures(scores: Sequence[Score], by: str, xlabel: str, styles: Styles) -> bytes:
    """Draw the flux error of the detected and the share of failures over groups of members.

    Parameters
    ----------
    scores : sequence of Score
        The methods.
    by : str
        A key of :attr:`Score.groups`.
    xlabel : str
        What the groups are, with unit.
    styles : mapping of str to MethodStyle
        Of each method.

    Returns
    -------
    bytes
        PNG of two panels, with 95 % intervals as bars.
    """
    with style():
        figure = Figure(figsize=(4.8, 5.2), layout="constrained")
        error, failures = figure.subplots(2, 1, sharex=True, height_ratios=[3, 2])
        _draw(error, scores, by, "flux_mape", 100.0, styles)
        _draw(failures, scores, by, "failure_fraction", 100.0, styles)
        scale_log([error], [error])
        error.set_ylabel("flux MAPE (%)")
        failures.set(ylabel="failed (%)", ylim=(None, max(failures.get_ylim()[1], _LEAST_RANGE)))
        _name_groups(failures, scores, by, xlabel)
        legend_above(figure, error)
        return png(figure)


def scatter_over_bound(scores: Sequence[Score], by: str, xlabel: str, styles: Styles) -> bytes:
    """Draw the scatter of the flux over its Cramer-Rao bound over groups of members.

    Parameters
    ----------
    scores : sequence of Score
        The methods.
    by : str
        A key of :attr:`Score.groups`.
    xlabel : str
        What the groups are, with unit.
    styles : mapping of str to MethodStyle
        Of each method.

    Returns
    -------
    bytes
        PNG; a line marks the bound.
    """
    with style():
        figure = Figure(figsize=(4.8, 4.4), layout="constrained")
        axes = figure.add_subplot()
        _draw(axes, scores, by, "scatter_over_bound", 1.0, styles)
        axes.axhline(1, color="#1b2430", lw=0.9)
        scale_log([axes], [axes])
        axes.set_ylabel("scatter / Cramér–Rao bound")
        _name_groups(axes, scores, by, xlabel)
        legend_above(figure, axes)
        return png(figure)


def _draw(
    axes: Any, scores: Sequence[Score], by: str, quantity: str, factor: float, styles: Styles
) -> None:
    """Draw one line a method, the methods a little beside each other."""
    labels = _labels(scores, by)
    for rank, score in enumerate(scores):
        look, groups = styles[score.method], score.groups[by]
        shown = [groups[k] if k in groups and groups[k].n >= LEAST_IN_BIN else None for k in labels]
        values = factor * np.array([getattr(m, quantity) if m else np.nan for m in shown])
        ends = factor * np.array(
            [m.intervals.get(quantity, (np.nan, np.nan)) if m else (np.nan, np.nan) for m in shown]
        )
        place = np.arange(len(labels)) + _STEP * (rank - (len(scores) - 1) / 2)
        axes.vlines(place, *ends.T, color=look.colour, lw=1.0, alpha=0.55)
        axes.plot(
            place,
            values,
            color=look.colour,
            marker=look.marker,
            ls="none" if by == "type" else look.line,
            label=score.method,
        )


def _labels(scores: Sequence[Score], by: str) -> list[str]:
    return list(dict.fromkeys(label for score in scores for label in score.groups[by]))


def _name_groups(axes: Any, scores: Sequence[Score], by: str, xlabel: str) -> None:
    """Name the groups below the axis, each with its number of members."""
    labels = _labels(scores, by)
    sizes = [max(s.groups[by][k].n for s in scores if k in s.groups[by]) for k in labels]
    bare = [without_unit(label) for label in labels]
    to = "\nto " if any("-" in label for label in bare) else "–"
    names = [k.replace(" to ", to).replace("-", "−").replace("over ", "> ") for k in bare]
    ticks = [f"{name}\n({n:,})" for name, n in zip(names, sizes, strict=True)]
    axes.set_xticks(range(len(labels)), ticks, fontsize=9)
    axes.set_xlim(-0.5, len(labels) - 0.5)
    axes.grid(visible=False, axis="x")
    axes.set_xlabel(xlabel)
