"""What a fit leaves over: model images, blendedness, and peaks that no member explains."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from deblend_batch.models.profile_fit.light.cells import Cells, View
from deblend_batch.models.profile_fit.search.normal import State, planes_of
from deblend_batch.models.profile_fit.search.stamps import Blends

_WIDTHS = (1.0, 2.5, 5.0)  # of the matched filter over the PSF's
_LEAST_MODEL = 1e-30
MASK_SIGMA = 1.5
"""From so much of a pixel's noise on a member's light is in its mask."""


def draw_models(blends: Blends, state: State, band: int, view: View, cells: Cells) -> Tensor:
    """Draw every member with its flux.

    Returns
    -------
    Tensor of float32, shape (blend, member, pixel)
        Images in the fit's unit.
    """
    size = view.layout.image_size
    models = torch.empty(*state.extended.shape, size, device=blends.image.device)
    psf = blends.psf.weight[:, band], blends.psf.covariance[:, band]
    for some, planes in planes_of(state, *psf, cells.basis, view):
        part = Cells(*(each[some] for each in cells))
        view.layout.spread(planes, part, models[some])
    models *= state.linear[:, band, :-1].float()[:, :, None]
    return models[..., : blends.image[0, 0].numel()]


class Leftover(NamedTuple):
    """What a state says of one band, and what it leaves over; float32.

    Parameters
    ----------
    models : Tensor, shape (blend, member, pixel)
        The members' images.
    total : Tensor, shape (blend, y, x)
        Their sum.
    residual : Tensor, shape (blend, y, x)
        Pixels less that and the sky.
    """

    models: Tensor
    total: Tensor
    residual: Tensor


def left_over(blends: Blends, state: State, band: int, view: View, cells: Cells) -> Leftover:
    """Draw a state in one band, and take it from the image (blend, band, y, x)."""
    image = blends.image
    height, width = image.shape[2:]
    models = draw_models(blends, state, band, view, cells)
    total = models.sum(dim=1).reshape(-1, height, width)
    sky = state.linear[:, band, -1].float()[:, None, None]
    return Leftover(models, total, image[:, band] - total - sky)


def blendedness_of(models: Tensor, weight: Tensor) -> Tensor:
    """Share of the light within each member's own profile that is others': (blend, member), in [0, 1].

    Every pixel of weight counts with the member's own model there, as a measurement through its profile does.
    """
    shown = torch.where(weight[:, None] > 0, models, 0.0).clamp_min(0.0)
    own = (shown * shown).sum(dim=2)
    all_light = (shown * shown.sum(dim=1, keepdim=True)).sum(dim=2)
    return (1.0 - own / all_light.clamp_min(_LEAST_MODEL)).clamp(0.0, 1.0).double()


def mask_areas(models: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
    """Count pixels where each member stands out of the noise, and those that it shares: (blend, member)."""
    shown = models * weight.sqrt()[:, None] > MASK_SIGMA
    shared = shown & (shown.sum(dim=1, keepdim=True) > 1)
    return shown.sum(dim=2).double(), shared.sum(dim=2).double()


def leaked_light(models: Tensor, weight: Tensor, trusted: Tensor) -> Tensor:
    """Light of the others' misfit that a member's profile may take for its own: (blend, member).

    The share of the light that is not trusted, of what the others put into the profile of the member. A clump
    or an arm is wider than a pixel: what it adds does not average out as noise does.
    """
    weight, trusted = weight.flatten(1), trusted.flatten(1)
    known = (weight > 0) & (trusted > 0)
    shown = torch.where(known[:, None], models, 0.0)
    light, profile = shown.clamp_min(0.0), shown.abs()  # a flux below nothing has a profile, too
    total = light.sum(dim=1)
    variance = (1.0 / trusted.clamp_min(1e-30) - 1.0 / weight.clamp_min(1e-30)).clamp_min(0.0)
    # Misfit is a share of a first fit's light: where the last one has next to none, it would be any share.
    square = torch.where(known, total, 0.0).double().square()
    misfit = (torch.where(known, variance, 0.0).double() * square).sum(dim=1)
    share = (misfit / square.square().sum(dim=1).clamp_min(_LEAST_MODEL)).sqrt()
    others = (profile * (total[:, None] - light)).sum(dim=2)
    own = (profile * profile).sum(dim=2)
    into_profile = others / own.clamp_min(_LEAST_MODEL) * profile.sum(dim=2)
    return share[:, None] * into_profile.double()


def misplaced_light(models: Tensor, residual: Tensor, weight: Tensor, trusted: Tensor) -> Tensor:
    """Give members the light that their profiles put elsewhere, as far as it is no noise: (blend, member).

    Of a pixel's residual that share is misfit which the misfit's variance has of the whole; members share it
    as they share the model.
    """
    weight, trusted, residual = (each.flatten(1) for each in (weight, trusted, residual))
    known = (weight > 0) & (trusted > 0)
    share = torch.where(known, 1.0 - trusted / weight.clamp_min(1e-30), 0.0)
    light = models.clamp_min(0.0)
    part = light / light.sum(dim=1, keepdim=True).clamp_min(_LEAST_MODEL)
    return (part * (residual * share)[:, None]).sum(dim=2).double()


def find_peak(
    residual: Tensor,
    weight: Tensor,
    model: Tensor,
    ours: Tensor,
    sigma_px: Tensor,
    model_error: float,
) -> tuple[Tensor, Tensor]:
    """Find the most significant positive peak of a residual.

    The significance is that of a point source's flux (and of ones 2.5 and 5 times as wide) were it fitted at
    that place alone; light of a model is trusted to a share of it only.

    Parameters
    ----------
    residual, weight, model : Tensor of float32, shape (blend, y, x)
        Pixels less model, their inverse variance, the sum of all models.
    ours : Tensor of bool, shape (blend, y, x)
        Pixels that are looked at, and where a peak may be.
    sigma_px : Tensor of float64, shape (blend,)
        Width of the PSF.
    model_error : float
        Share of the model's light that is not trusted.

    Returns
    -------
    significance : Tensor of float64, shape (blend,)
        Of the peak.
    yx : Tensor of float64, shape (blend, 2)
        Its place, px.
    """
    _, height, width = residual.shape
    residual, weight, model = (_filled(each) for each in (residual, weight * ours, model))
    trusted = weight / (1.0 + weight * (model_error * model).square())
    best = torch.full_like(residual, -torch.inf)
    for factor in _WIDTHS:
        down, across = (_filter(side, factor * sigma_px, residual) for side in residual.shape[1:])
        matched = down @ (residual * trusted) @ across
        variance = down.square() @ trusted @ across.square()
        best = torch.maximum(best, matched / variance.clamp_min(_LEAST_MODEL).sqrt())
    best = torch.where(ours, best[:, :height, :width], -torch.inf)
    significance, place = best.flatten(1).max(dim=1)
    y = torch.div(place, width, rounding_mode="floor")
    return significance.double(), torch.stack([y, place - y * width], dim=1).double()


def _filled(stamp: Tensor) -> Tensor:
    """Fill sides up to multiples of four: stamps then lie alike in memory, and products round alike."""
    return functional.pad(stamp, (0, -stamp.shape[2] % 4, 0, -stamp.shape[1] % 4))


def _filter(side: int, sigma_px: Tensor, like: Tensor) -> Tensor:
    place = torch.arange(side, device=like.device)
    exponent = place.double().square() / (2.0 * sigma_px.square())[:, None]
    profile = torch.exp(-exponent.clamp_max(40.0)).to(like.dtype)
    return profile[:, (place[:, None] - place).abs()]
