"""What a fit says of blends, and how it follows from the maximum and the curvature there."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any

import torch
from torch import Tensor

from deblend_batch.models.profile_fit.search.normal import UNMEASURED, State
from deblend_batch.models.profile_fit.search.priors import SHAPES

_UNKNOWN_ANGLE_DEG = 51.96  # of an angle uniform over half a turn


@dataclass(frozen=True)
class BlendFit:
    """Fits of n blends; members beyond a blend's own are NaN (False, -1).

    Lengths are in px, fluxes in the pixels' unit.

    Parameters
    ----------
    flux, flux_err : Tensor of float64, shape (blend, band, member)
        Total fluxes, which may be negative, and their one-sigma errors, marginal over everything else; NaN
        where no pixel has weight.
    flux_noise : Tensor of float64, shape (blend, band, member)
        The part of the error that is not the PSF's: what tells whether there is any flux.
    flux_corr : Tensor of float64, shape (blend, band, member)
        Correlation of a flux's error with that of the nearest neighbour's; 0 without one.
    neighbour : Tensor of int64, shape (blend, member)
        The nearest member; -1 where there is none.
    yx, yx_err : Tensor of float64, shape (blend, member, 2)
        Refined positions in the stamp, 0-based pixel centres, and their errors.
    radius_px, radius_err_px : Tensor of float64, shape (blend, member)
        Half-light radius, circularised; along the major axis it is larger by one over the root of the axis
        ratio. Stars: 0 and NaN.
    sersic_n, sersic_n_err : Tensor of float64, shape (blend, member)
        Sersic index; NaN for stars.
    axis_ratio, axis_ratio_err : Tensor of float64, shape (blend, member)
        Minor over major axis; NaN for stars.
    position_angle, position_angle_err : Tensor of float64, shape (blend, member)
        Of the major axis from +x towards +y, degrees in (-90, 90]; NaN for stars.
    ellipticity, ellipticity_err : Tensor of float64, shape (blend, member, 2)
        Components of the reduced shear (1 - q) / (1 + q) along x and along the diagonal; NaN for stars.
    is_star : Tensor of bool, shape (blend, member)
        Whether a point source explains a member better.
    converged : Tensor of bool, shape (blend,)
        Whether the search ended at a maximum.
    chi2 : Tensor of float64, shape (blend, band)
        Sum of squared residuals over their variances, per pixel of weight; NaN without such pixels.
    squares : Tensor of float64, shape (blend, band)
        The same sum with the pixels' own noise alone, over all pixels: comparable between fits of one blend.
    sky, sky_err : Tensor of float64, shape (blend, band)
        Background that was left in, per pixel, and its error.
    sky_sn : Tensor of float64, shape (blend, band)
        The sky's distance from its prior's middle in errors: a background left in where it is large.
    peak_sn : Tensor of float64, shape (blend, band)
        Most significant positive peak of the residual, matched to the PSF and to wider things.
    peak_yx : Tensor of float64, shape (blend, band, 2)
        Where it stands.
    blendedness : Tensor of float64, shape (blend, band, member)
        Share of the light within a member's own profile that is other members'.
    mask_area : Tensor of float64, shape (blend, member)
        Pixels of the first band in which the member alone stands out of the noise by 1.5 sigma.
    mask_overlap : Tensor of float64, shape (blend, member)
        Those of them in which another member does so, too.
    models : Tensor of float32, shape (blend, band, member, y, x), or None
        The members' images, if asked for.
    """

    flux: Tensor
    flux_err: Tensor
    flux_noise: Tensor
    flux_corr: Tensor
    neighbour: Tensor
    yx: Tensor
    yx_err: Tensor
    radius_px: Tensor
    radius_err_px: Tensor
    sersic_n: Tensor
    sersic_n_err: Tensor
    axis_ratio: Tensor
    axis_ratio_err: Tensor
    position_angle: Tensor
    position_angle_err: Tensor
    ellipticity: Tensor
    ellipticity_err: Tensor
    is_star: Tensor
    converged: Tensor
    chi2: Tensor
    squares: Tensor
    sky: Tensor
    sky_err: Tensor
    sky_sn: Tensor
    peak_sn: Tensor
    peak_yx: Tensor
    blendedness: Tensor
    mask_area: Tensor
    mask_overlap: Tensor
    models: Tensor | None

    def cpu(self) -> BlendFit:
        """Return the same with all tensors in the host's memory.

        Returns
        -------
        BlendFit
            The copy.
        """
        values = {each.name: getattr(self, each.name) for each in fields(self)}
        moved: dict[str, Any] = {
            name: None if value is None else value.cpu() for name, value in values.items()
        }
        return BlendFit(**moved)


def member_columns(
    state: State, covariance: Tensor, middle_yx: tuple[float, float]
) -> dict[str, Tensor]:
    """Turn unknowns into a member's columns.

    Parameters
    ----------
    state : State
        The maximum.
    covariance : Tensor of float64, shape (blend, unknown, unknown)
        Inverse of the curvature.
    middle_yx : tuple of float
        The stamp's middle, px.

    Returns
    -------
    dict of str to Tensor
        Columns of :class:`BlendFit` that follow from shapes alone, and ``is_star``.
    """
    blends, members = state.extended.shape
    star = state.extended == 0.0
    block = torch.stack(
        [
            covariance[:, SHAPES * k : SHAPES * (k + 1), SHAPES * k : SHAPES * (k + 1)]
            for k in range(members)
        ],
        dim=1,
    )
    sigma = block.diagonal(dim1=2, dim2=3).sqrt()
    x, y, log_radius, t1, t2, log_index = state.shapes.unbind(2)
    size = torch.sqrt(t1.square() + t2.square())
    root = torch.sqrt(1.0 + size.square())
    # Along the stretch its size changes, across it the angle; without a stretch the two are alike.
    c, s = (
        torch.where(size > 0, t / size.clamp_min(1e-300), one) for t, one in ((t1, 1.0), (t2, 0.0))
    )
    v11, v12, v22 = block[..., 3, 3], block[..., 3, 4], block[..., 4, 4]
    along = (c * c * v11 + 2.0 * c * s * v12 + s * s * v22).clamp_min(0.0).sqrt()
    across = (s * s * v11 - 2.0 * c * s * v12 + c * c * v22).clamp_min(0.0).sqrt()
    ratio = root - size
    angle = torch.rad2deg(0.5 * torch.atan2(t2, t1))
    angle_err = torch.rad2deg(0.5 * across / size.clamp_min(1e-9)).clamp_max(_UNKNOWN_ANGLE_DEG)
    # g = t / (1 + root): its derivative along t is 1 / (root (1 + root)), across it 1 / (1 + root).
    radial, tangential = 1.0 / (root * (1.0 + root)), 1.0 / (1.0 + root)
    jacobian_11 = c * c * radial + s * s * tangential
    jacobian_12 = c * s * (radial - tangential)
    jacobian_22 = s * s * radial + c * c * tangential
    variance1 = jacobian_11**2 * v11 + 2 * jacobian_11 * jacobian_12 * v12 + jacobian_12**2 * v22
    variance2 = jacobian_12**2 * v11 + 2 * jacobian_12 * jacobian_22 * v12 + jacobian_22**2 * v22
    radius, index = torch.exp(log_radius), torch.exp(log_index)
    columns = {
        "radius_err_px": radius * sigma[..., 2],
        "sersic_n": index,
        "sersic_n_err": index * sigma[..., 5],
        "axis_ratio": ratio,
        "axis_ratio_err": ratio / root * along,
        "position_angle": angle,
        "position_angle_err": angle_err,
        "ellipticity": torch.stack([t1, t2], dim=2) * tangential[..., None],
        "ellipticity_err": torch.stack([variance1, variance2], dim=2).clamp_min(0.0).sqrt(),
    }
    columns = {
        name: torch.where(star.view(blends, members, *[1] * (value.dim() - 2)), torch.nan, value)
        for name, value in columns.items()
    }
    columns["radius_px"] = radius * state.extended
    columns["yx"] = torch.stack([y + middle_yx[0], x + middle_yx[1]], dim=2)
    columns["yx_err"] = sigma[..., [1, 0]]
    columns["is_star"] = star
    return columns


def linear_columns(
    state: State, covariance: Tensor, unit: Tensor, sky_mean: Tensor, psf_error: Tensor
) -> dict[str, Tensor]:
    """Turn the linear unknowns into columns, in the caller's unit.

    A PSF that puts a share of the light in the wrong place makes all fluxes of a blend wrong by that share,
    together.

    Parameters
    ----------
    state : State
        The maximum.
    covariance : Tensor of float64, shape (blend, unknown, unknown)
        Inverse of the curvature.
    unit : Tensor of float64, shape (blend, band)
        The caller's unit over the fit's.
    sky_mean : Tensor of float64, shape (blend, band)
        Middle of the sky's prior, fit's unit.
    psf_error : Tensor of float64, shape (blend, band)
        Share of a point source's light that the PSF may put in the wrong place.

    Returns
    -------
    dict of str to Tensor
        Fluxes, skies, errors, correlations and ``neighbour``.
    """
    blends, bands, count = state.linear.shape
    members = count - 1
    linear = covariance[:, SHAPES * members :, SHAPES * members :]
    sigma = linear.diagonal(dim1=1, dim2=2).clamp_min(0.0).sqrt().reshape(blends, bands, count)
    flux = state.linear[..., :-1]
    misplaced = flux * psf_error[..., None]
    flux_err = torch.hypot(sigma[..., :-1], misplaced)
    xy = state.shapes[..., :2]
    distance = (xy[:, :, None] - xy[:, None]).square().sum(dim=3)
    distance.diagonal(dim1=1, dim2=2).fill_(torch.inf)
    neighbour = distance.argmin(dim=2)
    rows = torch.arange(blends, device=xy.device)[:, None]
    own = torch.arange(members, device=xy.device)
    correlation = torch.zeros_like(flux)
    for band in range(bands if members > 1 else 0):
        first = band * count
        shared = linear[rows, first + own, first + neighbour]
        shared = shared + misplaced[:, band] * misplaced[rows, band, neighbour]
        both = flux_err[:, band] * flux_err[rows, band, neighbour]
        correlation[:, band] = shared / both
    if members == 1:
        neighbour = torch.full_like(neighbour, -1)
    sky, sky_err = state.linear[..., -1], sigma[..., -1]
    unmeasured = sigma[..., :-1] > UNMEASURED
    return {
        "flux": (flux * unit[..., None]).masked_fill(unmeasured, torch.nan),
        "flux_err": (flux_err * unit[..., None]).masked_fill(unmeasured, torch.nan),
        "flux_noise": (sigma[..., :-1] * unit[..., None]).masked_fill(unmeasured, torch.nan),
        "flux_corr": correlation.masked_fill(unmeasured, torch.nan),
        "neighbour": neighbour,
        "sky": sky * unit,
        "sky_err": sky_err * unit,
        "sky_sn": (sky - sky_mean) / sky_err,
    }


def with_leaked(columns: dict[str, Tensor], leaked: Tensor) -> dict[str, Tensor]:
    """Add what may have leaked from one member to another to the errors of fluxes, (blend, band, member).

    Covariances stay as they are.
    """
    before = columns["flux_err"]
    after = torch.hypot(before, leaked)
    more = torch.where(before > 0, after / before, 1.0)
    neighbour = columns["neighbour"].clamp_min(0)[:, None].expand_as(more)
    corr = columns["flux_corr"] / (more * more.gather(2, neighbour))
    return {"flux_err": after, "flux_corr": corr}
