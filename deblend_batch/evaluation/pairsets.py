"""Methods side by side on the same simulated pairs, batch by batch."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from deblend_batch.evaluation.errors import EvaluationError
from deblend_batch.evaluation.members import (
    Members,
    Recovered,
    concatenate,
    flat,
    members_of_pairs,
)
from deblend_batch.evaluation.methods.method import Estimate, Method
from deblend_batch.evaluation.metrics import flux_error, iou

if TYPE_CHECKING:
    from deblend_batch.simulate.pairs.batch import PairBatch

EXAMPLE_RANKS = (0.1, 0.5, 0.9, 0.99)
"""Which pairs are shown: those at these quantiles of the flux error."""

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Example:
    """One pair, to be looked at.

    Parameters
    ----------
    rank : float
        Fraction of the pairs it was chosen from that the method did better on.
    chosen_from : int
        How many these are: those of the first batch of which both members have a flux.
    method : str
        Whose fluxes and masks these are.
    stamp : ndarray of float32, shape (y, x)
        The image.
    truth : ndarray of float32, shape (2, y, x)
        Noise-free central and companion.
    sigma : float
        Background rms per pixel.
    yx : ndarray of float, shape (2, 2)
        Detected positions (member, (y, x)), px.
    true_masks : ndarray of bool, shape (2, y, x)
        Masks of the members.
    masks : ndarray of float32, shape (2, y, x), optional
        Predicted probabilities.
    true_flux, flux : ndarray of float64, shape (2,)
        True and recovered fluxes.
    """

    rank: float
    chosen_from: int
    method: str
    stamp: NDArray[np.float32]
    truth: NDArray[np.float32]
    sigma: float
    yx: NDArray[np.floating]
    true_masks: NDArray[np.bool_]
    masks: NDArray[np.float32] | None
    true_flux: Floats
    flux: Floats


@dataclass(frozen=True)
class View:
    """What a method saw of the pairs: its own stamps may be smaller than theirs.

    Parameters
    ----------
    stamp_px : int
        Edge of the method's stamps.
    n_outside : int
        Members whose detected position lies outside of them.
    """

    stamp_px: int
    n_outside: int


@dataclass(frozen=True)
class PairOutcome:
    """What the methods made of a data set of pairs.

    Parameters
    ----------
    members : Members
        The truth, two rows a pair, fluxes in image units.
    recovered : tuple of Recovered
        One per method, in their order.
    examples : tuple of Example
        Pairs of the first batch at fixed ranks of one method's error.
    stamp_px : int
        Edge of the pairs' stamps.
    views : tuple of View
        What each method saw of them.
    """

    members: Members
    recovered: tuple[Recovered, ...]
    examples: tuple[Example, ...]
    stamp_px: int
    views: tuple[View, ...]


def run_methods(
    batches: Iterable[PairBatch], methods: Sequence[Method], mask_threshold: float = 1.5
) -> PairOutcome:
    """Run methods over pairs; only one batch is in memory at a time.

    Parameters
    ----------
    batches : iterable of PairBatch
        The pairs.
    methods : sequence of Method
        At least one.
    mask_threshold : float
        Isophote of the true masks, in units of the background rms.
    """
    members: list[Members] = []
    recovered: list[list[Recovered]] = [[] for _ in methods]
    views: list[list[View]] = []
    stamp_px = 0
    examples: tuple[Example, ...] = ()
    for batch in filter(len, batches):
        estimates = [method.estimate(batch) for method in methods]
        members.append(_members(batch))
        stamp_px = batch.stamps.shape[-1]
        views.append([_view(estimate.seen) for estimate in estimates])
        for method, estimate, parts in zip(methods, estimates, recovered, strict=True):
            parts.append(_recovered(method.name, estimate, mask_threshold))
        if not examples:
            shown = _most_to_show(estimates)
            examples = _choose_examples(methods[shown].name, estimates[shown], mask_threshold)
    if not members:
        raise EvaluationError("the data set has no pairs; simulate some first")
    return PairOutcome(
        concatenate(members),
        tuple(concatenate(parts) for parts in recovered),
        examples,
        stamp_px,
        tuple(
            View(parts[0].stamp_px, sum(part.n_outside for part in parts))
            for parts in zip(*views, strict=True)
        ),
    )


def _view(seen: PairBatch) -> View:
    """Count the members off the stamps that a method saw; a pixel reaches half a pixel from its centre."""
    edge = seen.stamps.shape[-1]
    yx = np.stack([seen.central_yx, seen.companion_yx])
    outside = (yx < -0.5) | (yx > edge - 0.5)
    return View(edge, int(np.count_nonzero(outside.any(axis=-1))))


def _members(batch: PairBatch) -> Members:
    bound = batch.cramer_rao().astype(np.float64)
    return members_of_pairs(
        flux=batch.flux,
        mag=batch.mag,
        radius=batch.radius_px,
        kind=batch.kind_names,
        galaxy_id=batch.galaxy_id,
        separation=batch.separation_px,
        bound=np.where(np.isfinite(bound), bound, np.nan),
    )


def _recovered(method: str, estimate: Estimate, mask_threshold: float) -> Recovered:
    return Recovered(
        method=method,
        flux=flat(estimate.flux),
        flux_err=None if estimate.flux_err is None else flat(estimate.flux_err),
        iou=_iou(estimate, mask_threshold),
    )


def _iou(estimate: Estimate, mask_threshold: float) -> Floats | None:
    """Compare the members' masks on the pixels that the method saw."""
    if estimate.masks is None:
        return None
    return flat(iou(estimate.masks[:, 1:], estimate.seen.masks(mask_threshold)[:, 1:]))


def _most_to_show(estimates: Sequence[Estimate]) -> int:
    """Return the method that the examples show: of those with masks the best in flux, else the first."""
    errors = [
        np.inf if each.masks is None else np.nanmedian(flux_error(each.flux, each.seen.flux))
        for each in estimates
    ]
    return int(np.argmin(errors))


def _choose_examples(method: str, estimate: Estimate, mask_threshold: float) -> tuple[Example, ...]:
    pairs = estimate.seen
    error = flux_error(estimate.flux, pairs.flux).mean(axis=1)
    order = np.argsort(error)
    order = order[np.isfinite(error[order])]
    if len(order) == 0:
        return ()
    rows = np.unique([order[round(rank * (len(order) - 1))] for rank in EXAMPLE_RANKS])
    rows = rows[np.argsort(error[rows])]
    true_masks = _take(pairs, rows).masks(mask_threshold)[:, 1:]
    return tuple(
        Example(
            rank=float(np.mean(error[order] < error[row])),
            chosen_from=len(order),
            method=method,
            stamp=pairs.stamps[row],
            truth=pairs.truth[row],
            sigma=float(pairs.sigma[row]),
            yx=np.stack([pairs.central_yx[row], pairs.companion_yx[row]]),
            true_masks=masks,
            masks=None if estimate.masks is None else estimate.masks[row, 1:],
            true_flux=pairs.flux[row].astype(np.float64),
            flux=estimate.flux[row],
        )
        for row, masks in zip(rows, true_masks, strict=True)
    )


def _take(pairs: PairBatch, rows: NDArray[np.intp]) -> PairBatch:
    return type(pairs)(**{name: getattr(pairs, name)[rows] for name in pairs.__dataclass_fields__})
