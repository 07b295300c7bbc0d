"""Fit the priors on shapes that the profile fit uses to the population that the simulations draw from.

Run once: ``python -m deblend_batch.simulate.galaxies.fit_shape_prior TARGET.json``. For each magnitude it
draws galaxies, gives each the single Sersic profile nearest to it, and writes means and standard deviations.
"""

from __future__ import annotations

import json
import sys
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import gammainc, gammaincinv

from deblend_batch import storage
from deblend_batch.simulate.galaxies.population import Population, Structure

MAGNITUDES = np.arange(18.5, 25.01, 0.5)
_DRAWS = 4000
_INDEX_GRID = np.geomspace(0.3, 6.0, 200)

Array = NDArray[np.float64]


def _enclosed(index: float, radius: Array) -> Array:
    b = gammaincinv(2 * index, 0.5)
    return np.asarray(gammainc(2 * index, b * radius ** (1 / index)), np.float64)


def _concentration(light: Array) -> float:
    high, low = np.interp([0.8, 0.2], light, _RADII)
    return float(high / low)


_RADII = np.geomspace(1e-3, 60.0, 1500)
# The radius of 80 % of the light over that of 20 %, for each index: one number that tells indices apart.
_CONCENTRATION = np.array([_concentration(_enclosed(index, _RADII)) for index in _INDEX_GRID])


def single_profile(structure: Structure) -> tuple[float, float, float]:
    """Return radius (arcsec, circularised), index and axis ratio of the profile nearest to a galaxy."""
    parts = [part for part in (structure.spheroid, structure.disc) if part is not None]
    radius, q = structure.radius_arcsec, structure.axis_ratio
    if len(parts) == 1:
        return radius * float(np.sqrt(q)), parts[0].n, q
    light = np.zeros_like(_RADII)
    for part in parts:
        light += part.fraction * _enclosed(part.n, _RADII * radius / part.radius_arcsec)
    index = float(np.interp(_concentration(light), _CONCENTRATION, _INDEX_GRID))
    return radius * float(np.sqrt(q)), index, q


def fit_shape_prior(seed: int = 0) -> dict[str, Any]:
    """Fit the table that :mod:`deblend_batch.models.profile_fit.search.priors` reads."""
    rng = np.random.default_rng(seed)
    population = Population.shipped()
    columns: dict[str, list[list[float]]] = {"log_radius_arcsec": [], "log_index": []}
    stretch = []
    for magnitude in MAGNITUDES:
        drawn = [single_profile(population.draw(magnitude, rng)) for _ in range(_DRAWS)]
        radius, index, q = np.array(drawn).T
        for name, values in zip(columns, (np.log(radius), np.log(index.clip(0.5, 6))), strict=True):
            columns[name].append([round(float(each), 4) for each in (values.mean(), values.std())])
        # One component of the stretch (1/q - q) / 2, whose direction is random.
        size = 0.5 * (1.0 / q.clip(0.15) - q.clip(0.15))
        stretch.append(round(float(np.sqrt(0.5 * np.mean(size**2))), 4))
    return {
        "about": "Single Sersic profiles of the shipped population by F814W magnitude: [mean, sigma]",
        "magnitude": MAGNITUDES.tolist(),
        **columns,
        "stretch": stretch,
    }


def main(arguments: list[str]) -> None:
    """Write the table to the JSON file named."""
    (target,) = arguments
    storage.write_bytes(target, (json.dumps(fit_shape_prior()) + "\n").encode())


if __name__ == "__main__":
    main(sys.argv[1:])
