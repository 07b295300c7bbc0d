"""Damped least squares (Levenberg-Marquardt) for a whole batch of blends at once."""

from __future__ import annotations

from typing import NamedTuple, TypeVar

import torch
from torch import Tensor

from deblend_batch.models.profile_fit.light.cells import View
from deblend_batch.models.profile_fit.light.sersic import INDEX_RANGE
from deblend_batch.models.profile_fit.search.cholesky import factor, solve
from deblend_batch.models.profile_fit.search.normal import (
    Normal,
    Pixels,
    SkyPrior,
    State,
    evaluate,
)
from deblend_batch.models.profile_fit.search.priors import SHAPES, ShapePrior

T = TypeVar("T", State, Normal)

_LARGEST_STEP = (1.5, 1.5, 0.8, 0.8, 0.8, 0.8)
_RADIUS_RANGE_PX = (0.02, 60.0)  # half of the largest stamp: what is wider is background
_FIRST_DAMPING = 1e-3
_LEAST_DAMPING, _MOST_DAMPING = 1e-7, 1e6
_NOISE = 2e-7  # of the objective: what single precision leaves uncertain
_HOPE = 4.0  # times the decrease that the next step promises: a search gets hardly further down


class Search(NamedTuple):
    """How long a search goes on.

    Parameters
    ----------
    iterations : int
        At most so many evaluations.
    tolerance : float
        Converged where the next step would lower the objective by less (1/2 is one sigma of one unknown).
    """

    iterations: int
    tolerance: float


class Found(NamedTuple):
    """Where a search ended; first axis the blend."""

    state: State
    normal: Normal
    converged: Tensor
    iterations: Tensor

    def rows(self, index: Tensor) -> Found:
        """Return some blends."""
        return Found(
            self.state.rows(index),
            self.normal.rows(index),
            self.converged[index],
            self.iterations[index],
        )


def store(into: Found, rows: Tensor, found: Found) -> None:
    """Write some blends' ends into those of a batch."""
    _store(into, rows, found.state, found.normal)
    into.converged[rows] = found.converged
    into.iterations[rows] = found.iterations


def chosen_of(first: Tensor, one: Found, other: Found) -> Found:
    """Take ``one`` where ``first`` is true, and ``other`` elsewhere; iterations add up."""
    return Found(
        _chosen(first, one.state, other.state),
        _chosen(first, one.normal, other.normal),
        torch.where(first, one.converged, other.converged),
        one.iterations + other.iterations,
    )


def better_of(one: Found, other: Found) -> Found:
    """Take the end of the lower objective, blend by blend."""
    return chosen_of(one.normal.objective <= other.normal.objective, one, other)


def search(
    state: State,
    pixels: Pixels,
    prior: ShapePrior,
    sky: SkyPrior,
    view: View,
    how: Search,
    ceiling: Tensor | None = None,
) -> Found:
    """Search the maximum of every blend's posterior; blends that have converged leave the batch.

    Parameters
    ----------
    state : State
        Where to start.
    pixels : Pixels
        The blends' data.
    prior : ShapePrior
        Prior on their shapes.
    sky : SkyPrior
        Prior on their sky.
    view : View
        Their cells.
    how : Search
        How long.
    ceiling : Tensor of float64, shape (blend,), optional
        An objective from which on an end is of no use: searches that will not get below it are given up.

    Returns
    -------
    Found
        The best state of each blend, the expansion about it, whether it converged.
    """
    blends = len(state.shapes)
    state, normal = evaluate(state, pixels, prior, sky, view)
    result = Found(
        State(*(each.clone() for each in state)),
        normal,
        torch.zeros(blends, dtype=torch.bool, device=state.shapes.device),
        torch.ones(blends, dtype=torch.int64, device=state.shapes.device),
    )
    rows = torch.arange(blends, device=state.shapes.device)
    damping = state.shapes.new_full((blends,), _FIRST_DAMPING)
    for _ in range(how.iterations):
        step, decrease, is_whole = _step(state, normal, damping)
        done = (decrease < how.tolerance) | (damping > _MOST_DAMPING)
        if ceiling is not None:
            done |= normal.objective - _HOPE * decrease > ceiling[rows]
        if bool(done.any()):
            end = _ended(state.rows(done), step[done], is_whole[done])
            _store(result, rows[done], end, normal.rows(done))
            result.converged[rows[done]] = decrease[done] < how.tolerance
            keep = (~done).nonzero()[:, 0]
            if not len(keep):
                return result
            rows, damping, step = rows[keep], damping[keep], step[keep]
            state, normal = state.rows(keep), normal.rows(keep)
            pixels, prior = pixels.rows(keep), prior.rows(keep)
        trial, expanded = evaluate(_moved(state, step), pixels, prior, sky, view)
        slack = _NOISE * normal.objective.abs()
        better = expanded.objective <= normal.objective + slack
        state, normal = _chosen(better, trial, state), _chosen(better, expanded, normal)
        damping = torch.where(better, damping * 0.1, damping * 8.0).clamp_min(_LEAST_DAMPING)
        result.iterations[rows] += 1
    _store(result, rows, state, normal)
    return result


def _ended(state: State, step: Tensor, is_whole: Tensor) -> State:
    """Take the last step without a look: it is smaller than matters, and of second order right.

    Not where shapes were kept from a part of it: the fluxes' part belongs to all of it, and is any number
    where members look alike. The fluxes that there are belong to the shapes that there are.
    """
    moved = _moved(state, step)
    count = SHAPES * state.extended.shape[1]
    wanted = state.shapes + step[:, :count].reshape(state.shapes.shape)
    return _chosen(is_whole & (moved.shapes == wanted).flatten(1).all(dim=1), moved, state)


def _step(state: State, normal: Normal, damping: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return the damped step of every blend, the decrease that it promises, and whether nothing was cut."""
    members = state.extended.shape[1]
    shapes = SHAPES * members
    stuck = _stuck(state, normal)
    gradient = normal.gradient.masked_fill(stuck, 0.0)
    matrix = normal.hessian.masked_fill(stuck[:, :, None] | stuck[:, None, :], 0.0)
    diagonal = matrix.diagonal(dim1=1, dim2=2)
    diagonal += stuck
    curvature = diagonal.clone()
    diagonal[:, :shapes] *= 1.0 + damping[:, None]
    step = solve(factor(matrix), gradient)
    limit = step.new_tensor(_LARGEST_STEP).repeat(members)
    shorter = (limit / step[:, :shapes].abs().clamp_min(1e-12)).reshape(-1, members, SHAPES)
    shorter = shorter.amin(dim=2).clamp_max(1.0).nan_to_num(0.0)
    is_whole = (shorter == 1.0).all(dim=1) & step.isfinite().all(dim=1)
    step = torch.where(step.isfinite(), step, 0.0)
    step[:, :shapes] *= shorter.repeat_interleave(SHAPES, dim=1)
    damped = damping[:, None] * curvature[:, :shapes] * step[:, :shapes].square()
    # (H + D) step = gradient, so that the decrease is half of both products.
    decrease = 0.5 * ((gradient * step).sum(dim=1) + damped.sum(dim=1))
    return step, decrease, is_whole


def _stuck(state: State, normal: Normal) -> Tensor:
    """Tell which unknowns stand at the edge of their range and want to leave it."""
    members = state.extended.shape[1]
    slope = normal.gradient[:, : SHAPES * members].reshape(-1, members, SHAPES)
    stuck = torch.zeros_like(slope, dtype=torch.bool)
    for place, (low, high) in _bounds(state.shapes):
        value, pull = state.shapes[..., place], slope[..., place]
        stuck[..., place] = ((value <= low) & (pull < 0)) | ((value >= high) & (pull > 0))
    rest = normal.gradient.shape[1] - SHAPES * members
    return torch.cat([stuck.flatten(1), stuck.new_zeros(len(stuck), rest)], dim=1)


def _bounds(like: Tensor) -> tuple[tuple[int, tuple[float, float]], ...]:
    def logs(ends: tuple[float, float]) -> tuple[float, float]:
        low, high = like.new_tensor(ends).log().tolist()
        return low, high

    return ((2, logs(_RADIUS_RANGE_PX)), (5, logs(INDEX_RANGE)))


def _moved(state: State, step: Tensor) -> State:
    members, count = state.extended.shape[1], SHAPES * state.extended.shape[1]
    shapes = state.shapes + step[:, :count].reshape(-1, members, SHAPES)
    for place, (low, high) in _bounds(shapes):
        shapes[..., place].clamp_(low, high)
    linear = state.linear + step[:, count:].reshape(state.linear.shape)
    return State(shapes, linear, state.extended)


def _chosen(first: Tensor, yes: T, no: T) -> T:
    return type(yes)(
        *(
            torch.where(first.view(-1, *[1] * (a.dim() - 1)), a, b)
            for a, b in zip(yes, no, strict=True)
        )
    )


def _store(result: Found, rows: Tensor, state: State, normal: Normal) -> None:
    for into, values in zip((*result.state, *result.normal), (*state, *normal), strict=True):
        into[rows] = values
