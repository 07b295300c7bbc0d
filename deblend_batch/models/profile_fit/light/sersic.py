"""Sersic profiles as sums of round Gaussians, smooth in the index.

A profile of index n and half-light radius 1 is the sum over k of a_k(n) times a Gaussian of unit flux and of
width s_k(n) (Hogg & Lang 2013, PASP 125, 719). Letting the widths follow the index as well as the amplitudes
needs fewer Gaussians for the same accuracy than fixed widths do. Both are polynomials in ln n, fitted once by
:mod:`deblend_batch.models.profile_fit.light.make_sersic_table`, so that their derivatives are exact.
"""

from __future__ import annotations

import json
from functools import lru_cache
from importlib import resources
from typing import Any, NamedTuple

import torch
from torch import Tensor

COMPONENTS = 7
"""Gaussians of a profile."""
INDEX_RANGE = (0.5, 6.0)
"""Sersic indices that the table covers; beyond them a fit stands at the edge."""


class SersicMixture(NamedTuple):
    """Gaussians of n profiles; float64.

    Parameters
    ----------
    amplitude : Tensor, shape (n, component)
        Share of the flux; a row sums to one.
    width : Tensor, shape (n, component)
        Standard deviation over the half-light radius.
    amplitude_slope, log_width_slope : Tensor, shape (n, component)
        d ln amplitude / d ln n and d ln width / d ln n.
    """

    amplitude: Tensor
    width: Tensor
    amplitude_slope: Tensor
    log_width_slope: Tensor


@lru_cache(maxsize=1)
def _table() -> dict[str, Any]:
    text = resources.files(__package__).joinpath("sersic_mixture.json").read_text()
    table: dict[str, Any] = json.loads(text)
    return table


@lru_cache(maxsize=8)
def _coefficients(device: torch.device) -> Tensor:
    """Chebyshev coefficients (order, component), the widths' beside the amplitudes'."""
    table = _table()
    both = [
        torch.tensor(table[name], dtype=torch.float64) for name in ("log_width", "log_amplitude")
    ]
    return torch.cat(both, dim=1).to(device)


def sersic_mixture(log_index: Tensor) -> SersicMixture:
    """Return the Gaussians of profiles.

    Parameters
    ----------
    log_index : Tensor of float64, shape (n,)
        Natural logarithm of the Sersic index, within ``INDEX_RANGE``.

    Returns
    -------
    SersicMixture
        Amplitudes, widths and their derivatives.
    """
    coefficients = _coefficients(log_index.device)
    low, high = torch.tensor(INDEX_RANGE, dtype=torch.float64).log().tolist()
    per_log = 2.0 / (high - low)
    u = ((log_index - low) * per_log - 1.0)[:, None]
    value, slope = _chebyshev(coefficients, u)
    log_width, logit = value.chunk(2, dim=1)
    log_width_slope, logit_slope = (slope * per_log).chunk(2, dim=1)
    raised = torch.exp(logit - logit.amax(dim=1, keepdim=True))
    amplitude = raised / raised.sum(dim=1, keepdim=True)
    mean_slope = (amplitude * logit_slope).sum(dim=1, keepdim=True)
    return SersicMixture(amplitude, torch.exp(log_width), logit_slope - mean_slope, log_width_slope)


def _chebyshev(coefficients: Tensor, u: Tensor) -> tuple[Tensor, Tensor]:
    """Sum a Chebyshev series and its derivative; by recurrence, so that a row never depends on the others."""
    before, now = torch.ones_like(u), u
    slope_before, slope_now = torch.zeros_like(u), torch.ones_like(u)
    value = coefficients[0] * before + coefficients[1] * now
    slope = coefficients[1] * slope_now
    for row in coefficients[2:]:
        before, now, slope_before, slope_now = (
            now,
            2.0 * u * now - before,
            slope_now,
            2.0 * now + 2.0 * u * slope_now - slope_before,
        )
        value = value + row * now
        slope = slope + row * slope_now
    return value, slope
