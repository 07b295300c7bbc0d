"""How far galaxies are from the profiles that are fitted to them, learnt from each blend's own residual."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

_BRIGHT = 3.0  # of a pixel's noise: where a model is fainter its misfit does not show
_SURE = 1.0  # sigma by which a misfit must exceed what noise makes
_MOST = 0.1  # misfit: a first fit that went astray must not make itself probable


class Trust(NamedTuple):
    """Which pixels a fit trusts, and how far: a part of ``FitConfig``.

    Parameters
    ----------
    misfit_factor : float
        Model error over the misfit that a residual shows: a fit hides a part of it.
    least_error : float
        Model error where a residual shows none, over the model.
    leaked : float
        Of the light of others' model error that lies in a member's profile, the share that counts as an error
        of its flux.
    """

    misfit_factor: float = 4.0
    least_error: float = 0.01
    leaked: float = 1.0


def trusted_weights(weight: Tensor, residual: Tensor, model: Tensor, trust: Trust) -> Tensor:
    """Count what the profiles do not describe as noise: a share of the model's light in each pixel.

    Parameters
    ----------
    weight, residual, model : Tensor of float32, shape (blend, y, x)
        Inverse variances, pixels less a first fit, and that fit.
    trust : Trust
        Settings.

    Returns
    -------
    Tensor of float32, shape (blend, y, x)
        Weights that are no larger than those of the data.
    """
    misfit = trust.misfit_factor * _misfit(residual, weight, model)
    share = (misfit.square() + trust.least_error**2).sqrt()
    noise = (share[:, None, None] * model).square()
    return weight / (1.0 + weight * noise)


def between(weight: Tensor, trusted: Tensor, share: float) -> Tensor:
    """Return the weights with a share of the model error: what was hidden need not be where nothing is."""
    more = torch.where(trusted > 0, 1.0 / trusted - 1.0 / weight, 0.0).clamp_min(0.0)
    return weight / (1.0 + weight * share**2 * more)


def _misfit(residual: Tensor, weight: Tensor, model: Tensor) -> Tensor:
    """Rms of a residual over its model where that is bright, beyond what noise makes: (blend,)."""
    bright = (weight > 0) & (model * weight.sqrt() > _BRIGHT)
    variance = torch.where(bright, 1.0 / weight.clamp_min(1e-30), 0.0).flatten(1)
    excess = torch.where(bright, residual.square(), 0.0).flatten(1) - variance
    expected = _SURE * (2.0 * variance.square().sum(dim=1)).sqrt()
    light = torch.where(bright, model.square(), 0.0).flatten(1).sum(dim=1)
    square = (excess.sum(dim=1) - expected) / light.clamp_min(1e-30)
    return square.clamp(0.0, _MOST**2).sqrt()
