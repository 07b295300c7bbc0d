"""Normal equations of a batch of blends: objective, gradient and curvature at given shapes.

Unknowns of a blend, in this order: six shapes for each member; then for each band the members' fluxes and the
sky. At given shapes fluxes and sky are linear and solved for exactly, so that a search moves shapes alone.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor

from deblend_batch.models.profile_fit.light.cells import View
from deblend_batch.models.profile_fit.light.planes import PLANES, Canvas, Profiles, draw_planes
from deblend_batch.models.profile_fit.search.cholesky import factor, solve
from deblend_batch.models.profile_fit.search.priors import SHAPES, ShapePrior

UNMEASURED = 2.0**40
"""Errors beyond this, in units of a pixel's noise, are of fluxes that no pixel tells anything of."""

_NOTHING = 2.0**-84  # precision of what pixels tell nothing of, and at least that of everything
_DARK_FROM = 3.0  # errors of a flux alone: below minus that it is hardly one
_DARK_SIGMA = 0.1
_RIDGE = 1e-7  # of the diagonal: keeps equations of float32 products positive


class Pixels(NamedTuple):
    """Whitened stamps of blends with what belongs to them; first axis the blend.

    Parameters
    ----------
    root_weight : Tensor of float32, shape (blend, band, cell)
        Root of the inverse variance of a cell's mean; 0 where there is no data.
    whitened : Tensor of float32, shape (blend, band, cell)
        Means times ``root_weight``.
    basis : Tensor of float32, shape (blend, 6, cell)
        1, x, y, x^2, xy, y^2 of the cells' middles.
    psf_weight : Tensor of float64, shape (blend, band, component)
        The PSF's Gaussians.
    psf_covariance : Tensor of float64, shape (blend, band, component, 3)
        Their xx, xy, yy.
    sky_mean, sky_sigma : Tensor of float64, shape (blend, band)
        Prior on the sky: middle and scale of a Student distribution.
    """

    root_weight: Tensor
    whitened: Tensor
    basis: Tensor
    psf_weight: Tensor
    psf_covariance: Tensor
    sky_mean: Tensor
    sky_sigma: Tensor

    def rows(self, index: Tensor) -> Pixels:
        """Return some blends."""
        return Pixels(*(each[index] for each in self))


class State(NamedTuple):
    """Where a fit stands; float64, first axis the blend.

    Parameters
    ----------
    shapes : Tensor, shape (blend, member, 6)
        Shapes.
    linear : Tensor, shape (blend, band, member + 1)
        Fluxes, then the sky.
    extended : Tensor, shape (blend, member)
        1 for a galaxy, 0 for a point source.
    """

    shapes: Tensor
    linear: Tensor
    extended: Tensor

    def rows(self, index: Tensor | slice) -> State:
        """Return some blends."""
        return State(*(each[index] for each in self))

    def profiles(self) -> Profiles:
        """Return all members' profiles, one row each."""
        x, y, log_radius, t1, t2, log_index = self.shapes.flatten(0, 1).unbind(1)
        return Profiles(x, y, log_radius, t1, t2, log_index, self.extended.flatten())


class Normal(NamedTuple):
    """Quadratic form of the objective about a state; float64, first axis the blend.

    Parameters
    ----------
    objective : Tensor, shape (blend,)
        Half chi2 and half the prior's.
    chi2 : Tensor, shape (blend, band)
        Sum of squared whitened residuals.
    gradient : Tensor, shape (blend, unknown)
        Minus the derivative of the objective.
    hessian : Tensor, shape (blend, unknown, unknown)
        Its curvature (Gauss-Newton), prior included.
    wall : Tensor, shape (blend, unknown)
        What of its diagonal is the prior on negative fluxes: it holds them, and says nothing of their errors.
    """

    objective: Tensor
    chi2: Tensor
    gradient: Tensor
    hessian: Tensor
    wall: Tensor

    def rows(self, index: Tensor) -> Normal:
        """Return some blends."""
        return Normal(*(each[index] for each in self))


class SkyPrior(NamedTuple):
    """Student distribution of the sky about its mean: narrow, with tails for a background left in.

    Parameters
    ----------
    degrees : float
        Degrees of freedom.
    """

    degrees: float = 1.0

    def precision(self, offset: Tensor, sigma: Tensor) -> Tensor:
        """Weight of the quadratic that touches it at an offset."""
        return (self.degrees + 1.0) / (self.degrees * sigma.square() + offset.square())

    def objective(self, offset: Tensor, sigma: Tensor) -> Tensor:
        """Minus the log density, zero at the middle."""
        ratio = offset.square() / (self.degrees * sigma.square())
        return 0.5 * (self.degrees + 1.0) * torch.log(1.0 + ratio)


def evaluate(
    state: State, pixels: Pixels, prior: ShapePrior, sky: SkyPrior, view: View
) -> tuple[State, Normal]:
    """Solve for fluxes and sky at a state's shapes, and expand the objective about it.

    Parameters
    ----------
    state : State
        Shapes, and fluxes and sky near the solution: residuals are formed with them, in single precision.
    pixels : Pixels
        The blends' data.
    prior : ShapePrior
        Prior on their shapes.
    sky : SkyPrior
        Prior on their sky.
    view : View
        Their cells.

    Returns
    -------
    State
        The same shapes with fluxes and sky solved for.
    Normal
        The expansion about it.
    """
    blends, members = state.extended.shape
    bands = pixels.sky_mean.shape[1]
    unknowns = SHAPES * members + bands * (members + 1)
    gradient = state.shapes.new_zeros(blends, unknowns)
    hessian = state.shapes.new_zeros(blends, unknowns, unknowns)
    chi2, linear = state.shapes.new_zeros(blends, bands), torch.empty_like(state.linear)
    objective, wall = state.shapes.new_zeros(blends), torch.zeros_like(gradient)
    for band in range(bands):
        gram = _gram(state, pixels, band, view)
        offset = state.linear[:, band, -1] - pixels.sky_mean[:, band]
        pull = sky.precision(offset, pixels.sky_sigma[:, band])
        dark, least = _darkness(gram, members)
        below = state.linear[:, band, :-1] - least
        change = _linear_change(gram, members, offset, pull, below, dark)
        linear[:, band] = state.linear[:, band] + change
        turn = _turn(state, linear[:, band], change)
        gram = turn @ gram @ turn.transpose(1, 2)
        chi2[:, band] = gram[:, -1, -1]
        place = _places(members, band, state.shapes.device)
        drawn = _unknown_rows(members, gram.device)
        hessian[:, place[:, None], place] += gram[:, drawn[:, None], drawn]
        gradient[:, place] += gram[:, drawn, -1]
        offset = linear[:, band, -1] - pixels.sky_mean[:, band]
        hessian[:, place[-1], place[-1]] += pull
        gradient[:, place[-1]] -= pull * offset
        objective += 0.5 * chi2[:, band] + sky.objective(offset, pixels.sky_sigma[:, band])
        below = (linear[:, band, :-1] - least).clamp_max(0.0)
        dark = torch.where(below < 0.0, dark, 0.0)
        wall[:, place[-members - 1 : -1]] = dark
        gradient[:, place[-members - 1 : -1]] -= dark * below
        objective += 0.5 * (dark * below.square()).sum(dim=1)
    deviation = state.shapes - prior.mean
    pull = prior.precision * deviation
    objective += 0.5 * (pull * deviation).sum(dim=(1, 2))
    gradient[:, : SHAPES * members] -= pull.flatten(1)
    diagonal = hessian.diagonal(dim1=1, dim2=2)
    diagonal[:, : SHAPES * members] += prior.precision.flatten(1)
    diagonal += _RIDGE * diagonal + _NOTHING + wall
    return state._replace(linear=linear), Normal(objective, chi2, gradient, hessian, wall)


def _places(members: int, band: int, device: torch.device) -> Tensor:
    first = SHAPES * members + band * (members + 1)
    shapes = torch.arange(SHAPES * members, device=device)
    return torch.cat([shapes, torch.arange(first, first + members + 1, device=device)])


def planes_of(
    state: State, psf_weight: Tensor, psf_covariance: Tensor, basis: Tensor, view: View
) -> Iterator[tuple[slice, Tensor]]:
    """Draw members of unit flux in one band, some blends at once.

    Yields
    ------
    slice
        Which blends.
    Tensor of float32, shape (blend, member, 7, cell)
        Their planes, in memory that the next ones take.
    """
    blends, members = state.extended.shape
    profiles = state.profiles()
    weight = psf_weight.repeat_interleave(members, 0)
    covariance = psf_covariance.repeat_interleave(members, 0)
    for start in range(0, blends, view.chunk):
        some = slice(start, min(start + view.chunk, blends))
        each = slice(some.start * members, some.stop * members)
        planes = view.memory.take("planes", each.stop - each.start, PLANES, basis.shape[2])
        canvas = Canvas(basis[some], view.layout.spans, view.memory, not view.layout.averaged)
        part = Profiles(*(one[each] for one in profiles))
        draw_planes(part, weight[each], covariance[each], canvas, planes)
        yield some, planes.view(-1, members, *planes.shape[1:])


def _gram(state: State, pixels: Pixels, band: int, view: View) -> Tensor:
    """Products of all planes, a constant and the residual with each other: (blend, row, row)."""
    blends, members = state.extended.shape
    rows, cells = _rows(members), pixels.basis.shape[2]
    products = torch.empty(blends, rows, rows, device=pixels.basis.device)
    psf = pixels.psf_weight[:, band], pixels.psf_covariance[:, band]
    for some, planes in planes_of(state, *psf, pixels.basis, view):
        rooted = view.memory.take("rooted", len(planes), rows, cells)
        weight = pixels.root_weight[some, band]
        torch.mul(planes.flatten(1, 2), weight[:, None], out=rooted[:, : PLANES * members])
        rooted[:, PLANES * members : -2] = 0.0
        rooted[:, -2] = weight
        rooted[:, -1] = pixels.whitened[some, band]
        model = state.linear[some, band].float()
        for member in range(members):
            rooted[:, -1].addcmul_(rooted[:, PLANES * member], model[:, member, None], value=-1.0)
        rooted[:, -1].addcmul_(weight, model[:, -1, None], value=-1.0)
        torch.bmm(rooted, rooted.transpose(1, 2), out=products[some])
    return products.double()


def _linear_rows(members: int, device: torch.device) -> Tensor:
    return torch.cat([torch.arange(members, device=device) * PLANES, _sky_row(members, device)])


def _unknown_rows(members: int, device: torch.device) -> Tensor:
    return torch.cat([torch.arange(PLANES * members, device=device), _sky_row(members, device)])


def _sky_row(members: int, device: torch.device) -> Tensor:
    return torch.tensor([_rows(members) - 2], device=device)


def _rows(members: int) -> int:
    """Rows of the products: planes, a constant, the residual; one more makes them even (see ``cholesky``)."""
    return PLANES * members + 2 + members % 2


def _darkness(gram: Tensor, members: int) -> tuple[Tensor, Tensor]:
    """Precision of the prior on fluxes that are too negative, and where it begins: (blend, member) each.

    A source that is not there has a flux of zero within its error, on either side. Light far below that is
    another member's, which two profiles share: one takes away what the other has too much.
    """
    rows = torch.arange(members, device=gram.device) * PLANES
    alone = gram[:, rows, rows]
    return alone / _DARK_SIGMA**2, -_DARK_FROM * (alone + _NOTHING).rsqrt()


def _linear_change(
    gram: Tensor, members: int, offset: Tensor, pull: Tensor, below: Tensor, dark: Tensor
) -> Tensor:
    """Change of fluxes and sky that minimises the objective at these shapes: (blend, member + 1).

    ``below`` is how far fluxes are from where the prior on negative ones begins.
    """
    rows = _linear_rows(members, gram.device)
    matrix = gram[:, rows[:, None], rows]
    right = gram[:, rows, -1]
    matrix[:, -1, -1] += pull
    right[:, -1] -= pull * offset
    diagonal = matrix.diagonal(dim1=1, dim2=2)
    dark = torch.where(below < 0.0, dark, 0.0)
    diagonal[:, :-1] += dark
    right[:, :-1] -= dark * below
    diagonal += _RIDGE * diagonal + _NOTHING
    return solve(factor(matrix), right)


def _turn(state: State, linear: Tensor, change: Tensor) -> Tensor:
    """Matrix (blend, row, row) from the drawn planes to the unknowns' planes and the residual.

    Rows: shapes of all members, fluxes, sky, residual after ``change``.
    """
    blends, members = state.extended.shape
    turn = state.shapes.new_zeros(blends, _rows(members), _rows(members))
    _, _, _, t1, t2, _ = state.shapes.unbind(2)
    stretch = torch.sqrt(1.0 + t1.square() + t2.square())
    for member in range(members):
        flux = linear[:, member]
        row, plane = SHAPES * member, PLANES * member
        r, a, b = stretch[:, member], t1[:, member], t2[:, member]
        turn[:, row, plane + 1] = flux
        turn[:, row + 1, plane + 2] = flux
        turn[:, row + 2, plane + 3] = 2.0 * flux * (r + a)
        turn[:, row + 2, plane + 4] = 4.0 * flux * b
        turn[:, row + 2, plane + 5] = 2.0 * flux * (r - a)
        turn[:, row + 3, plane + 3] = flux * (a / r + 1.0)
        turn[:, row + 3, plane + 5] = flux * (a / r - 1.0)
        turn[:, row + 4, plane + 3] = flux * b / r
        turn[:, row + 4, plane + 4] = 2.0 * flux
        turn[:, row + 4, plane + 5] = flux * b / r
        turn[:, row + 5, plane + 6] = flux
        # A point source has position and flux alone.
        turn[:, row + 2 : row + SHAPES] *= state.extended[:, member, None, None]
        turn[:, SHAPES * members + member, plane] = 1.0
        turn[:, -1, plane] = -change[:, member]
    turn[:, -2, -2] = 1.0
    turn[:, -1, -2] = -change[:, -1]
    turn[:, -1, -1] = 1.0
    return turn
