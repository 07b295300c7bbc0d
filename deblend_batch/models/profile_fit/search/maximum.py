"""From given positions to the maximum of the posterior: coarse pixels first, other starts where one fails."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import NamedTuple

import torch
from torch import Tensor

from deblend_batch.models.profile_fit.light.cells import Cells, View
from deblend_batch.models.profile_fit.search.config import FitConfig
from deblend_batch.models.profile_fit.search.misfit import trusted_weights
from deblend_batch.models.profile_fit.search.normal import Pixels, State, evaluate, planes_of
from deblend_batch.models.profile_fit.search.priors import ShapePrior, shape_prior
from deblend_batch.models.profile_fit.search.residual import left_over
from deblend_batch.models.profile_fit.search.solver import Found, Search, better_of, search, store
from deblend_batch.models.profile_fit.search.stamps import Blends, whitened

# Radius and index to begin with; the radius over the prior's middle for a faint member.
_FIRST_START = (1.3, 1.5)
_OTHER_STARTS = ((0.25, 2.5), (2.5, 2.0))
_TYPICAL_NJY = 1000.0
_STRANGE_SIGMA = (
    3.0  # of position or of ln radius from the prior: perhaps swapped, perhaps run away
)
_STRANGE_CHI2 = 5.0
_STRANGE_HOLLOW = 0.03


class Level(NamedTuple):
    """Data of a batch in cells, and what searches on them share."""

    pixels: Pixels
    view: View

    def rows(self, index: Tensor) -> Level:
        """Return some blends."""
        return Level(self.pixels.rows(index), self.view)


@dataclass(frozen=True)
class Problem:
    """A batch to fit; all blends have the same number of members.

    Parameters
    ----------
    blends : Blends
        The data.
    config : FitConfig
        Settings.
    coarse, fine, whole : View
        Cells of the first search, of the last, and of images.
    images : int
        Blends whose images are made at once.
    """

    blends: Blends
    config: FitConfig
    coarse: View
    fine: View
    whole: View
    images: int

    def slices(self) -> list[slice]:
        """Return the blends whose images are made at once."""
        starts = range(0, len(self.blends.image), self.images)
        return [slice(start, start + self.images) for start in starts]

    def prior(self, flux: Tensor) -> ShapePrior:
        """Return the prior on shapes of members of some flux, (blend, band, member)."""
        blends = self.blends
        return shape_prior(
            blends.xy,
            blends.position_err,
            (flux * blends.njy_per_unit[..., None]).amax(dim=1),
            blends.pixel_scale_arcsec,
            self.config.population,
        )

    def rows(self, index: Tensor) -> Problem:
        """Return the problem of some blends."""
        return replace(self, blends=self.blends.rows(index))


def search_from(
    problem: Problem,
    level: Level,
    state: State,
    prior: ShapePrior,
    how: Search,
    ceiling: Tensor | None = None,
) -> Found:
    """Search from a state at a resolution."""
    sky = problem.config.sky
    return search(state, level.pixels, prior, sky, level.view, how, ceiling)


def find_maximum(problem: Problem) -> tuple[Found, ShapePrior, Level, Tensor, Cells]:
    """Find the maximum of each blend's posterior, all members being galaxies.

    Returns
    -------
    found : Found
        The maximum.
    prior : ShapePrior
        The prior there.
    level : Level
        The data there.
    trusted : Tensor of float32, shape (blend, band, y, x)
        The weights there.
    cells : Cells
        Where the data are.
    """
    coarse = _coarse(problem)
    prior = problem.prior(coarse.state.linear[..., :-1])
    level, trusted, cells = _fine(problem, coarse.state)
    found = search_from(problem, level, coarse.state, prior, problem.config.fine)
    return found, prior, level, trusted, cells


def _fine(problem: Problem, state: State) -> tuple[Level, Tensor, Cells]:
    """Make the data of the last search about a first fit.

    Cells hold the mean of what the first fit leaves over in their pixels, besides that fit as it is drawn in
    cells: what a drawing in cells lacks is thus no part of the residual.
    """
    blends, view = problem.blends, problem.fine
    cells = view.layout.lay(state.shapes[..., :2])
    trusted, residual = torch.empty_like(blends.weight), torch.empty_like(blends.image)
    model = torch.empty(*blends.weight.shape[:2], view.layout.cells, device=residual.device)
    for band in range(blends.image.shape[1]):
        for rows in problem.slices():
            part, here = blends.rows(rows), Cells(*(each[rows] for each in cells))
            _, total, left = left_over(part, state.rows(rows), band, problem.whole, here)
            residual[rows, band] = left
            trusted[rows, band] = trusted_weights(
                part.weight[:, band], left, total, problem.config.trust
            )
        psf = blends.psf.weight[:, band], blends.psf.covariance[:, band]
        for some, planes in planes_of(state, *psf, cells.basis, view):
            flux = state.linear[some, band, :-1, None].float()
            model[some, band] = (planes[:, :, 0] * flux).sum(dim=1)
        model[:, band] += state.linear[:, band, -1:].float()
    level = Level(whitened(blends, trusted, residual, model, view.layout, cells), view)
    return level, trusted, cells


def _coarse(problem: Problem) -> Found:
    blends, layout = problem.blends, problem.coarse.layout
    pixels = whitened(blends, blends.weight, blends.image, 0.0, layout, layout.lay(blends.xy))
    level = Level(pixels, problem.coarse)
    found, prior = _started(problem, level, [_FIRST_START])
    again = _strange(found, prior, level.pixels).nonzero()[:, 0]
    if not len(again):
        return found
    # All other starts at once: a batch costs less than its parts.
    twice = again.repeat(len(_OTHER_STARTS))
    start = [each for each in _OTHER_STARTS for _ in range(len(again))]
    others, _ = _started(problem.rows(twice), level.rows(twice), start)
    for part in torch.arange(len(twice), device=again.device).chunk(len(_OTHER_STARTS)):
        store(found, again, better_of(found.rows(again), others.rows(part)))
    return found


def _started(
    problem: Problem, level: Level, start: list[tuple[float, float]]
) -> tuple[Found, ShapePrior]:
    blends = problem.blends
    typical = _TYPICAL_NJY / blends.njy_per_unit[..., None]
    typical = typical.expand(-1, -1, blends.xy.shape[1])
    prior = problem.prior(typical)
    radius, index = prior.mean.new_tensor(start).log()[:, :, None].unbind(1)
    shapes = prior.mean.clone()
    shapes[..., 2] += radius
    shapes[..., 5] = index
    bands, members = blends.sky_mean.shape[1], shapes.shape[1]
    linear = shapes.new_zeros(len(shapes), bands, members + 1)
    state = State(shapes, linear, shapes.new_ones(shapes.shape[:2]))
    # The first fluxes, at the typical shapes, say how bright the members are and thus what to expect of them.
    state, _ = evaluate(state, level.pixels, prior, problem.config.sky, level.view)
    prior = problem.prior(state.linear[..., :-1])
    return search_from(problem, level, state, prior, problem.config.coarse), prior


def _strange(found: Found, prior: ShapePrior, pixels: Pixels) -> Tensor:
    """Tell which blends may have ended in a lesser maximum."""
    deviation = (found.state.shapes - prior.mean).square() * prior.precision
    astray = deviation[..., :3].amax(dim=(1, 2)) > _STRANGE_SIGMA**2
    count = (pixels.root_weight > 0).sum(dim=2).double()
    poor = found.normal.chi2 - count > _STRANGE_CHI2 * torch.sqrt(2.0 * count)
    # Light that is taken away again: two members share one between them.
    flux = found.state.linear[..., :-1]
    hollow = flux.amin(dim=2) < -_STRANGE_HOLLOW * flux.amax(dim=2)
    return astray | (poor | hollow).any(dim=1)
