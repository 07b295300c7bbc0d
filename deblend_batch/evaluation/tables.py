"""Scores as tables of text, for the terminal and the report."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

from deblend_batch.evaluation.metrics import Metrics
from deblend_batch.evaluation.paper import PaperNumbers
from deblend_batch.evaluation.scores import Score
from deblend_batch.pages.page import Table

DETECTED_NOTE = (
    "Bias, sigma, outliers and flux error are of the detected members; 'failed' counts undetected "
    "members and outliers over all members."
)

_HEADINGS = (
    *("n", "flux MAPE", "bias", "sigma", "outliers", "undetected", "failed"),
    *("median", "NMAD", "mag MAPE"),
)

ROLES = ("central", "companion", "pooled")


def percent(fraction: float) -> str:
    """Write a fraction in per cent: two decimals below ten, else one; a dash for NaN.

    Examples
    --------
    >>> percent(0.0757), percent(0.298), percent(float("nan"))
    ('7.57 %', '29.8 %', '–')
    """
    if math.isnan(fraction):
        return "–"
    if fraction == 0:
        return "0 %"
    return f"{100 * fraction:.2f} %" if abs(fraction) < 0.09995 else f"{100 * fraction:.1f} %"


def magnitudes(value: float, *, signed: bool = False) -> str:
    """Write magnitudes with three decimals, a dash for NaN."""
    if math.isnan(value):
        return "–"
    rounded = round(value, 3) + 0.0  # never "-0.000"
    return f"{rounded:+.3f}" if signed else f"{rounded:.3f}"


def interval(metrics: Metrics, name: str, scale: float = 1.0, digits: int = 3) -> str:
    """Write the 95 % interval of a metric, empty where there is none."""
    if name not in metrics.intervals:
        return ""
    ends = (round(scale * end, digits) + 0.0 for end in metrics.intervals[name])
    return " to ".join(f"{end:.{digits}f}" for end in ends)


def _cells(metrics: Metrics) -> list[str]:
    return [
        f"{metrics.n}",
        percent(metrics.flux_mape),
        magnitudes(metrics.bias, signed=True),
        magnitudes(metrics.sigma),
        percent(metrics.outlier_fraction),
        percent(metrics.undetected_fraction),
        percent(metrics.failure_fraction),
        magnitudes(metrics.bias_median, signed=True),
        magnitudes(metrics.nmad),
        percent(metrics.mag_mape),
    ]


def _metrics_table(
    labels: Sequence[str], rows: Iterable[tuple[Sequence[str], Metrics]], caption: str
) -> Table:
    return Table(
        columns=(*labels, *_HEADINGS),
        rows=[(*names, *_cells(metrics)) for names, metrics in rows],
        caption=caption,
    )


def score_table(scores: Sequence[Score]) -> Table:
    """Return the table of methods and members: central, companion and pooled."""
    rows = [((s.method, role), s.members[role]) for role in ROLES for s in scores]
    return _metrics_table(("method", "member"), rows, DETECTED_NOTE)


def interval_table(scores: Sequence[Score]) -> Table:
    """Return pooled 95 % intervals, the physical limit and the coverage of stated errors."""
    columns = ("method", "bias", "sigma", "outliers, %", "flux MAPE, %")
    extra = ("undet. = 100 %", "/ Cramér–Rao", "errors cover")
    rows = [
        (
            score.method,
            interval(pooled, "bias"),
            interval(pooled, "sigma"),
            interval(pooled, "outlier_fraction", 100, 2),
            interval(pooled, "flux_mape", 100, 2),
            percent(pooled.flux_mape_all),
            "–" if math.isnan(pooled.scatter_over_bound) else f"{pooled.scatter_over_bound:.2f}",
            percent(pooled.coverage),
        )
        for score in scores
        for pooled in [score.members["pooled"]]
    ]
    caption = (
        "95 % intervals by bootstrap over galaxies, members pooled. Then: flux MAPE with undetected members "
        "as 100 %; scatter over the Cramér–Rao bound; share of members within their error bars."
    )
    return Table((*columns, *extra), rows, caption)


def group_table(scores: Sequence[Score], by: str, heading: str) -> Table:
    """Return the flux error of each method over groups of members.

    Parameters
    ----------
    scores : sequence of Score
        The methods: a column each.
    by : str
        A key of :attr:`Score.groups`.
    heading : str
        What the groups are, with unit.

    Returns
    -------
    Table
        One row a group; without rows where no group is known.
    """
    groups = [score.groups[by] for score in scores]
    labels = dict.fromkeys(label for group in groups for label in group)
    rows = [
        (
            label,
            f"{max(group[label].n for group in groups if label in group)}",
            *(percent(group[label].flux_mape) if label in group else "–" for group in groups),
        )
        for label in labels
    ]
    return Table((heading, "n", *(score.method for score in scores)), rows, f"By {heading}.")


def iou_table(scores: Sequence[Score]) -> Table:
    """Return the IoU of methods with masks."""
    rows = [
        (s.method, f"{s.iou.n}", *(f"{v:.3f}" for v in _iou_numbers(s)))
        for s in scores
        if s.iou is not None
    ]
    columns = ("method", "members", "mean", "median", "central", "companion")
    return Table(columns, rows, "Intersection over union with the true masks, masks cut at 0.5.")


def _iou_numbers(score: Score) -> tuple[float, ...]:
    if score.iou is None:
        return ()
    return (score.iou.mean, score.iou.median, score.iou.central, score.iou.companion)


def paper_tables(numbers: PaperNumbers) -> list[Table]:
    """Return the tables of the published comparison.

    Parameters
    ----------
    numbers : PaperNumbers
        Its numbers.

    Returns
    -------
    list of Table
        The six rows of the figures, all pairs, the closest pairs, errors by kind of member, and the
        correlations of residuals.
    """
    found = [((method, member), metrics) for (method, member), metrics in numbers.table.items()]
    return [
        _metrics_table(("method", "member"), found, "Members that SExtractor found."),
        _metrics_table(
            ("method",),
            [((method,), metrics) for method, metrics in numbers.pooled.items()],
            f"All {numbers.n_pairs} pairs, both members. {DETECTED_NOTE}",
        ),
        _metrics_table(
            ("method",),
            [((method,), metrics) for method, metrics in numbers.closest.items()],
            "Closest pairs: separation below half the sum of the half-light radii.",
        ),
        Table(
            ("method", "F1 + F2", "brighter", "fainter", "irregular", "correlation of members"),
            [
                (
                    method,
                    percent(total),
                    percent(numbers.brighter_flux_mape[method]),
                    percent(numbers.fainter_flux_mape[method]),
                    percent(numbers.irregular_flux_mape[method]),
                    f"{numbers.member_correlation[method]:+.2f}",
                )
                for method, total in numbers.sum_flux_mape.items()
            ],
            "Flux MAPE of the sum and of kinds of members; correlation of the members' residuals. "
            "The residuals of blend2flux and blend2mask2flux correlate at "
            f"{numbers.network_correlation:+.2f}.",
        ),
    ]
