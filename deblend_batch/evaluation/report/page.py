"""The evaluation as one page."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import compress

from deblend_batch import storage
from deblend_batch.evaluation import group_tables, tables
from deblend_batch.evaluation.evaluation import Evaluation
from deblend_batch.evaluation.members import Recovered
from deblend_batch.evaluation.metrics import Metrics
from deblend_batch.evaluation.pairsets import Example
from deblend_batch.evaluation.report import example_figure, figures, group_figures
from deblend_batch.evaluation.report.figures import LEAST_IN_BIN, Styles
from deblend_batch.evaluation.report.styles import method_styles
from deblend_batch.evaluation.scores import Score
from deblend_batch.pages.page import Figure, Number, Section, Table, render_page

_ROLES = ("central", "companion")

_DEFINITIONS = """\
dmag is the recovered minus the true magnitude. Bias is its mean, median its median; sigma is its \
standard deviation and NMAD 1.4826 times its median absolute deviation. An outlier is wrong by more than \
0.75 mag. Flux MAPE is the mean of |F − F_true| / F_true, mag MAPE the mean of |dmag| / mag_true.

Undetected is a member to which the method gives no flux. None of the above is over such members; they \
are counted, and as failures: 'failed' is the share of all members that are undetected or outliers. \
'MAPE of all' is the flux MAPE with an undetected member wrong by 100 %.

Intervals are 95 % bootstrap intervals in which whole galaxies are drawn, since one galaxy is in many \
pairs. Where no outlier was seen among n members, the interval is 0 to 0, though the share may be up to \
3 / n. The Cramér–Rao bound is the smallest scatter of a flux that the noise allows if both profiles are \
known; the scatter over it is the NMAD of (F − F_true) / bound. It is large for bright galaxies, whose \
profiles and not whose noise limit every method.

IoU is the intersection over union of a member's mask with the true one, in pixels; the predicted mask is \
where the probability exceeds 0.5, the true one where the member alone exceeds an isophote. Re is the \
half-light radius along the major axis, before the PSF."""


def write_report(evaluation: Evaluation, url: str, options: storage.Options | None = None) -> None:
    """Write an evaluation as one self-contained HTML page.

    Parameters
    ----------
    evaluation : Evaluation
        Scores, members and examples.
    url : str
        Path or URL of the page.
    options : mapping, optional
        fsspec storage options.
    """
    storage.write_bytes(url, render_report(evaluation).encode(), options)


def render_report(evaluation: Evaluation) -> str:
    """Render an evaluation as one self-contained HTML page.

    Parameters
    ----------
    evaluation : Evaluation
        Scores, members and examples.
    """
    shown = [score.method not in evaluation.limits for score in evaluation.scores]
    scores = list(compress(evaluation.scores, shown))
    styles = method_styles([score.method for score in scores])
    sections = [
        _summary(evaluation, scores, styles),
        _scatter(evaluation, scores, list(compress(evaluation.recovered, shown)), styles),
        _curves(scores, styles),
        _groups(evaluation, scores, styles),
        _masks(scores, styles),
        _examples(evaluation.examples),
        Section(
            "Intervals",
            _scope(evaluation) + tables.INTERVAL_NOTE,
            table=evaluation.interval_tables(),
        ),
        _provenance(evaluation),
        Section("Definitions", _DEFINITIONS),
    ]
    return render_page(evaluation.title, evaluation.source, [s for s in sections if s is not None])


def _summary(evaluation: Evaluation, scores: Sequence[Score], styles: Styles) -> Section:
    pooled: Mapping[str, Metrics] = {each.method: each.members["pooled"] for each in scores}
    if evaluation.paper is not None:
        pooled = evaluation.paper.pooled
    cards = [_card(name, metrics, styles[name].colour) for name, metrics in pooled.items()]
    notes = [
        *evaluation.notes,
        "Flux MAPE of centrals and companions together, 95 % interval below:",
    ]
    return Section("Summary", "\n\n".join(notes), numbers=cards, table=evaluation.tables())


def _card(method: str, metrics: Metrics, colour: str) -> Number:
    lines = [tables.interval(metrics, "flux_mape", 100, 2) + " %"] if metrics.intervals else []
    bias, sigma = tables.magnitudes(metrics.bias, signed=True), tables.magnitudes(metrics.sigma)
    lines += [f"bias {bias}, sigma {sigma} mag"]
    if metrics.n_undetected:
        lines.append(f"{tables.percent(metrics.undetected_fraction)} undetected")
    return Number(method, tables.percent(metrics.flux_mape), "; ".join(lines), colour)


def _scope(evaluation: Evaluation) -> str:
    """Say of which members scores and figures are, where it is not all of them."""
    return "" if evaluation.paper is None else "Of the members that SExtractor found. "


def _scatter(
    evaluation: Evaluation,
    scores: Sequence[Score],
    recovered: Sequence[Recovered],
    styles: Styles,
) -> Section:
    members = evaluation.members
    roles = {"central": members.is_central, "companion": ~members.is_central}
    pictures = [
        Figure(
            figures.recovered_against_true(
                members[rows], each[rows], score.members[role], styles[score.method]
            ),
            f"{score.method}: recovered against true magnitude of the {role}",
            _count(score.members[role]),
        )
        for score, each in zip(scores, recovered, strict=True)
        for role, rows in roles.items()
        if rows.any()
    ]
    text = (
        "Solid line: recovered is true; dashed lines: beyond them a member is an outlier (0.75 mag). "
        "Members beyond the axes are drawn at their edge, undetected ones not at all. Bias is the mean and "
        "sigma the standard deviation of recovered minus true magnitude; flux MAPE is the mean relative "
        "flux error."
    )
    title = "Recovered against true magnitude"
    return Section(title, _scope(evaluation) + text, figures=pictures)


def _count(metrics: Metrics) -> str:
    n = metrics.n - metrics.n_undetected - metrics.n_not_positive
    left_out = [f"{metrics.n_undetected:,} undetected"] if metrics.n_undetected else []
    if metrics.n_not_positive:
        left_out.append(f"{metrics.n_not_positive:,} with a flux that is not positive")
    return "; ".join([f"{n:,} of {metrics.n:,} members drawn", *left_out]) + "."


def _curves(scores: Sequence[Score], styles: Styles) -> Section | None:
    drawn = [role for role in _ROLES if any(s.curves[role]["all"].n.any() for s in scores)]
    if not drawn:
        return None
    pictures = [
        Figure(
            figures.curves_of_methods(scores, role, styles),
            f"Median and scatter of dmag of the {role} against the difference of magnitudes",
            f"{role.capitalize()}s: median (above) and standard deviation (below) of dmag.",
        )
        for role in drawn
    ]
    pictures += [
        Figure(
            figures.curves_by_type(scores, role, quantity, styles),
            f"{name} of dmag of the {role} by type against the difference of magnitudes",
            f"{role.capitalize()}s: {name.lower()} of dmag by the {role}'s morphological type.",
        )
        for quantity, name in (("median", "Median"), ("sigma", "Standard deviation"))
        for role in drawn
        if len(scores[0].curves[role]) > 1
    ]
    text = (
        "dmag is recovered minus true magnitude, in six equal bins of the true difference of magnitudes. "
        "The central is the brighter on the left and the fainter on the right. Medians are drawn on a scale "
        "that is linear within 0.1 mag and logarithmic beyond, standard deviations on a logarithmic one. "
        f"Undetected members and bins with fewer than {LEAST_IN_BIN} members are left out."
    )
    return Section("Errors against the difference of magnitudes", text, figures=pictures)


def _groups(evaluation: Evaluation, scores: Sequence[Score], styles: Styles) -> Section:
    known = group_tables.group_headings(scores, evaluation.members.separation_unit)
    pictures = [
        Figure(
            group_figures.errors_and_failures(scores, by, name, styles),
            f"Flux error and share of failures against {name}",
            "Above: flux MAPE of the detected members. Below: undetected members and outliers, of all.",
        )
        for by, name in known.items()
    ]
    if evaluation.members.bound is not None:
        pictures.append(
            Figure(
                group_figures.scatter_over_bound(scores, "magnitude", known["magnitude"], styles),
                "Scatter of the flux over the Cramér–Rao bound against true magnitude",
                "How far the scatter is above what the noise allows; 1, the line, is the limit.",
            )
        )
    text = (
        "Centrals and companions together. Bars: 95 % intervals, from drawing whole galaxies; in brackets: "
        f"members. Figures leave out groups with fewer than {LEAST_IN_BIN} members; methods stand a little "
        "beside each other."
    )
    return Section(
        "Errors by kind of member",
        _scope(evaluation) + text,
        table=evaluation.group_tables(),
        figures=pictures,
    )


def _masks(scores: Sequence[Score], styles: Styles) -> Section | None:
    n = [score.iou.n for score in scores if score.iou]
    if not n:
        return None
    pictures = [
        Figure(
            figures.iou_histogram(scores, role, styles),
            f"Histogram of the IoU of the {role}'s mask",
            f"{role.capitalize()}s; dashed: means.",
        )
        for role in _ROLES
    ]
    text = (
        f"Intersection over union (IoU) of predicted and true masks of {max(n):,} members; 1 is perfect. On "
        "the stamps that the method sees; where a member does not show on them and no mask is drawn, the IoU "
        "is 1 by definition."
    )
    return Section("Masks", text, figures=pictures)


def _examples(examples: Sequence[Example]) -> Section | None:
    if not examples:
        return None
    softening, end = example_figure.SOFTENING_SIGMA, example_figure.RESIDUAL_SIGMA
    text = (
        f"Chosen by rank of their flux error among {examples[0].chosen_from} pairs, not by eye. "
        f"Image and truth share one asinh scale, softened at {softening:g} sigma; crosses: detected "
        "positions. Residual: the image minus the true members scaled to their recovered fluxes, which is "
        f"what a wrong flux leaves behind; colours end at ±{end:g} sigma. Axes in pixels, fluxes in the unit "
        "of the image."
    )
    pictures = [
        Figure(
            example_figure.draw_example(example),
            f"Image, truth, masks and residual of a pair; {example_figure.example_caption(example)}",
            example_figure.example_caption(example),
        )
        for example in examples
    ]
    return Section(f"Example pairs, {examples[0].method}", text, figures=pictures)


def _provenance(evaluation: Evaluation) -> Section | None:
    found = [
        Table(("method", "what it does"), list(evaluation.methods.items())),
        Table(("data", "value"), list(evaluation.data.items())),
    ]
    known = [table for table in found if table.rows]
    return Section("Methods and data", table=known) if known else None
