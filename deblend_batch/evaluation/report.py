"""The evaluation as one page."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import compress

from deblend_batch.evaluation import figures, tables
from deblend_batch.evaluation.evaluation import Evaluation
from deblend_batch.evaluation.example_figure import draw_example, example_caption
from deblend_batch.evaluation.members import Members, Recovered
from deblend_batch.evaluation.metrics import Metrics
from deblend_batch.evaluation.pairsets import Example
from deblend_batch.evaluation.scores import Score
from deblend_batch.pages.page import Figure, Number, Section, render_page

_ROLES = ("central", "companion")

_DEFINITIONS = """\
dmag is the recovered minus the true magnitude. Bias is its mean, median its median; sigma is its \
standard deviation and NMAD 1.4826 times its median absolute deviation. An outlier is wrong by more than \
0.75 mag. Flux MAPE is the mean of |F - F_true| / F_true, mag MAPE the mean of |dmag| / mag_true. \
Undetected members have no flux: they are counted, and as failures.

Intervals are 95 % bootstrap intervals in which whole galaxies are drawn, since one galaxy is in many \
pairs. The Cramér-Rao bound is the smallest scatter that the noise allows for known profiles. IoU is \
intersection over union of a member's mask with the true one, both cut at 0.5."""


def render_report(evaluation: Evaluation) -> str:
    """Render an evaluation as one self-contained HTML page.

    Parameters
    ----------
    evaluation : Evaluation
        Scores, members and examples.

    Returns
    -------
    str
        The page.
    """
    shown = [score.method not in evaluation.limits for score in evaluation.scores]
    scores = list(compress(evaluation.scores, shown))
    sections = [
        _summary(evaluation, scores),
        _scatter(evaluation.members, scores, list(compress(evaluation.recovered, shown))),
        _curves(scores),
        _groups(evaluation, scores),
        _masks(scores),
        _examples(evaluation.examples),
        Section("Definitions", _DEFINITIONS),
    ]
    return render_page(evaluation.title, evaluation.source, [s for s in sections if s is not None])


def _summary(evaluation: Evaluation, scores: Sequence[Score]) -> Section:
    pooled = {each.method: each.members["pooled"] for each in scores}
    if evaluation.paper is not None:
        pooled = dict(evaluation.paper.pooled)
    return Section(
        "Summary",
        "\n\n".join(evaluation.notes),
        numbers=[_card(method, metrics) for method, metrics in pooled.items()],
        table=evaluation.tables(),
    )


def _card(method: str, metrics: Metrics) -> Number:
    bias, sigma = tables.magnitudes(metrics.bias, signed=True), tables.magnitudes(metrics.sigma)
    note = f"bias {bias}, sigma {sigma} mag"
    if metrics.n_undetected:
        note += f", {tables.percent(metrics.undetected_fraction)} undetected"
    return Number(f"{method}: flux MAPE", tables.percent(metrics.flux_mape), note)


def _scatter(members: Members, scores: Sequence[Score], recovered: Sequence[Recovered]) -> Section:
    roles = {"central": members.is_central, "companion": ~members.is_central}
    pictures = [
        Figure(
            figures.recovered_against_true(members[rows], each[rows], score.members[role], index),
            f"{score.method}: recovered against true magnitude of the {role}",
        )
        for index, (score, each) in enumerate(zip(scores, recovered, strict=True))
        for role, rows in roles.items()
        if rows.any()
    ]
    text = (
        "Darker is more members, on a logarithmic scale. Solid: recovered is true; dashed: outliers "
        "begin. Members beyond the axes are drawn at their edge."
    )
    return Section("Recovered against true magnitude", text, figures=pictures)


def _curves(scores: Sequence[Score]) -> Section | None:
    drawn = [role for role in _ROLES if any(s.curves[role]["all"].n.any() for s in scores)]
    if not drawn:
        return None
    pictures = [
        Figure(
            figures.curves_of_methods(scores, role),
            f"Median and scatter of dmag of the {role} against the difference of magnitudes",
            f"{role.capitalize()}: median (above) and scatter (below) of dmag in six bins.",
        )
        for role in drawn
    ]
    pictures += [
        Figure(
            figures.curves_by_type(scores, role, quantity),
            f"{name} of dmag of the {role} by type against the difference of magnitudes",
            f"{role.capitalize()}: {name.lower()} of dmag by morphological type.",
        )
        for quantity, name in (("median", "Median"), ("sigma", "Scatter"))
        for role in drawn
        if len(scores[0].curves[role]) > 1
    ]
    text = (
        "The central is the brighter on the left, the fainter on the right. Medians are drawn on a "
        "scale that is linear within 0.1 mag and logarithmic beyond. Bins with fewer than five "
        "members are left out."
    )
    return Section("Errors against the difference of magnitudes", text, figures=pictures)


def _groups(evaluation: Evaluation, scores: Sequence[Score]) -> Section:
    headings = {
        "magnitude": "true magnitude (AB)",
        "separation_radii": "separation / (Re1 + Re2)",
        "separation": f"separation ({evaluation.members.separation_unit})",
        "type": "type",
    }
    known = {by: name for by, name in headings.items() if any(s.groups[by] for s in scores)}
    return Section(
        "Errors by kind of member",
        "Flux MAPE, centrals and companions together, of the detected members.",
        table=[tables.group_table(evaluation.scores, by, name) for by, name in known.items()],
        figures=[
            Figure(figures.error_by_group(scores, by, name), f"Flux error against {name}")
            for by, name in known.items()
        ],
    )


def _masks(scores: Sequence[Score]) -> Section | None:
    if not any(score.iou for score in scores):
        return None
    picture = figures.iou_histogram(scores)
    return Section("Masks", figures=[Figure(picture, "Histogram of the IoU", "Dashed: the means.")])


def _examples(examples: Sequence[Example]) -> Section | None:
    if not examples:
        return None
    text = (
        "Chosen by rank of their flux error, not by eye. Residual: the image minus the true members "
        "scaled to their recovered fluxes, in units of the noise; what a wrong flux leaves behind."
    )
    pictures = [
        Figure(draw_example(example), "Image, masks, truth and residual", example_caption(example))
        for example in examples
    ]
    return Section(f"Example pairs, {examples[0].method}", text, figures=pictures)
