"""Images of profiles and of their derivatives: two matrix products round one exponential.

Each source is a sum of C = K x P Gaussians (galaxy's by PSF's). Over the cells of a stamp,

1. the exponents are a product of (C, 6) coefficients with the basis (1, x, y, x^2, xy, y^2);
2. the exponential is taken in place;
3. a product of (17, C) weights with it gives the sums from which all planes follow.

The derivative of a Gaussian by its covariance is half its second derivative by position, so the planes hold
polynomials of degree two or less in the pixel's place, times the same exponentials.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from deblend_batch.models.profile_fit.light.cells import Memory, Span
from deblend_batch.models.profile_fit.light.sersic import SersicMixture, sersic_mixture

PLANES = 7
"""Profile of unit flux; its derivatives by x, y; by the covariance's xx, xy, yy; by ln n."""

_LEAST_EXPONENT = -40.0  # exp makes denormals from -87 on, at five times the cost
_SUMS = 17
_SUMS_BY_PLACE = 13  # without those of the index
_TWO_PI = 6.283185307179586


class Profiles(NamedTuple):
    """Shapes of m sources, float64; positions are px from the stamp's middle.

    Parameters
    ----------
    x, y : Tensor, shape (m,)
        Position, px.
    log_radius : Tensor, shape (m,)
        ln of the circularised half-light radius, px.
    stretch1, stretch2 : Tensor, shape (m,)
        Ellipticity: the covariance of each Gaussian is its width squared times
        ``sqrt(1 + |t|^2) I + [[t1, t2], [t2, -t1]]``, of determinant one for any t.
    log_index : Tensor, shape (m,)
        ln of the Sersic index.
    extended : Tensor, shape (m,)
        1 for a galaxy, 0 for a point source, whose radius counts as zero.
    """

    x: Tensor
    y: Tensor
    log_radius: Tensor
    stretch1: Tensor
    stretch2: Tensor
    log_index: Tensor
    extended: Tensor


class Canvas(NamedTuple):
    """Where n blends are drawn.

    Parameters
    ----------
    basis : Tensor of float32, shape (n, 6, cell)
        1, x, y, x^2, xy, y^2 of the cells' middles.
    spans : tuple of Span
        The cells' sizes.
    memory : Memory
        What drawing needs.
    by_place : bool
        Whether the planes by xx, xy, yy are derivatives by the covariance of the whole, half the second ones
        by place, instead of those by the galaxy's alone.
    """

    basis: Tensor
    spans: tuple[Span, ...]
    memory: Memory
    by_place: bool


class _Gaussians(NamedTuple):
    """Components of m sources in cells of each size, float32 (size, m, C); xx to yy are of the inverse."""

    height: Tensor
    xx: Tensor
    xy: Tensor
    yy: Tensor
    scale: Tensor
    amplitude_slope: Tensor
    width_slope: Tensor


def _gaussians(
    profiles: Profiles, psf_weight: Tensor, psf_covariance: Tensor, spans: tuple[Span, ...]
) -> _Gaussians:
    """Convolve each galaxy's Gaussians with each of its PSF's, and with the cells."""
    mixture = SersicMixture(*(each.float() for each in sersic_mixture(profiles.log_index)))
    radius = torch.exp(profiles.log_radius.float()) * profiles.extended.float()
    scale = (mixture.width * radius[:, None]).square()[:, :, None]
    t1, t2 = profiles.stretch1.float()[:, None, None], profiles.stretch2.float()[:, None, None]
    round_part = torch.sqrt(1.0 + t1.square() + t2.square())
    psi = psf_covariance.float()[:, None]
    wider = scale.new_tensor([span.widening for span in spans])[:, None, None]
    s_xx = (scale * (round_part + t1) + psi[..., 0]).flatten(1) + wider
    s_xy = (scale * t2 + psi[..., 1]).flatten(1)
    s_yy = (scale * (round_part - t1) + psi[..., 2]).flatten(1) + wider
    determinant = s_xx * s_yy - s_xy.square()
    weight = (mixture.amplitude[:, :, None] * psf_weight.float()[:, None]).flatten(1)
    components = psf_weight.shape[1]
    return _Gaussians(
        weight / (_TWO_PI * torch.sqrt(determinant)),
        s_yy / determinant,
        -s_xy / determinant,
        s_xx / determinant,
        scale.expand(-1, -1, components).flatten(1),
        mixture.amplitude_slope.repeat_interleave(components, 1),
        mixture.log_width_slope.repeat_interleave(components, 1),
    )


def _exponent_coefficients(gaussians: _Gaussians, x: Tensor, y: Tensor) -> Tensor:
    """Coefficients (size, m, C, 6) of the basis."""
    xx, xy, yy = gaussians.xx, gaussians.xy, gaussians.yy
    x, y = x.float()[:, None], y.float()[:, None]
    along_x, along_y = xx * x + xy * y, xy * x + yy * y
    constant = -0.5 * (along_x * x + along_y * y)
    terms = (constant, along_x, along_y, -0.5 * xx, -xy, -0.5 * yy)
    return torch.stack(terms, dim=3)


def _sum_weights(gaussians: _Gaussians, profiles: Profiles) -> Tensor:
    """Weights (size, m, 17, C) of the exponentials in the sums that make the planes."""
    h, xx, xy, yy = gaussians.height, gaussians.xx, gaussians.xy, gaussians.yy
    half = 0.5 * h * gaussians.scale
    # d/d ln n moves amplitudes and widths; the widths' part is a derivative by the covariance along C.
    t1, c_xy = profiles.stretch1.float()[:, None], profiles.stretch2.float()[:, None]
    round_part = torch.sqrt(1.0 + t1.square() + c_xy.square())
    c_xx, c_yy = round_part + t1, round_part - t1
    wider = 2.0 * half * gaussians.width_slope
    u_x, v_x = xx * c_xx + xy * c_xy, xx * c_xy + xy * c_yy
    u_y, v_y = xy * c_xx + yy * c_xy, xy * c_xy + yy * c_yy
    half_xx, half_xy, half_yy = half * xx, half * xy, half * yy
    rows = (
        h,
        h * xx,
        h * xy,
        h * yy,
        half_xx * xx,
        half_xx * xy,
        half_xy * xy,
        half_xx * yy + half_xy * xy,
        half_xy * yy,
        half_yy * yy,
        half_xx,
        half_xy,
        half_yy,
        h * gaussians.amplitude_slope - wider * (u_x + v_y),
        wider * (u_x * xx + v_x * xy),
        wider * (u_x * xy + v_x * yy + u_y * xx + v_y * xy),
        wider * (u_y * xy + v_y * yy),
    )
    return torch.stack(rows, dim=2)


def draw_planes(
    profiles: Profiles, psf_weight: Tensor, psf_covariance: Tensor, canvas: Canvas, out: Tensor
) -> None:
    """Draw sources of unit flux and their derivatives.

    Parameters
    ----------
    profiles : Profiles
        Shapes of the sources, those of each blend together.
    psf_weight : Tensor of float64, shape (m, P)
        Weights of the PSF's Gaussians.
    psf_covariance : Tensor of float64, shape (m, P, 3)
        Their xx, xy, yy, square pixels, the pixel included.
    canvas : Canvas
        Where to draw.
    out : Tensor of float32, shape (m, 7, cell)
        Takes the planes, in the order of ``PLANES``.
    """
    m, blends = len(profiles.x), len(canvas.basis)
    gaussians = _gaussians(profiles, psf_weight, psf_covariance, canvas.spans)
    if canvas.by_place:
        gaussians = gaussians._replace(scale=torch.ones_like(gaussians.scale))
    coefficients = _exponent_coefficients(gaussians, profiles.x, profiles.y)
    weights = _sum_weights(gaussians, profiles)
    sums_wanted = _SUMS_BY_PLACE if canvas.by_place else _SUMS
    weights = weights[:, :, :sums_wanted].contiguous()
    x, y = (each.float().view(blends, -1, 1) for each in (profiles.x, profiles.y))
    for size, span in enumerate(canvas.spans):
        basis = canvas.basis[..., span.start : span.stop]
        exponential = _exponentials(coefficients[size], basis, canvas.memory)
        sums = canvas.memory.take("sums", m, sums_wanted, span.cells)
        torch.bmm(weights[size], exponential, out=sums)
        dx = canvas.memory.take("x", *x.shape[:2], span.cells)
        dy = canvas.memory.take("y", *y.shape[:2], span.cells)
        torch.sub(basis[:, 1, None], x, out=dx)
        torch.sub(basis[:, 2, None], y, out=dy)
        planes = out[..., span.start : span.stop]
        _combine(sums, dx.flatten(0, 1), dy.flatten(0, 1), canvas.memory, planes)


def _exponentials(coefficients: Tensor, basis: Tensor, memory: Memory) -> Tensor:
    """Exponentials of all components of m sources in cells of one size: (m, C, cell)."""
    m, components, terms = coefficients.shape
    blends, _, cells = basis.shape
    together = coefficients.view(blends, -1, terms)
    exponential = memory.take("exponential", blends, together.shape[1], cells)
    torch.bmm(together, basis, out=exponential)
    return exponential.clamp_(min=_LEAST_EXPONENT, max=0.0).exp_().view(m, components, cells)


def _combine(sums: Tensor, x: Tensor, y: Tensor, memory: Memory, out: Tensor) -> None:
    """Make planes of sums: each is a polynomial in the cell's place with sums as coefficients."""
    out[:, 0] = sums[:, 0]
    torch.mul(sums[:, 1], x, out=out[:, 1]).addcmul_(sums[:, 2], y)
    torch.mul(sums[:, 2], x, out=out[:, 2]).addcmul_(sums[:, 3], y)
    xx = torch.mul(x, x, out=memory.take("xx", *x.shape))
    xy = torch.mul(x, y, out=memory.take("xy", *x.shape)).mul_(2.0)
    yy = torch.mul(y, y, out=memory.take("yy", *x.shape))
    quadratics = ((4, 5, 6, 10), (5, 7, 8, 11), (6, 8, 9, 12))
    for plane, (a, b, c, less) in enumerate(quadratics, 3):
        target = torch.mul(sums[:, a], xx, out=out[:, plane]).addcmul_(sums[:, c], yy)
        # The mixed coefficient of the xy plane is half a sum of two products: see its weight.
        target.addcmul_(sums[:, b], xy, value=0.5 if plane == 4 else 1.0)
        target.sub_(sums[:, less])
    if sums.shape[1] == _SUMS_BY_PLACE:
        return
    torch.mul(sums[:, 14], xx, out=out[:, 6]).addcmul_(sums[:, 15], xy, value=0.5)
    out[:, 6].addcmul_(sums[:, 16], yy).add_(sums[:, 13])
