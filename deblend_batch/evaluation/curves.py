"""How errors run with the difference of the members' magnitudes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

MAG_DIFFERENCE_EDGES = tuple(float(edge) for edge in np.linspace(-2.0, 2.0, 7))
"""Edges of the six equal bins of mag_central - mag_companion."""


@dataclass(frozen=True)
class Curve:
    """Median and scatter of dmag in bins; row ``i`` of each array is bin ``i``.

    Parameters
    ----------
    edges : tuple of float, length bins + 1
        Bin edges, mag; the last bin includes its upper edge.
    n : ndarray of int64, shape (bins,)
        Members with a recovered magnitude.
    n_undetected : ndarray of int64, shape (bins,)
        Members without one, not in the other columns.
    median, sigma : ndarray of float64, shape (bins,)
        Median and standard deviation of dmag, mag; NaN in empty bins.
    """

    edges: tuple[float, ...]
    n: NDArray[np.int64]
    n_undetected: NDArray[np.int64]
    median: NDArray[np.float64]
    sigma: NDArray[np.float64]

    @property
    def centres(self) -> NDArray[np.float64]:
        """Middles of the bins, mag."""
        edges = np.asarray(self.edges)
        middles: NDArray[np.float64] = (edges[1:] + edges[:-1]) / 2
        return middles

    def to_dict(self) -> dict[str, Any]:
        """Return the curve as JSON-able values; NaN becomes None."""
        return {
            "edges": list(self.edges),
            "n": self.n.tolist(),
            "n_undetected": self.n_undetected.tolist(),
            "median": _without_nan(self.median),
            "sigma": _without_nan(self.sigma),
        }


def _without_nan(values: NDArray[np.float64]) -> list[float | None]:
    return [float(value) if np.isfinite(value) else None for value in values]


def bin_numbers(values: ArrayLike, edges: ArrayLike) -> NDArray[np.intp]:
    """Return the bin of each value, -1 outside all bins and for NaN.

    Parameters
    ----------
    values : array_like of float, shape (n,)
        What to bin.
    edges : array_like of float, shape (bins + 1,)
        Increasing edges; bins include their lower edge, the last one its upper edge too.

    Returns
    -------
    ndarray of int, shape (n,)
        0 to bins - 1, or -1.
    """
    values, edges = np.asarray(values, np.float64), np.asarray(edges, np.float64)
    numbers = np.searchsorted(edges, values, side="right") - 1
    numbers[values == edges[-1]] = len(edges) - 2
    numbers[(numbers >= len(edges) - 1) | ~np.isfinite(values)] = -1
    return numbers


def curve(
    dmag: ArrayLike, mag_difference: ArrayLike, edges: tuple[float, ...] = MAG_DIFFERENCE_EDGES
) -> Curve:
    """Bin dmag by the difference of the members' true magnitudes.

    Parameters
    ----------
    dmag : array_like of float, shape (n,)
        Recovered minus true magnitude; NaN where there is none.
    mag_difference : array_like of float, shape (n,)
        mag_central - mag_companion of the member's pair, mag.
    edges : tuple of float
        Bin edges, mag.
    """
    dmag = np.asarray(dmag, np.float64)
    numbers = bin_numbers(mag_difference, edges)
    known = np.isfinite(dmag)
    inside = [dmag[(numbers == b) & known] for b in range(len(edges) - 1)]
    missed = [np.count_nonzero((numbers == b) & ~known) for b in range(len(edges) - 1)]
    return Curve(
        edges=edges,
        n=np.array([len(values) for values in inside], np.int64),
        n_undetected=np.array(missed, np.int64),
        median=np.array([np.median(values) if len(values) else np.nan for values in inside]),
        sigma=np.array([np.std(values) if len(values) else np.nan for values in inside]),
    )
