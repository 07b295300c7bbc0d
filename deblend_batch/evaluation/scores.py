"""The score of a method: its metrics over all members and over groups of them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from deblend_batch.evaluation.curves import MAG_DIFFERENCE_EDGES, Curve, bin_numbers, curve
from deblend_batch.evaluation.members import Members, Recovered
from deblend_batch.evaluation.metrics import Metrics, json_value, magnitude_offset, mean, measure

SEPARATION_RADII_EDGES = (0.0, 0.5, 1.0, 1.5, 2.0, 3.0, np.inf)
"""Bins of separation over the sum of the half-light radii; the first holds the closest pairs."""

IOU_BINS = 20

BOOTSTRAP_DRAWS = 300


@dataclass(frozen=True)
class IouScore:
    """How well masks agree with the true ones, members of both roles together.

    Parameters
    ----------
    n : int
        Members with masks.
    mean, median : float
        Of the IoU of all members.
    central, companion : float
        Means by role.
    histograms : mapping of str to ndarray of int64, shape (20,)
        ``central`` and ``companion``: members in equal bins of IoU from 0 to 1.
    """

    n: int
    mean: float
    median: float
    central: float
    companion: float
    histograms: Mapping[str, NDArray[np.int64]]

    def to_dict(self) -> dict[str, Any]:
        """Return the numbers as JSON-able values."""
        counts = {role: histogram.tolist() for role, histogram in self.histograms.items()}
        return {
            name: json_value(value) for name, value in {**vars(self), "histograms": counts}.items()
        }


@dataclass(frozen=True)
class Score:
    """Everything measured of one method.

    Parameters
    ----------
    method : str
        Name of the method.
    members : mapping of str to Metrics
        ``pooled``, ``central`` and ``companion``, with bootstrap intervals.
    groups : mapping of str to mapping of str to Metrics
        Metrics of both roles together by ``magnitude``, ``mag_difference``, ``separation``,
        ``separation_radii`` and ``type``, with intervals; empty groups are left out.
    curves : mapping of str to mapping of str to Curve
        dmag against the difference of magnitudes, for ``central`` and ``companion`` (what is the
        brighter side for one is the fainter for the other), for ``all`` and by type.
    iou : IouScore, optional
        Where masks exist.
    """

    method: str
    members: Mapping[str, Metrics]
    groups: Mapping[str, Mapping[str, Metrics]]
    curves: Mapping[str, Mapping[str, Curve]]
    iou: IouScore | None = None

    def to_dict(self) -> dict[str, Any]:
        """Return the score as JSON-able values."""
        return {
            "method": self.method,
            **{name: metrics.to_dict() for name, metrics in self.members.items()},
            "groups": {
                by: {label: metrics.to_dict() for label, metrics in group.items()}
                for by, group in self.groups.items()
            },
            "curves": {
                role: {kind: each.to_dict() for kind, each in curves.items()}
                for role, curves in self.curves.items()
            },
            "iou": self.iou.to_dict() if self.iou else None,
        }


def score(members: Members, recovered: Recovered, draws: int = BOOTSTRAP_DRAWS) -> Score:
    """Measure a method."""
    roles = {
        "pooled": np.ones(len(members), bool),
        "central": members.is_central,
        "companion": ~members.is_central,
    }
    return Score(
        method=recovered.method,
        members={
            role: measure_rows(members[rows], recovered[rows], draws)
            for role, rows in roles.items()
        },
        groups={
            by: {
                label: measure_rows(members[rows], recovered[rows], draws) for label, rows in group
            }
            for by, group in _groups(members)
        },
        curves={
            role: _curves(members[roles[role]], recovered[roles[role]])
            for role in ("central", "companion")
        },
        iou=None if recovered.iou is None else _score_iou(recovered.iou, members.is_central),
    )


def measure_rows(members: Members, recovered: Recovered, draws: int = 0) -> Metrics:
    """Return the metrics of a method over some members, all rows of both records."""
    return measure(
        recovered.flux,
        members.flux,
        true_mag=members.mag,
        galaxy_id=members.galaxy_id,
        bound=members.bound,
        flux_err=recovered.flux_err,
        draws=draws,
    )


Group = list[tuple[str, NDArray[np.bool_]]]


def _groups(members: Members) -> Iterator[tuple[str, Group]]:
    yield "magnitude", _by_edges(members.mag, _whole_magnitudes(members.mag), "mag")
    yield "mag_difference", _by_edges(members.mag_difference, MAG_DIFFERENCE_EDGES, "mag")
    edges = _fifths(members.separation)
    yield "separation", _by_edges(members.separation, edges, members.separation_unit)
    yield "separation_radii", _by_edges(members.separation_radii, SEPARATION_RADII_EDGES, "")
    yield "type", [(kind, members.kind == kind) for kind in members.kinds]


def _by_edges(values: NDArray[np.float64], edges: tuple[float, ...], unit: str) -> Group:
    numbers = bin_numbers(values, edges)
    found = [(b, numbers == b) for b in range(len(edges) - 1)]
    return [(_label(edges[b], edges[b + 1], unit), rows) for b, rows in found if rows.any()]


def _label(low: float, high: float, unit: str) -> str:
    text = f"{low:.3g} to {high:.3g}" if np.isfinite(high) else f"over {low:.3g}"
    return f"{text} {unit}".strip()


def _whole_magnitudes(mag: NDArray[np.float64]) -> tuple[float, ...]:
    finite = mag[np.isfinite(mag)]
    if len(finite) == 0:
        return (0.0, 1.0)
    return tuple(np.arange(np.floor(finite.min()), np.floor(finite.max()) + 1.5).tolist())


def _fifths(values: NDArray[np.float64]) -> tuple[float, ...]:
    """Return edges of five bins with about equally many values."""
    finite = values[np.isfinite(values)]
    if len(finite) == 0:
        return (0.0, 1.0)
    edges = np.unique(np.quantile(finite, np.linspace(0, 1, 6)))
    return tuple(edges.tolist()) if len(edges) > 1 else (edges[0], edges[0] + 1)


def _curves(members: Members, recovered: Recovered) -> dict[str, Curve]:
    dmag = magnitude_offset(recovered.flux, members.flux)
    rows = {"all": np.ones(len(members), bool)}
    rows |= {kind: members.kind == kind for kind in members.kinds}
    return {name: curve(dmag[which], members.mag_difference[which]) for name, which in rows.items()}


def _score_iou(iou: NDArray[np.float64], is_central: NDArray[np.bool_]) -> IouScore | None:
    known = np.isfinite(iou)
    if not known.any():
        return None
    values = iou[known]
    roles = {"central": is_central, "companion": ~is_central}
    return IouScore(
        n=len(values),
        mean=mean(values),
        median=float(np.median(values)),
        central=mean(iou[is_central]),
        companion=mean(iou[~is_central]),
        histograms={
            role: np.histogram(iou[rows & known], bins=IOU_BINS, range=(0, 1))[0]
            for role, rows in roles.items()
        },
    )
