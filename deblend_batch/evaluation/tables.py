"""Scores as tables of text, for the terminal and the report."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from itertools import compress

from deblend_batch.evaluation.metrics import Metrics
from deblend_batch.evaluation.paper import PaperNumbers
from deblend_batch.evaluation.scores import Score
from deblend_batch.pages.page import Table

DETECTED_NOTE = (
    "Bias, median, sigma and NMAD of recovered minus true magnitude (mag). These, outliers (beyond 0.75 "
    "mag) and MAPE are of the detected members; 'failed' counts undetected members and outliers over all."
)

_HEADINGS = (
    *("n", "flux MAPE", "bias", "sigma", "outliers", "undetected", "failed"),
    *("median", "NMAD", "mag MAPE"),
)

INTERVAL_NOTE = (
    "Intervals of 95 % by bootstrap over galaxies. 'MAPE of all': flux MAPE, an undetected member being "
    "wrong by 100 %. '/ Cramér–Rao' (where it is known): scatter of the flux over its bound; 1 is the limit "
    "for known profiles. 'errors cover': share of fluxes within their stated one-sigma error; 68.3 % if "
    "these are right."
)

ROLES = ("pooled", "central", "companion")

_ROLE_TITLES = {
    "pooled": "Both members of each pair, pooled.",
    "central": "Centrals.",
    "companion": "Companions.",
}


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
        f"{metrics.n:,}",
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


def score_table(scores: Sequence[Score], role: str) -> Table:
    """Return the metrics of all methods."""
    note = f" {DETECTED_NOTE}" if role == "pooled" else ""
    rows = [((s.method,), s.members[role]) for s in scores]
    return _metrics_table(("method",), rows, _ROLE_TITLES[role] + note)


def interval_table(scores: Sequence[Score], role: str) -> Table:
    """Return the 95 % intervals, the physical limit and the coverage of stated errors."""
    columns = ("method", "bias", "sigma", "flux MAPE, %", "outliers, %", "failed, %")
    extra = ("MAPE of all", "/ Cramér–Rao", "errors cover")
    rows = [
        (
            score.method,
            interval(found, "bias"),
            interval(found, "sigma"),
            interval(found, "flux_mape", 100, 2),
            interval(found, "outlier_fraction", 100, 2),
            interval(found, "failure_fraction", 100, 2),
            percent(found.flux_mape_all),
            ratio(found.scatter_over_bound),
            percent(found.coverage),
        )
        for score in scores
        for found in [score.members[role]]
    ]
    return _known_columns(Table((*columns, *extra), rows, f"{_ROLE_TITLES[role]} 95 % intervals."))


def _known_columns(table: Table) -> Table:
    """Leave out the columns that hold nothing but dashes."""
    kept = [any(row[i] not in ("", "–") for row in table.rows) for i in range(len(table.columns))]
    rows = [list(compress(row, kept)) for row in table.rows]
    return Table(list(compress(table.columns, kept)), rows, table.caption)


def ratio(value: float) -> str:
    """Write a positive ratio with three digits or all before the point, a dash for NaN.

    Examples
    --------
    >>> ratio(0.9531), ratio(83.01), ratio(1553.2)
    ('0.95', '83.0', '1,553')
    """
    if math.isnan(value):
        return "–"
    digits = 2 if value < 9.995 else 1 if value < 99.95 else 0
    return f"{value:,.{digits}f}"


def iou_table(scores: Sequence[Score]) -> Table:
    """Return the IoU of methods with masks."""
    rows = [
        (s.method, f"{s.iou.n:,}", *(f"{v:.3f}" for v in _iou_numbers(s)))
        for s in scores
        if s.iou is not None
    ]
    columns = ("method", "members", "mean", "median", "central", "companion")
    return Table(
        columns,
        rows,
        "Intersection over union of members' masks (cut at 0.5) with the true ones, on the method's stamps.",
    )


def _iou_numbers(score: Score) -> tuple[float, ...]:
    if score.iou is None:
        return ()
    return (score.iou.mean, score.iou.median, score.iou.central, score.iou.companion)


def paper_tables(numbers: PaperNumbers) -> list[Table]:
    """Return the tables of the published comparison."""
    found = [((method, member), metrics) for (method, member), metrics in numbers.table.items()]
    return [
        _metrics_table(("method", "member"), found, "Members that SExtractor found."),
        _metrics_table(
            ("method",),
            [((method,), metrics) for method, metrics in numbers.pooled.items()],
            f"All {numbers.n_pairs:,} pairs, both members. {DETECTED_NOTE}",
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
