"""Star or galaxy, member by member, by the evidence of both."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from deblend_batch.models.profile_fit.search.cholesky import factor
from deblend_batch.models.profile_fit.search.maximum import Level, Problem, search_from
from deblend_batch.models.profile_fit.search.normal import Normal
from deblend_batch.models.profile_fit.search.priors import SHAPES, ShapePrior
from deblend_batch.models.profile_fit.search.solver import Found, Search, chosen_of, store

_COMPACT = 1.5  # half-light radius over the PSF's sigma: above it nothing can be taken for a star

_CLOSE = 0.5  # of the logarithm of the odds: nearer, where a search was ended may decide
_TO_THE_END = Search(iterations=30, tolerance=0.002)

_SLACK = 3.0  # of the logarithm of the evidence: the rest of the unknowns may be better known, too


def let_stars_be_stars(found: Found, problem: Problem, prior: ShapePrior, level: Level) -> Found:
    """Make point sources of the members that are explained better so.

    A point source is a galaxy whose shape has no say in its image. Its shape's posterior is then its prior,
    so that Laplace's approximations of both evidences have as many unknowns and compare as they are.

    Parameters
    ----------
    found : Found
        The maximum with galaxies alone; altered.
    problem : Problem
        The batch.
    prior : ShapePrior
        Prior on shapes.
    level : Level
        The data.

    Returns
    -------
    Found
        The maximum with stars.
    """
    share = problem.config.star_fraction
    if share <= 0.0:
        return found
    odds = math.log(share / (1.0 - share))
    limit = torch.log(_COMPACT * problem.blends.psf.sigma_px().amin(dim=1))
    for member in range(found.state.extended.shape[1]):
        compact = (found.state.shapes[:, member, 2] < limit).nonzero()[:, 0]
        if not len(compact):
            continue
        before, known = found.rows(compact), prior.rows(compact)
        extended = before.state.extended.clone()
        extended[:, member] = 0.0
        as_star = search_from(
            problem.rows(compact),
            level.rows(compact),
            before.state._replace(extended=extended),
            known,
            problem.config.fine,
            before.normal.objective + odds + _shape_cost(before, known, member),
        )
        sure = _gain(before, as_star) + odds
        close = (sure.abs() < _CLOSE).nonzero()[:, 0]
        if len(close):
            parts = problem.rows(compact[close]), level.rows(compact[close])
            for end in (before, as_star):
                state, so_far = end.state.rows(close), end.iterations[close]
                again = search_from(*parts, state, known.rows(close), _TO_THE_END)
                store(end, close, again._replace(iterations=again.iterations + so_far))
        is_star = _gain(before, as_star) + odds > 0.0
        store(found, compact, chosen_of(is_star, as_star, before))
    return found


def _gain(galaxy: Found, star: Found) -> Tensor:
    """Return the logarithm of the odds that the data give for the star: (blend,)."""
    return log_evidence(star.normal) - log_evidence(galaxy.normal)


def _shape_cost(galaxy: Found, prior: ShapePrior, member: int) -> Tensor:
    """Return what a galaxy's evidence loses at most by the unknowns that a point source has not: (blend,)."""
    shape = slice(SHAPES * member + 2, SHAPES * (member + 1))
    known = galaxy.normal.hessian.diagonal(dim1=1, dim2=2)[:, shape]
    return 0.5 * torch.log(known / prior.precision[:, member, 2:]).sum(dim=1) + _SLACK


def log_evidence(normal: Normal) -> Tensor:
    """Laplace's approximation of the log evidence, less what two models of one blend have in common."""
    diagonal = factor(normal.hessian).diagonal(dim1=1, dim2=2)
    return -normal.objective - torch.log(diagonal).sum(dim=1)
