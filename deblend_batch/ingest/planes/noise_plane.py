"""What a file says of its noise: rms, weight or variance, and where it says that there are no data."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from deblend_batch.ingest.files.plane import Plane
from deblend_batch.ingest.sources import NoiseKind

LEAST_WEIGHT = 1e-6
"""A weight that is less, as a share of the typical one, says "no data": so do 1e10 and 1e30 as an rms. One
that is as much larger says so, too: no pixel is known a thousand times better than others of its image."""

_LOW_QUANTILE = 0.05


@dataclass(frozen=True)
class NoisePlane:
    """An open noise plane.

    Parameters
    ----------
    plane : Plane
        Its pixels.
    kind : {"rms", "weight", "variance"}
        What it holds; a weight is an inverse variance.
    factor : float
        What the image's values are multiplied by.
    least, most : float
        Variances between which that of a pixel with data is, in units of the file.
    """

    plane: Plane
    kind: NoiseKind
    factor: float = 1.0
    least: float = 0.0
    most: float = np.inf

    def read(self, rows: slice, columns: slice) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
        """Read a window.

        Parameters
        ----------
        rows, columns : slice
            The window, px.

        Returns
        -------
        variance : ndarray of float32, shape (y, x)
            Of the image's values; NaN where bad.
        bad : ndarray of bool, shape (y, x)
            Where the plane has no positive number, one that quantisation may have made of a zero, or one of
            those that stand for no data.
        """
        variance = self._variance(rows, columns)
        with np.errstate(over="ignore", invalid="ignore"):
            scaled = np.asarray(variance * self.factor**2, np.float32)
            known = (variance >= self.least) & (variance <= self.most)
            bad = ~(np.isfinite(scaled) & (scaled > 0) & known)
        scaled[bad] = np.nan
        return scaled, bad

    def with_limit(self, windows: Iterable[tuple[slice, slice]]) -> NoisePlane:
        """Return the plane with its limits found in a sample of its pixels."""
        found = [self._variance(rows, columns).ravel() for rows, columns in windows]
        typical = typical_variance(np.concatenate(found))
        least = typical * LEAST_WEIGHT if np.isfinite(typical) else 0.0
        return replace(self, least=least, most=typical / LEAST_WEIGHT)

    def _variance(self, rows: slice, columns: slice) -> NDArray[np.float64]:
        """Variance in units of the file, NaN where the plane says that there are no data."""
        values = self.plane.values(rows, columns)
        step = self.plane.lost_step(rows, columns)
        return variance_of(values, self.kind, 0.0 if step is None else step)


def variance_of(
    plane: NDArray[np.floating], kind: NoiseKind, least: NDArray[np.float64] | float = 0.0
) -> NDArray[np.float64]:
    """Turn a noise plane into variances.

    Parameters
    ----------
    plane : ndarray of float, any shape
        As the file has it.
    kind : {"rms", "weight", "variance"}
        What it holds; a weight is an inverse variance.
    least : ndarray of float64, or float
        What is not greater is zero: the step of a quantised plane.

    Returns
    -------
    ndarray of float64
        NaN where the plane is not finite and positive: an rms or weight of 0 marks a pixel without data.
    """
    values = np.where(np.isfinite(plane) & (plane > least), plane.astype(np.float64), np.nan)
    with np.errstate(over="ignore", under="ignore"):
        if kind == "rms":
            values = values * values
        elif kind == "weight":
            values = 1 / values
    return values


def typical_variance(variances: NDArray[np.float64]) -> float:
    """Return the median of the variances of pixels with data; infinite where there are none.

    Numbers that stand for no data are the larger ones, and may be most of all: the median is that of what is
    comparable with the smallest of the rest.
    """
    known = variances[np.isfinite(variances) & (variances > 0)]
    if known.size == 0:
        return np.inf
    low = float(np.quantile(known, _LOW_QUANTILE, method="lower"))
    return float(np.median(known[known <= low / LEAST_WEIGHT]))
