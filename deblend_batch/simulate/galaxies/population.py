"""Galaxy structure drawn from the joint distribution fitted to COSMOS.

The distribution (``population.json``, written by
:mod:`deblend_batch.simulate.galaxies.fit_population`) holds, for each class and magnitude, the quantiles of
every parameter; a Gaussian copula ties those of a class together.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from importlib import resources
from typing import Any, Literal, cast

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import brentq
from scipy.special import gammainc, gammaincinv, ndtr

Kind = Literal["sph", "sphd", "disk", "irr"]
KINDS: tuple[Kind, ...] = ("sph", "sphd", "disk", "irr")
"""Morphological types: spheroid, bulge + disc, disc, irregular."""
UNKNOWN_KIND = -1
"""Index of galaxies whose type nobody has judged."""

# Parametric fits know no irregulars: their share of the late types rises towards faint magnitudes as among
# the visually typed test galaxies of Boucaud et al. 2020 (released table: 0.47 at H < 21, 0.60 at H = 22.5).
_IRREGULAR_MAGNITUDE = (19.0, 24.0)
_IRREGULAR_SHARE = (0.30, 0.58)


@dataclass(frozen=True)
class Component:
    """One elliptical Sersic profile.

    Parameters
    ----------
    radius_arcsec : float
        Half-light radius along the major axis.
    n : float
        Sersic index.
    q : float
        Axis ratio, minor over major.
    fraction : float
        Share of the galaxy's flux.
    """

    radius_arcsec: float
    n: float
    q: float
    fraction: float


@dataclass(frozen=True)
class Structure:
    """The smooth part of a galaxy.

    Parameters
    ----------
    kind : {"sph", "sphd", "disk", "irr"}
        Morphological type.
    spheroid : Component or None
        Spheroid or bulge.
    disc : Component or None
        Disc; it carries spiral arms, clumps and asymmetry.
    """

    kind: Kind
    spheroid: Component | None
    disc: Component | None

    @property
    def radius_arcsec(self) -> float:
        """Half-light radius of all light, along the major axis."""
        if self.disc is None or self.spheroid is None:
            part = self.disc or self.spheroid
            return part.radius_arcsec if part else 0.0
        return _half_light_radius(self.spheroid, self.disc)

    def scaled(self, factor: float) -> Structure:
        """Return the same galaxy with all radii multiplied."""
        parts = [
            None if part is None else replace(part, radius_arcsec=factor * part.radius_arcsec)
            for part in (self.spheroid, self.disc)
        ]
        return Structure(self.kind, *parts)

    @property
    def axis_ratio(self) -> float:
        """Axis ratio of the brighter component."""
        parts = [part for part in (self.spheroid, self.disc) if part is not None]
        return max(parts, key=lambda part: part.fraction).q


def _enclosed(part: Component, radius: float) -> float:
    b = gammaincinv(2 * part.n, 0.5)
    return float(
        part.fraction * gammainc(2 * part.n, b * (radius / part.radius_arcsec) ** (1 / part.n))
    )


def _half_light_radius(first: Component, second: Component) -> float:
    low, high = sorted((first.radius_arcsec, second.radius_arcsec))
    if low == high:
        return low
    half = 0.5 * (first.fraction + second.fraction)
    return float(
        brentq(lambda r: _enclosed(first, r) + _enclosed(second, r) - half, low, high, rtol=1e-4)
    )


@dataclass(frozen=True)
class _Class:
    """Distribution of one class: quantiles (parameter, magnitude, level) and the copula's Cholesky factor."""

    parameters: tuple[str, ...]
    quantiles: NDArray[np.float64]
    cholesky: NDArray[np.float64]


class Population:
    """The fitted distribution, ready to sample.

    Parameters
    ----------
    fitted : mapping
        What :func:`deblend_batch.simulate.galaxies.fit_population.fit_population` returns.
    """

    def __init__(self, fitted: dict[str, Any]) -> None:
        self._magnitude = np.asarray(fitted["magnitude_f814w"], np.float64)
        self._level = np.asarray(fitted["levels"], np.float64)
        self._fraction = {kind: np.asarray(x, np.float64) for kind, x in fitted["fraction"].items()}
        self._classes = {
            kind: _Class(
                tuple(one["parameters"]),
                np.array([one["quantiles"][name] for name in one["parameters"]]),
                np.linalg.cholesky(np.array(one["correlation"])),
            )
            for kind, one in fitted["classes"].items()
        }

    @classmethod
    @lru_cache(maxsize=1)
    def shipped(cls) -> Population:
        """Return the distribution that comes with the package."""
        text = (
            resources.files("deblend_batch.simulate.galaxies")
            .joinpath("population.json")
            .read_text()
        )
        return cls(json.loads(text))

    def fractions(self, magnitude: float) -> NDArray[np.float64]:
        """Return the probability of each of KINDS.

        Returns
        -------
        numpy.ndarray
            float64 (4,), summing to one.
        """
        at = {kind: np.interp(magnitude, self._magnitude, x) for kind, x in self._fraction.items()}
        irregular = at["disk"] * np.interp(magnitude, _IRREGULAR_MAGNITUDE, _IRREGULAR_SHARE)
        shares = np.array([at["sph"], at["sphd"], at["disk"] - irregular, irregular])
        return np.asarray(shares / shares.sum(), np.float64)

    def draw(
        self,
        magnitude: float,
        rng: np.random.Generator,
        weights: Sequence[float] = (1.0, 1.0, 1.0, 1.0),
    ) -> Structure:
        """Draw a galaxy."""
        edges = np.cumsum(self.fractions(magnitude) * np.asarray(weights))
        kind = KINDS[min(int(np.searchsorted(edges, edges[-1] * rng.random(), side="right")), 3)]
        return self.draw_kind(kind, magnitude, rng)

    def draw_kind(self, kind: Kind, magnitude: float, rng: np.random.Generator) -> Structure:
        """Draw a galaxy of a given type; see :meth:`draw`."""
        value = self._values("disk" if kind == "irr" else kind, magnitude, rng)
        radius = float(np.exp(value["log_radius"]))
        if kind == "sphd":
            share = value["bulge_fraction"]
            bulge_radius = radius * float(np.exp(value["log_bulge_ratio"]))
            return Structure(
                kind,
                Component(bulge_radius, float(rng.uniform(1.5, 4.5)), value["bulge_q"], share),
                Component(radius, 1.0, value["q"], 1.0 - share),
            )
        index = float(np.exp(value["log_n"]))
        if kind == "sph":
            return Structure(kind, Component(radius, index, max(value["q"], 0.3), 1.0), None)
        if kind == "irr":
            index = min(index, 1.2)
        return Structure(kind, None, Component(radius, index, value["q"], 1.0))

    def _values(self, kind: str, magnitude: float, rng: np.random.Generator) -> dict[str, float]:
        one = self._classes[kind]
        normal = one.cholesky @ rng.standard_normal(len(one.parameters))
        level = ndtr(normal)
        at = float(np.clip(magnitude, self._magnitude[0], self._magnitude[-1]))
        place = int(np.clip(np.searchsorted(self._magnitude, at) - 1, 0, self._magnitude.size - 2))
        weight = (at - self._magnitude[place]) / (
            self._magnitude[place + 1] - self._magnitude[place]
        )
        rows = (1 - weight) * one.quantiles[:, place] + weight * one.quantiles[:, place + 1]
        return cast(
            "dict[str, float]",
            {
                name: float(np.interp(u, self._level, row))
                for name, u, row in zip(one.parameters, level, rows, strict=True)
            },
        )
