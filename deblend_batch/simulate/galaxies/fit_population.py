"""Fit the joint distribution of galaxy structure from a table of parametric fits.

``python -m deblend_batch.simulate.galaxies.fit_population COSMOS_FITS.fits population.json`` rewrites the
distribution that the package ships. The input is a COSMOS catalogue of GalSim's form: columns ``mag_auto``,
``flux_radius``, ``sersicfit`` (I0, half-light radius in 0.03 arcsec pixels along the major axis, n, q, ...),
``bulgefit`` (the same for an exponential disc, then for a de Vaucouleurs bulge) and ``use_bulgefit``.
"""

from __future__ import annotations

import json
import sys
from typing import Any

import numpy as np
from astropy.table import Table
from numpy.typing import NDArray
from scipy.special import gamma, gammaincinv
from scipy.stats import norm, rankdata

from deblend_batch import storage

Array = NDArray[np.float64]

PIXEL_ARCSEC = 0.03
MAGNITUDES = np.array([18.5, 20.0, 21.0, 22.0, 23.0, 24.0, 25.0])
LEVELS = np.array([0.005, 0.02, 0.05, 0.1, 0.2, 0.35, 0.5, 0.65, 0.8, 0.9, 0.95, 0.98, 0.995])


def sersic_total(intensity: Array, radius: Array, n: Array, q: Array) -> Array:
    """Return total fluxes of Sersic profiles (Graham & Driver 2005, eq. 4).

    Parameters
    ----------
    intensity : numpy.ndarray
        Surface brightness at the half-light radius.
    radius : numpy.ndarray
        Half-light radius along the major axis.
    n : numpy.ndarray
        Sersic index.
    q : numpy.ndarray
        Axis ratio.

    Returns
    -------
    numpy.ndarray
        Surface brightness times squared radius.
    """
    b = gammaincinv(2 * n, 0.5)
    return np.asarray(
        intensity * 2 * np.pi * n * radius**2 * q * np.exp(b) * b ** (-2 * n) * gamma(2 * n),
        np.float64,
    )


def _columns(url: str) -> dict[str, Array]:
    with storage.open_read(url) as file:
        table = Table.read(file, format="fits")
    names = ("mag_auto", "flux_radius", "sersicfit", "bulgefit", "use_bulgefit")
    return {name: np.asarray(table[name], np.float64) for name in names}


def _single(fit: Array) -> dict[str, Array]:
    return {
        "log_radius": np.log(fit[:, 1] * PIXEL_ARCSEC),
        "log_n": np.log(fit[:, 2]),
        "q": fit[:, 3],
    }


def _double(fit: Array) -> dict[str, Array]:
    disc, bulge = fit[:, :8], fit[:, 8:]
    total = [sersic_total(part[:, 0], part[:, 1], part[:, 2], part[:, 3]) for part in (disc, bulge)]
    fraction = total[1] / (total[0] + total[1])
    return {
        "log_radius": np.log(disc[:, 1] * PIXEL_ARCSEC),
        "q": disc[:, 3],
        "log_bulge_ratio": np.log(bulge[:, 1] / disc[:, 1]),
        "bulge_q": bulge[:, 3],
        "bulge_fraction": fraction,
    }


def _classes(columns: dict[str, Array]) -> dict[str, tuple[Array, dict[str, Array]]]:
    """Sort galaxies into spheroids, bulge + disc and discs, without failed fits."""
    fit, both = columns["sersicfit"], columns["use_bulgefit"] > 0
    radius, n, q = fit[:, 1] * PIXEL_ARCSEC, fit[:, 2], fit[:, 3]
    good = (radius > 0.04) & (radius < 3.0) & (n > 0.25) & (n < 5.95) & (q > 0.1)
    # A fit far larger than the measured half-light radius has fitted a neighbour or the sky.
    good &= fit[:, 1] * np.sqrt(np.abs(q)) < 1.8 * columns["flux_radius"]
    with np.errstate(all="ignore"):
        double = _double(columns["bulgefit"])
    sane = both & (double["bulge_fraction"] > 0.05) & (double["bulge_fraction"] < 0.85)
    sane &= (double["log_bulge_ratio"] < 0.3) & (double["log_bulge_ratio"] > -3.0)
    sane &= (
        (double["q"] > 0.1)
        & (double["bulge_q"] > 0.1)
        & (fit[:, 1] * np.sqrt(np.abs(q)) < 1.8 * columns["flux_radius"])
    )
    chosen = {"sph": good & ~sane & (n >= 2.0), "disk": good & ~sane & (n < 2.0), "sphd": sane}
    values = {"sph": _single(fit), "disk": _single(fit), "sphd": double}
    magnitude = columns["mag_auto"]
    return {
        kind: (magnitude[rows], {key: value[rows] for key, value in values[kind].items()})
        for kind, rows in chosen.items()
    }


def _quantiles(magnitude: Array, value: Array) -> list[list[float]]:
    """Quantiles of ``value`` near each of MAGNITUDES (at least the 150 nearest galaxies)."""
    rows = []
    for centre in MAGNITUDES:
        distance = np.abs(magnitude - centre)
        near = distance <= max(0.5, np.sort(distance)[min(150, distance.size - 1)])
        rows.append([round(float(x), 4) for x in np.quantile(value[near], LEVELS)])
    return rows


def _correlation(magnitude: Array, values: dict[str, Array]) -> list[list[float]]:
    """Rank correlation of the parameters at fixed magnitude, as that of a Gaussian copula."""
    order = np.argsort(magnitude, kind="stable")
    scores = []
    for value in values.values():
        parts = np.array_split(value[order], max(1, order.size // 300))
        scores.append(
            np.concatenate([norm.ppf(rankdata(part) / (part.size + 1)) for part in parts])
        )
    return [[round(float(x), 3) for x in row] for row in np.corrcoef(scores)]


def fit_population(url: str) -> dict[str, Any]:
    """Fit the distributions that :class:`deblend_batch.simulate.galaxies.population.Population` samples."""
    classes = _classes(_columns(url))
    kernel = {
        kind: np.array([np.exp(-0.5 * ((m - c) / 0.4) ** 2).sum() for c in MAGNITUDES])
        for kind, (m, _) in classes.items()
    }
    total = sum(kernel.values())
    return {
        "about": "COSMOS F814W galaxies: radius (arcsec, major axis), Sersic n, axis ratio, bulge",
        "magnitude_f814w": MAGNITUDES.tolist(),
        "levels": LEVELS.tolist(),
        "fraction": {kind: [round(float(x), 4) for x in k / total] for kind, k in kernel.items()},
        "classes": {
            kind: {
                "parameters": list(values),
                "quantiles": {key: _quantiles(m, value) for key, value in values.items()},
                "correlation": _correlation(m, values),
            }
            for kind, (m, values) in classes.items()
        },
    }


def main(arguments: list[str]) -> None:
    """Read the table named first, write the JSON named second."""
    source, target = arguments
    storage.write_bytes(target, (json.dumps(fit_population(source)) + "\n").encode())


if __name__ == "__main__":
    main(sys.argv[1:])
