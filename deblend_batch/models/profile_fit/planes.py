"""Images of profiles and of their derivatives: two matrix products round one exponential.

Each source is a sum of C = K x P Gaussians (galaxy's by PSF's). Over the pixels p of a stamp,

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
from torch.nn import functional

from deblend_batch.models.profile_fit.sersic import sersic_mixture

PLANES = 7
"""Profile of unit flux; its derivatives by x, y; by the covariance's xx, xy, yy; by ln n."""

_LEAST_EXPONENT = -40.0  # exp makes denormals from -87 on, at five times the cost
_SUMS = 17
_VECTOR = 16
_HEIGHT_ROWS = 4  # a product of one row is another kernel, which rounds by place
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


class Grid:
    """Pixels of a stamp, and the memory that drawing on it needs.

    Parameters
    ----------
    height, width : int
        Stamp, px of the image.
    device : torch.device
        Where.
    step : int
        Pixels of the image per pixel of this grid, on each axis.
    """

    def __init__(self, height: int, width: int, device: torch.device, step: int = 1) -> None:
        self.step = step
        self.shape = (-(-height // step), -(-width // step))
        y, x = (
            torch.arange(n, dtype=torch.float64) * step + (step - 1) / 2.0 - (side - 1) / 2.0
            for n, side in zip(self.shape, (height, width), strict=True)
        )
        y, x = y.repeat_interleave(len(x)), x.repeat(len(y))
        basis = torch.stack([torch.ones_like(x), x, y, x * x, x * y, y * y])
        # BLAS rounds by a row's place in memory: rows of whole vectors, the rest without weight, begin alike.
        basis = functional.pad(basis, (0, -basis.shape[1] % _VECTOR))
        self.basis = basis.to(device, torch.float32)
        self._memory: dict[str, Tensor] = {}

    @property
    def pixels(self) -> int:
        """Number of pixels, filled up to whole vectors."""
        return self.basis.shape[1]

    def buffer(self, name: str, *shape: int) -> Tensor:
        """Return memory that is used again and again: fresh pages cost more than the arithmetic on them.

        Parameters
        ----------
        name : str
            Of the buffer.
        *shape : int
            What is needed; its content is left from before.

        Returns
        -------
        Tensor of float32
            A contiguous view.
        """
        length = 1
        for side in shape:
            length *= side
        held = self._memory.get(name)
        if held is None or held.numel() < length:
            held = torch.empty(length, device=self.basis.device)
            self._memory[name] = held
        return held[:length].view(shape)


class _Gaussians(NamedTuple):
    """Components of m sources, float64 (m, C)."""

    height: Tensor
    xx: Tensor
    xy: Tensor
    yy: Tensor
    scale: Tensor
    amplitude_slope: Tensor
    width_slope: Tensor


def _gaussians(profiles: Profiles, psf_weight: Tensor, psf_covariance: Tensor) -> _Gaussians:
    """Convolve each galaxy's Gaussians with each of its PSF's; xx, xy, yy are of the inverse covariance."""
    mixture = sersic_mixture(profiles.log_index)
    radius = torch.exp(profiles.log_radius) * profiles.extended
    scale = (mixture.width * radius[:, None]).square()[:, :, None]
    round_part = torch.sqrt(1.0 + profiles.stretch1.square() + profiles.stretch2.square())
    c_xx, c_yy = (round_part + profiles.stretch1), (round_part - profiles.stretch1)
    psi = psf_covariance[:, None]
    s_xx = scale * c_xx[:, None, None] + psi[..., 0]
    s_xy = scale * profiles.stretch2[:, None, None] + psi[..., 1]
    s_yy = scale * c_yy[:, None, None] + psi[..., 2]
    determinant = s_xx * s_yy - s_xy.square()
    height = (
        mixture.amplitude[:, :, None] * psf_weight[:, None] / (_TWO_PI * torch.sqrt(determinant))
    )
    like = torch.ones_like(height)
    return _Gaussians(
        *(
            each.flatten(1)
            for each in (
                height,
                s_yy / determinant,
                -s_xy / determinant,
                s_xx / determinant,
                scale * like,
                mixture.amplitude_slope[:, :, None] * like,
                mixture.log_width_slope[:, :, None] * like,
            )
        )
    )


def _exponent_coefficients(gaussians: _Gaussians, x: Tensor, y: Tensor) -> Tensor:
    xx, xy, yy = gaussians.xx, gaussians.xy, gaussians.yy
    x, y = x[:, None], y[:, None]
    along_x, along_y = xx * x + xy * y, xy * x + yy * y
    constant = -0.5 * (along_x * x + along_y * y)
    return torch.stack([constant, along_x, along_y, -0.5 * xx, -xy, -0.5 * yy], dim=2)


def _sum_weights(gaussians: _Gaussians, profiles: Profiles) -> Tensor:
    """Weights (m, 17, C) of the exponentials in the sums that make the planes."""
    h, xx, xy, yy = gaussians.height, gaussians.xx, gaussians.xy, gaussians.yy
    half = 0.5 * h * gaussians.scale
    # d/d ln n moves amplitudes and widths; the widths' part is a derivative by the covariance along C.
    round_part = torch.sqrt(1.0 + profiles.stretch1.square() + profiles.stretch2.square())[:, None]
    c_xx, c_yy = round_part + profiles.stretch1[:, None], round_part - profiles.stretch1[:, None]
    c_xy = profiles.stretch2[:, None]
    wider = 2.0 * half * gaussians.width_slope
    u_x, v_x = xx * c_xx + xy * c_xy, xx * c_xy + xy * c_yy
    u_y, v_y = xy * c_xx + yy * c_xy, xy * c_xy + yy * c_yy
    return torch.stack(
        [
            h,
            h * xx,
            h * xy,
            h * yy,
            half * xx * xx,
            half * xx * xy,
            half * xy * xy,
            half * (xx * yy + xy * xy),
            half * xy * yy,
            half * yy * yy,
            half * xx,
            half * xy,
            half * yy,
            h * gaussians.amplitude_slope - wider * (u_x + v_y),
            wider * (u_x * xx + v_x * xy),
            wider * (u_x * xy + v_x * yy + u_y * xx + v_y * xy),
            wider * (u_y * xy + v_y * yy),
        ],
        dim=1,
    )


def draw_planes(
    profiles: Profiles, psf_weight: Tensor, psf_covariance: Tensor, grid: Grid, out: Tensor
) -> None:
    """Draw sources of unit flux and their derivatives.

    Parameters
    ----------
    profiles : Profiles
        Shapes of m sources.
    psf_weight : Tensor of float64, shape (m, P)
        Weights of the PSF's Gaussians.
    psf_covariance : Tensor of float64, shape (m, P, 3)
        Their xx, xy, yy, square pixels, the pixel included.
    grid : Grid
        Where to draw.
    out : Tensor of float32, shape (m, 7, pixels)
        Takes the planes, in the order of ``PLANES``.
    """
    m = len(profiles.x)
    gaussians = _gaussians(profiles, psf_weight, psf_covariance)
    exponential = _exponentials(gaussians, profiles, grid)
    sums = grid.buffer("sums", m, _SUMS, grid.pixels)
    torch.bmm(_sum_weights(gaussians, profiles).float(), exponential, out=sums)
    x, y = grid.buffer("x", m, grid.pixels), grid.buffer("y", m, grid.pixels)
    torch.sub(grid.basis[1], profiles.x.float()[:, None], out=x)
    torch.sub(grid.basis[2], profiles.y.float()[:, None], out=y)
    _combine(sums, x, y, grid, out)


def draw_profiles(
    profiles: Profiles, psf_weight: Tensor, psf_covariance: Tensor, grid: Grid, out: Tensor
) -> None:
    """Draw sources of unit flux alone; as :func:`draw_planes`, ``out`` is (m, pixels)."""
    gaussians = _gaussians(profiles, psf_weight, psf_covariance)
    exponential = _exponentials(gaussians, profiles, grid)
    rows = grid.buffer("heights", len(out), _HEIGHT_ROWS, grid.pixels)
    height = gaussians.height.float()[:, None].repeat(1, _HEIGHT_ROWS, 1)
    out.copy_(torch.bmm(height, exponential, out=rows)[:, 0])


def _exponentials(gaussians: _Gaussians, profiles: Profiles, grid: Grid) -> Tensor:
    coefficients = _exponent_coefficients(gaussians, profiles.x, profiles.y).float()
    m, components, terms = coefficients.shape
    basis = grid.basis.expand(m, terms, grid.pixels)
    exponential = grid.buffer("exponential", m, components, grid.pixels)
    torch.bmm(coefficients, basis, out=exponential)
    return exponential.clamp_(min=_LEAST_EXPONENT, max=0.0).exp_()


def _combine(sums: Tensor, x: Tensor, y: Tensor, grid: Grid, out: Tensor) -> None:
    """Make planes of sums: each is a polynomial in the pixel's place with sums as coefficients."""
    out[:, 0] = sums[:, 0]
    torch.mul(sums[:, 1], x, out=out[:, 1]).addcmul_(sums[:, 2], y)
    torch.mul(sums[:, 2], x, out=out[:, 2]).addcmul_(sums[:, 3], y)
    xx = torch.mul(x, x, out=grid.buffer("xx", *x.shape))
    xy = torch.mul(x, y, out=grid.buffer("xy", *x.shape)).mul_(2.0)
    yy = torch.mul(y, y, out=grid.buffer("yy", *x.shape))
    quadratics = ((4, 5, 6, 10), (5, 7, 8, 11), (6, 8, 9, 12))
    for plane, (a, b, c, less) in enumerate(quadratics, 3):
        target = torch.mul(sums[:, a], xx, out=out[:, plane]).addcmul_(sums[:, c], yy)
        # The mixed coefficient of the xy plane is half a sum of two products: see its weight.
        target.addcmul_(sums[:, b], xy, value=0.5 if plane == 4 else 1.0)
        target.sub_(sums[:, less])
    torch.mul(sums[:, 14], xx, out=out[:, 6]).addcmul_(sums[:, 15], xy, value=0.5)
    out[:, 6].addcmul_(sums[:, 16], yy).add_(sums[:, 13])
