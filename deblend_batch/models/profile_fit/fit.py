"""Fit Sersic profiles and point sources to blends of any size, a whole batch at once."""

from __future__ import annotations

from dataclasses import fields, replace
from typing import Any

import torch
from torch import Tensor

from deblend_batch.models.profile_fit.arguments import (
    check_measured,
    check_members,
    check_numbers,
    check_psf,
    check_stamps,
)
from deblend_batch.models.profile_fit.light.cells import Cells, Memory, Plan, View
from deblend_batch.models.profile_fit.light.psf import PsfStack
from deblend_batch.models.profile_fit.light.sersic import COMPONENTS
from deblend_batch.models.profile_fit.result import (
    BlendFit,
    linear_columns,
    member_columns,
    with_leaked,
)
from deblend_batch.models.profile_fit.search.cholesky import factor, inverse
from deblend_batch.models.profile_fit.search.config import FitConfig
from deblend_batch.models.profile_fit.search.maximum import Problem, find_maximum
from deblend_batch.models.profile_fit.search.misfit import between
from deblend_batch.models.profile_fit.search.normal import State
from deblend_batch.models.profile_fit.search.residual import (
    blendedness_of,
    find_peak,
    leaked_light,
    left_over,
    mask_areas,
    misplaced_light,
)
from deblend_batch.models.profile_fit.search.stamps import (
    Blends,
    cleaned,
    nearest_measured,
    unit_of,
)
from deblend_batch.models.profile_fit.search.stars import let_stars_be_stars

Columns = dict[str, Any]
"""Columns of a result by name; Tensors, or None where one was not asked for."""

_COARSE = Plan(2, (4.0, 10.0))
_FINE = Plan(1, (5.0, 12.0))
_WHOLE = _FINE._replace(averaged=False)  # the same cells
_CPU_BYTES = 4e6  # of exponentials, or of images, at once: they should stay in the cache
_CUDA_BYTES = 1.5e9
_IMAGES = 4  # of a member at once
_SKY_SIGMA = 0.02  # of the noise of a pixel, where nothing is said

_PER_MEMBER = {  # places of the member's axis
    "flux": 2, "flux_err": 2, "flux_noise": 2, "flux_corr": 2, "blendedness": 2, "models": 2,
    "neighbour": 1, "yx": 1, "yx_err": 1, "radius_px": 1, "radius_err_px": 1,
    "sersic_n": 1, "sersic_n_err": 1, "axis_ratio": 1, "axis_ratio_err": 1, "position_angle": 1,
    "position_angle_err": 1, "ellipticity": 1, "ellipticity_err": 1, "is_star": 1,
    "mask_area": 1, "mask_overlap": 1,
}  # fmt: skip


def fit_blends(
    pixels: Tensor,
    weights: Tensor,
    positions: Tensor,
    position_err: Tensor | float,
    n_members: Tensor,
    psf: PsfStack,
    pixel_scale_arcsec: Tensor | float,
    njy_per_unit: Tensor | float = 1.0,
    sky_mean: Tensor | float = 0.0,
    sky_sigma: Tensor | float | None = None,
    config: FitConfig | None = None,
    with_models: bool = False,
    *,
    n_measured: Tensor | None = None,
) -> BlendFit:
    """Fit every blend: shapes shared by all bands, a flux for each member and a sky in each band.

    On a CPU a blend's result does not depend, to the bit, on which others share the batch; with images and
    ``sky_sigma`` times a power of two, weights and ``njy_per_unit`` to match, fluxes are times it.

    Parameters
    ----------
    pixels : Tensor, shape (blend, band, y, x)
        Stamps, any linear unit. All tensors are on one device, where the fit runs.
    weights : Tensor, shape (blend, band, y, x)
        Inverse variance; 0 where there is no data (whatever the pixel then is). NaN pixels or weights
        count as no data.
    positions : Tensor, shape (blend, member, 2)
        Detected positions y, x in the stamp, 0-based pixel centres; rows beyond ``n_members`` are not
        looked at.
    position_err : Tensor or float
        One-sigma error of a position along each axis, px: (blend, member) or one for all.
    n_members : Tensor of int64, shape (blend,)
        Number of members of each blend.
    psf : PsfStack
        PSF of each blend and band, the pixel included.
    pixel_scale_arcsec : Tensor or float
        Size of a pixel: (blend,) or one for all.
    njy_per_unit : Tensor or float
        nJy of one unit of the pixels, for the prior's magnitudes: (blend, band) or one for all. The prior is
        of galaxies near 800 nm; of several bands the brightest counts.
    sky_mean : Tensor or float
        Background expected to be left in: (blend, band) or one for all.
    sky_sigma : Tensor or float, optional
        How far the sky usually is from it; tails are heavy, so that a background of any size is found. By
        default 0.02 of a pixel's noise.
    config : FitConfig, optional
        Settings.
    with_models : bool
        Whether to return the members' images.
    n_measured : Tensor of int64, shape (blend,), optional
        Members that are measured, those that stand first; all by default. ``chi2`` and peaks in the residual
        are those of pixels that are not nearer to others.

    Returns
    -------
    BlendFit
        One row a blend, on the device of ``pixels``.

    Raises
    ------
    ModelError
        If shapes do not fit together, or positions, errors, PSFs or units are not usable numbers.
    """
    config = config or FitConfig()
    blends, bands = check_stamps(pixels, weights)
    device = pixels.device

    def filled(value: Tensor | float, *shape: int) -> Tensor:
        given = torch.as_tensor(value, dtype=torch.float64, device=device)
        return given.expand(shape) if given.dim() == 0 else given

    position_err = filled(position_err, *positions.shape[:2])
    n_measured = n_members if n_measured is None else n_measured
    check_members(positions, n_members, position_err, blends)
    check_measured(n_measured, n_members)
    check_psf(psf, blends, bands)
    scale, njy = filled(pixel_scale_arcsec, blends), filled(njy_per_unit, blends, bands)
    check_numbers("pixel_scale_arcsec", scale, positive=True)
    check_numbers("njy_per_unit", njy, positive=True)
    unit = unit_of(weights)
    mean = filled(sky_mean, blends, bands)
    check_numbers("sky_mean", mean, positive=False)
    sigma = _SKY_SIGMA * unit if sky_sigma is None else filled(sky_sigma, blends, bands)
    check_numbers("sky_sigma", sigma, positive=True)
    image, weight = cleaned(pixels, weights, unit)
    middle = positions.new_tensor([(side - 1) / 2.0 for side in pixels.shape[2:]])
    data = Blends(
        image,
        weight,
        unit,
        nearest_measured(positions, n_members, n_measured, image.shape[2:]),
        (positions - middle).flip(2).double(),
        position_err,
        PsfStack(*(each.double() for each in psf)),
        scale,
        njy * unit,
        mean / unit,
        sigma / unit,
    )
    memory = Memory(device)
    result = _empty(pixels.shape, positions.shape[1], device, with_models)
    for members in sorted(set(n_members.tolist())):
        rows = (n_members == members).nonzero()[:, 0]
        part = data.rows(rows)
        part = part._replace(xy=part.xy[:, :members], position_err=part.position_err[:, :members])
        _write(result, rows, members, _fit(_problem(part, config, memory), with_models))
    return BlendFit(**result)


def _problem(blends: Blends, config: FitConfig, memory: Memory) -> Problem:
    height, width = blends.image.shape[2:]
    members, gaussians = blends.xy.shape[1], blends.psf.weight.shape[2] * COMPONENTS

    held = _CUDA_BYTES if memory.device.type == "cuda" else _CPU_BYTES

    def view(plan: Plan) -> View:
        layout = plan.layout(height, width, members, memory.device)
        cells = max(span.cells for span in layout.spans)
        return View(layout, memory, max(1, int(held / (4 * members * gaussians * cells))))

    images = max(1, int(held / (4 * _IMAGES * members * height * width)))
    return Problem(blends, config, view(_COARSE), view(_FINE), view(_WHOLE), images)


def _fit(problem: Problem, with_models: bool) -> Columns:
    """Fit blends of one number of members."""
    found, prior, level, trusted, cells = find_maximum(problem)
    found = let_stars_be_stars(found, problem, prior, level)
    free = found.normal.hessian - torch.diag_embed(found.normal.wall)
    covariance = inverse(factor(free), free.shape[1])
    blends = problem.blends
    height, width = blends.image.shape[2:]
    columns: Columns = {
        **member_columns(found.state, covariance, ((height - 1) / 2.0, (width - 1) / 2.0)),
        **linear_columns(found.state, covariance, blends.unit, blends.sky_mean, blends.psf.error),
        "converged": found.converged,
    }
    shown = _without(found.state, columns["flux"].isnan())
    columns |= _residual_columns(shown, problem, trusted, cells, with_models)
    columns["flux"] = columns["flux"] + columns.pop("misplaced") * blends.unit[..., None]
    leaked = problem.config.trust.leaked * columns.pop("leaked") * blends.unit[..., None]
    return columns | with_leaked(columns, leaked)


def _without(state: State, unmeasured: Tensor) -> State:
    """Return the state without the light of members of which no pixel tells, (blend, band, member)."""
    linear = state.linear.clone()
    linear[..., :-1] = linear[..., :-1].masked_fill(unmeasured, 0.0)
    return state._replace(linear=linear)


def _residual_columns(
    state: State, problem: Problem, trusted: Tensor, cells: Cells, with_models: bool
) -> Columns:
    """Draw the blends, some at once, and say what is left over of them."""
    parts = []
    for some in problem.slices():
        part = replace(problem, blends=problem.blends.rows(some))
        here = Cells(*(each[some] for each in cells))
        parts.append(_seen(state.rows(some), part, trusted[some], here, with_models))
    return {
        name: None if first is None else torch.cat([part[name] for part in parts])
        for name, first in parts[0].items()
    }


def _seen(
    state: State, problem: Problem, trusted: Tensor, cells: Cells, with_models: bool
) -> Columns:
    blends, config = problem.blends, problem.config
    sigma = blends.psf.sigma_px()
    stamp = blends.image.shape[2:]
    chi2, plain, peak, place, blended, images, misplaced, leaked = ([] for _ in range(8))
    for band in range(blends.image.shape[1]):
        models, total, residual = left_over(blends, state, band, problem.whole, cells)
        weight, ours = blends.weight[:, band], blends.ours
        blended.append(blendedness_of(models, weight.flatten(1)))
        misplaced.append(misplaced_light(models, residual, weight, trusted[:, band]))
        leaked.append(leaked_light(models, weight, trusted[:, band]))
        if band == 0:
            area, overlap = mask_areas(models, weight.flatten(1))
        seen = between(weight, trusted[:, band], 1.0 / max(config.trust.misfit_factor, 1.0))
        significance, yx = find_peak(
            residual, seen, total, ours, sigma[:, band], config.model_error
        )
        peak.append(significance)
        place.append(yx)
        count = (ours & (weight > 0)).flatten(1).sum(dim=1).double()
        squares = (residual.square() * trusted[:, band] * ours).flatten(1).sum(dim=1).double()
        plain.append((residual.square() * weight).flatten(1).sum(dim=1).double())
        chi2.append(squares / torch.where(count > 0, count, torch.nan))
        if with_models:
            unit = blends.unit[:, band].float()[:, None, None, None]
            images.append(models.reshape(*models.shape[:2], *stamp) * unit)
    return {
        "chi2": torch.stack(chi2, dim=1),
        "squares": torch.stack(plain, dim=1),
        "peak_sn": torch.stack(peak, dim=1),
        "peak_yx": torch.stack(place, dim=1),
        "blendedness": torch.stack(blended, dim=1),
        "mask_area": area,
        "mask_overlap": overlap,
        "misplaced": torch.stack(misplaced, dim=1),
        "leaked": torch.stack(leaked, dim=1),
        "models": torch.stack(images, dim=1) if with_models else None,
    }


def _empty(stamps: torch.Size, members: int, device: torch.device, with_models: bool) -> Columns:
    """Make columns of NaN (False, -1)."""
    blends, bands, height, width = stamps
    shapes: dict[str, tuple[int, ...]] = {
        **dict.fromkeys(
            ("flux", "flux_err", "flux_noise", "flux_corr", "blendedness"), (bands, members)
        ),
        **dict.fromkeys(("chi2", "squares", "sky", "sky_err", "sky_sn", "peak_sn"), (bands,)),
        **dict.fromkeys(("yx", "yx_err", "ellipticity", "ellipticity_err"), (members, 2)),
        "peak_yx": (bands, 2),
        "converged": (),
        "models": (bands, members, height, width),
    }
    result: Columns = {}
    for each in fields(BlendFit):
        shape = (blends, *shapes.get(each.name, (members,)))
        if each.name in {"is_star", "converged"}:
            result[each.name] = torch.zeros(shape, dtype=torch.bool, device=device)
        elif each.name == "neighbour":
            result[each.name] = torch.full(shape, -1, device=device)
        elif each.name == "models":
            result[each.name] = torch.full(shape, torch.nan, device=device) if with_models else None
        else:
            result[each.name] = torch.full(shape, torch.nan, dtype=torch.float64, device=device)
    return result


def _write(result: Columns, rows: Tensor, members: int, part: Columns) -> None:
    for name, values in part.items():
        column = result[name]
        if column is None or values is None:
            continue
        if name in _PER_MEMBER:
            axis = _PER_MEMBER[name]
            column = column.narrow(axis, 0, members)
        column[rows] = values
