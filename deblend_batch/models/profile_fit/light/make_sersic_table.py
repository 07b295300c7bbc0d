"""Fit the table that :mod:`deblend_batch.models.profile_fit.light.sersic` reads.

Run once: ``python -m deblend_batch.models.profile_fit.light.make_sersic_table TARGET.json`` (about a minute).
Widths and amplitudes of all Gaussians at all indices are searched for together, as polynomials in ln n, so
that they are smooth in the index; non-negative least squares at fixed widths give each index its start.
"""

from __future__ import annotations

import json
import sys
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.optimize import nnls
from scipy.special import gamma, gammainc, gammaincinv
from torch import Tensor

from deblend_batch import storage
from deblend_batch.models.profile_fit.light.sersic import COMPONENTS, INDEX_RANGE

_DEGREE = 6
_INDICES = np.geomspace(*INDEX_RANGE, 45)
_RADII = np.geomspace(8e-3, 80.0, 260)
_STEEP = 4.5  # beyond it galaxies are rare, and their errors count less

Array = NDArray[np.float64]


def _profile(index: float) -> tuple[Array, Array]:
    """Light within each radius, and the light of each e-folding of radius."""
    b = gammaincinv(2 * index, 0.5)
    x = b * _RADII ** (1 / index)
    norm = 2 * np.pi * index * b ** (-2 * index) * gamma(2 * index)
    return gammainc(2 * index, x), 2 * np.pi * _RADII**2 * np.exp(-x) / norm


def _start(index: float) -> tuple[Array, Array]:
    """Log widths, spread evenly over what the index needs, and log amplitudes."""
    rise = np.log(index / INDEX_RANGE[0])
    width = 0.85 * np.geomspace(np.exp(-rise - 1.2), np.exp(1.05 * rise + 0.05), COMPONENTS)
    u = _RADII[:, None] ** 2 / (2 * width**2)
    sum_row = np.full((1, COMPONENTS), 100.0)
    design = np.concatenate([-np.expm1(-u), 2 * u * np.exp(-u), sum_row])
    amplitude, _ = nnls(design, np.concatenate([*_profile(index), sum_row[0, :1]]))
    return np.log(width), np.log(np.maximum(amplitude, 1e-4))


def fit_table() -> dict[str, Any]:
    """Fit the table's coefficients."""
    low, high = np.log(INDEX_RANGE)
    u = 2 * (np.log(_INDICES) - low) / (high - low) - 1
    basis = np.polynomial.chebyshev.chebvander(u, _DEGREE)
    starts = [_start(index) for index in _INDICES]
    coefficients = [
        torch.tensor(np.linalg.lstsq(basis, np.array(values), rcond=None)[0], requires_grad=True)
        for values in zip(*starts, strict=True)
    ]
    targets = [torch.tensor(np.array(each)) for each in zip(*map(_profile, _INDICES), strict=True)]
    weight = torch.tensor(np.where(_INDICES > _STEEP, 0.4, 1.0))[:, None]
    rows, radii = torch.tensor(basis), torch.tensor(_RADII)
    search = torch.optim.LBFGS(
        coefficients, max_iter=4000, max_eval=5000, history_size=60, line_search_fn="strong_wolfe"
    )

    def misfit() -> Tensor:
        search.zero_grad()
        log_width, logit = (rows @ each for each in coefficients)
        amplitude = torch.softmax(logit, dim=1)[:, None]
        x = radii[None, :, None] ** 2 / (2 * torch.exp(2 * log_width)[:, None])
        inside = (amplitude * -torch.expm1(-x)).sum(dim=2)
        light = (amplitude * 2 * x * torch.exp(-x)).sum(dim=2)
        apart = torch.cat(
            [2 * weight * (inside - targets[0]), weight * (light - targets[1])], dim=1
        )
        # The mean of the squares, and a look at the largest ones.
        loss = 1e4 * (apart**2).mean() + 1e4 * (apart**4).mean().sqrt()
        loss = loss + 1e-6 * (coefficients[1] ** 2).sum()
        loss.backward()  # type: ignore[no-untyped-call]
        return loss

    search.step(misfit)  # type: ignore[no-untyped-call]
    log_width, log_amplitude = (np.round(each.detach().numpy(), 7) for each in coefficients)
    return {
        "about": "Sersic profiles as Gaussians: Chebyshev coefficients (order, component) in ln n of "
        "ln(sigma / half-light radius) and of log amplitude before softmax",
        "n_range": list(INDEX_RANGE),
        "log_width": log_width.tolist(),
        "log_amplitude": log_amplitude.tolist(),
    }


def main(arguments: list[str]) -> None:
    """Write the table to the JSON file named."""
    (target,) = arguments
    storage.write_bytes(target, (json.dumps(fit_table()) + "\n").encode())


if __name__ == "__main__":
    main(sys.argv[1:])
