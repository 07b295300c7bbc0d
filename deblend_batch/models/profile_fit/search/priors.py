"""What is known of shapes before looking: Gaussians fitted to the population, given the magnitude."""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import lru_cache
from importlib import resources
from typing import Any, NamedTuple

import torch
from torch import Tensor

SHAPES = 6
"""Shape parameters of a member: x, y, ln radius, stretch 1 and 2, ln index."""


class ShapePrior(NamedTuple):
    """Independent Gaussians on the shapes of (blend, member); float64.

    Parameters
    ----------
    mean : Tensor, shape (blend, member, 6)
        In the order of ``SHAPES``.
    precision : Tensor, shape (blend, member, 6)
        One over the variance.
    """

    mean: Tensor
    precision: Tensor

    def rows(self, index: Tensor) -> ShapePrior:
        """Return the prior of some blends."""
        return ShapePrior(self.mean[index], self.precision[index])


@dataclass(frozen=True)
class PopulationPrior:
    """How the population's distributions are used.

    Parameters
    ----------
    radius_broadening, index_broadening, stretch_broadening : float
        Factors on the standard deviations of ln radius, ln index and stretch: surveys differ from the one
        that the population was fitted to, and a prior that is too narrow biases where one too wide only
        leaves a little noise.
    faintest : float
        Magnitude given to members that are fainter, or whose flux is not positive. The table goes on to 25,
        with ever smaller radii; but large faint galaxies are missing from it, being below the surface
        brightness that its survey finds, and where a faint member's radius is not measured, a prior of
        small ones would take the wings from its flux.
    """

    radius_broadening: float = 1.5
    index_broadening: float = 2.5
    stretch_broadening: float = 1.4
    faintest: float = 21.0


@lru_cache(maxsize=1)
def _table() -> dict[str, Any]:
    text = resources.files(__package__).joinpath("shape_prior.json").read_text()
    table: dict[str, Any] = json.loads(text)
    return table


@lru_cache(maxsize=8)
def _columns(device: torch.device) -> tuple[Tensor, Tensor]:
    table = _table()
    rows = [
        [*radius, *index, stretch]
        for radius, index, stretch in zip(
            table["log_radius_arcsec"], table["log_index"], table["stretch"], strict=True
        )
    ]
    magnitude = torch.tensor(table["magnitude"], dtype=torch.float64)
    return magnitude.to(device), torch.tensor(rows, dtype=torch.float64).to(device)


def shape_prior(
    positions_xy: Tensor,
    position_err: Tensor,
    flux_njy: Tensor,
    pixel_scale_arcsec: Tensor,
    population: PopulationPrior,
) -> ShapePrior:
    """Return the prior on shapes of members of some flux.

    Parameters
    ----------
    positions_xy : Tensor of float64, shape (blend, member, 2)
        Given positions, px from the stamp's middle: x, y.
    position_err : Tensor of float64, shape (blend, member)
        Their one-sigma error along each axis, px.
    flux_njy : Tensor of float64, shape (blend, member)
        Flux near 800 nm, nJy.
    pixel_scale_arcsec : Tensor of float64, shape (blend,)
        Size of a pixel.
    population : PopulationPrior
        How the population is used.

    Returns
    -------
    ShapePrior
        Means and precisions.
    """
    known, columns = _columns(flux_njy.device)
    faintest_njy = 10.0 ** (0.4 * (31.4 - population.faintest))
    magnitude = 31.4 - 2.5 * torch.log10(flux_njy.clamp_min(faintest_njy))
    step = float(known[1] - known[0])
    place = ((magnitude - known[0]) / step).clamp(0.0, len(known) - 1.001)
    below = place.floor().long()
    weight = (place - below)[..., None]
    row = (1.0 - weight) * columns[below] + weight * columns[below + 1]
    log_radius, radius_sigma, log_index, index_sigma, stretch_sigma = row.unbind(-1)
    log_radius = log_radius - torch.log(pixel_scale_arcsec)[:, None]
    zero = torch.zeros_like(log_radius)
    mean = torch.stack(
        [positions_xy[..., 0], positions_xy[..., 1], log_radius, zero, zero, log_index], dim=-1
    )
    stretch_sigma = stretch_sigma * population.stretch_broadening
    sigma = torch.stack(
        [
            position_err,
            position_err,
            radius_sigma * population.radius_broadening,
            stretch_sigma,
            stretch_sigma,
            index_sigma * population.index_broadening,
        ],
        dim=-1,
    )
    return ShapePrior(mean, sigma.square().reciprocal())
