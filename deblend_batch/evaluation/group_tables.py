"""Tables of errors over groups of members, for the terminal and the report."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping, Sequence

from deblend_batch.evaluation.scores import Score
from deblend_batch.evaluation.tables import percent, ratio
from deblend_batch.pages.page import Table

_UNIT = re.compile(r" (mag|px|arcsec)$")

QUANTITIES: Mapping[str, tuple[str, Callable[[float], str]]] = {
    "flux_mape": ("Flux MAPE of the detected", percent),
    "failure_fraction": ("Undetected members and outliers, of all", percent),
    "scatter_over_bound": ("Scatter of the flux over the Cramér–Rao bound", ratio),
}
"""What tables of groups show: field of the metrics to its title and how it is written."""


def without_unit(label: str) -> str:
    """Return the name of a group without its unit, where a heading says it."""
    return _UNIT.sub("", label)


def group_headings(scores: Sequence[Score], separation_unit: str) -> dict[str, str]:
    """Return the groupings of which something is known, with what they group by.

    Parameters
    ----------
    scores : sequence of Score
        The methods.
    separation_unit : str
        Unit of the members' separation.
    """
    headings = {
        "magnitude": "true magnitude (AB)",
        "mag_difference": "mag central − mag companion",
        "separation_radii": "separation / (Re1 + Re2)",
        "separation": f"separation ({separation_unit})",
        "type": "type",
    }
    return {by: name for by, name in headings.items() if any(s.groups[by] for s in scores)}


def group_tables(scores: Sequence[Score], separation_unit: str) -> list[Table]:
    """Return how errors run with the kind of member, centrals and companions together.

    Parameters
    ----------
    scores : sequence of Score
        The methods: a column each.
    separation_unit : str
        Unit of the members' separation.
    """
    headings = group_headings(scores, separation_unit)
    wanted = [(by, "flux_mape") for by in headings]
    wanted += [("separation_radii", "failure_fraction"), ("magnitude", "scatter_over_bound")]
    return [
        group_table(scores, by, headings[by], quantity)
        for by, quantity in wanted
        if by in headings and _is_known(scores, by, quantity)
    ]


def _is_known(scores: Sequence[Score], by: str, quantity: str) -> bool:
    values = [getattr(m, quantity) for s in scores for m in s.groups[by].values()]
    return not all(map(math.isnan, values))


def group_table(scores: Sequence[Score], by: str, heading: str, quantity: str) -> Table:
    """Return one quantity of each method over groups of members.

    Parameters
    ----------
    scores : sequence of Score
        The methods: a column each.
    by : str
        A key of :attr:`Score.groups`.
    heading : str
        What the groups are, with unit.
    quantity : str
        A key of :data:`QUANTITIES`.
    """
    title, write = QUANTITIES[quantity]
    groups = [score.groups[by] for score in scores]
    labels = dict.fromkeys(label for group in groups for label in group)
    rows = [
        (
            without_unit(label),
            f"{max(group[label].n for group in groups if label in group):,}",
            *(write(getattr(g[label], quantity)) if label in g else "–" for g in groups),
        )
        for label in labels
    ]
    return Table(
        (heading, "n", *(score.method for score in scores)), rows, f"{title}, by {heading}."
    )
