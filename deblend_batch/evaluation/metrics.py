"""The numbers by which fluxes and masks are judged: pure functions on arrays.

Definitions follow Boucaud et al. 2020, MNRAS 491, 2481. With dmag the recovered minus the true
magnitude: bias is its mean and its median; scatter its standard deviation and 1.4826 times its
median absolute deviation (NMAD); an outlier has ``|dmag| > 0.75``; flux MAPE is the mean of
``|F - F_true| / F_true``. A member without a flux (NaN) is undetected: counted, never dropped.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from deblend_batch.evaluation.bootstrap import Interval, cluster_intervals

OUTLIER_MAG = 0.75
"""An outlier's magnitude is wrong by more than this."""

NMAD_FACTOR = 1.4826
"""Makes the median absolute deviation of a normal distribution its standard deviation."""

IOU_EPSILON = 1e-7
"""Keeps the IoU of two empty masks at 1; it is added to both areas, in pixels."""

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Metrics:
    """How well one method recovered a set of members; fractions are of one, not per cent.

    Parameters
    ----------
    n : int
        Members with a true flux.
    n_undetected : int
        Members that the method gave no flux. All of ``bias`` to ``flux_mape`` are of the others.
    n_not_positive : int
        Members with a flux that has no magnitude; they count as outliers, and in the flux errors.
    bias, bias_median : float
        Mean and median of dmag, mag.
    sigma, nmad : float
        Standard deviation and NMAD of dmag, mag.
    outlier_fraction : float
        Detected members with ``|dmag| > 0.75``.
    mag_mape : float
        Mean of ``|dmag| / mag_true``; NaN where true magnitudes are not known.
    flux_mape : float
        Mean of ``|F - F_true| / F_true``.
    flux_mape_all : float
        The same over all members, an undetected one having lost all of its flux (an error of one).
    failure_fraction : float
        All members that are undetected or outliers.
    scatter_over_bound : float
        NMAD of ``(F - F_true) / bound``, the bound being Cramer and Rao's: 1 is the physical limit.
    coverage : float
        Members whose true flux lies within one stated error of the recovered one; 0.683 is right.
    intervals : dict
        95 % galaxy-clustered bootstrap intervals of ``bias``, ``sigma``, ``flux_mape``,
        ``outlier_fraction`` and ``failure_fraction``, where they were asked for.
    """

    n: int
    n_undetected: int
    n_not_positive: int
    bias: float
    bias_median: float
    sigma: float
    nmad: float
    outlier_fraction: float
    mag_mape: float
    flux_mape: float
    flux_mape_all: float
    failure_fraction: float
    scatter_over_bound: float
    coverage: float
    intervals: dict[str, Interval]

    @property
    def undetected_fraction(self) -> float:
        """Members without a flux, of all."""
        return self.n_undetected / self.n if self.n else float("nan")

    def to_dict(self) -> dict[str, Any]:
        """Return the numbers as JSON-able values; NaN becomes None."""
        numbers = asdict(self) | {"undetected_fraction": self.undetected_fraction}
        return {name: json_value(value) for name, value in numbers.items()}


def json_value(value: Any) -> Any:
    """Return ``value`` as JSON has it: NaN and infinity become None, at any depth."""
    if isinstance(value, Mapping):
        return {key: json_value(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [json_value(each) for each in value]
    return None if isinstance(value, float) and not np.isfinite(value) else value


def magnitude_offset(flux: ArrayLike, true_flux: ArrayLike) -> Floats:
    """Return dmag, the recovered minus the true magnitude.

    Parameters
    ----------
    flux, true_flux : array_like of float, same shape
        Recovered and true flux, in the same units.

    Returns
    -------
    ndarray of float64
        Magnitudes; positive where flux is lost, NaN where the recovered flux is not positive.
    """
    ratio = np.asarray(flux, np.float64) / np.asarray(true_flux, np.float64)
    dmag: Floats = -2.5 * np.log10(np.where(ratio > 0, ratio, np.nan))
    return dmag


def flux_error(flux: ArrayLike, true_flux: ArrayLike) -> Floats:
    """Return the relative flux error ``|F - F_true| / F_true``; NaN where the flux is NaN."""
    true = np.asarray(true_flux, np.float64)
    error: Floats = np.abs(np.asarray(flux, np.float64) - true) / true
    return error


def nmad(values: ArrayLike) -> float:
    """Return 1.4826 times the median absolute deviation from the median; NaN for no values."""
    values = np.asarray(values, np.float64)
    return NMAD_FACTOR * median(np.abs(values - median(values)))


def measure(
    flux: ArrayLike,
    true_flux: ArrayLike,
    *,
    true_mag: ArrayLike | None = None,
    galaxy_id: ArrayLike | None = None,
    bound: ArrayLike | None = None,
    flux_err: ArrayLike | None = None,
    draws: int = 0,
    seed: int = 0,
) -> Metrics:
    """Judge recovered fluxes by the true ones.

    Parameters
    ----------
    flux : array_like of float, shape (n,)
        Recovered fluxes, in the unit of ``true_flux``; NaN where the member was not detected.
    true_flux : array_like of float, shape (n,)
        True fluxes, positive.
    true_mag : array_like of float, shape (n,), optional
        True magnitudes, for ``mag_mape``.
    galaxy_id : array_like of int, shape (n,), optional
        Which galaxy a member is: galaxies are drawn, not members, for the bootstrap intervals.
    bound : array_like of float, shape (n,), optional
        One-sigma Cramer-Rao bound of each flux.
    flux_err : array_like of float, shape (n,), optional
        The one-sigma errors that the method states.
    draws : int
        Bootstrap draws; 0 for no intervals.
    seed : int
        Seed of the draws.
    """
    recovered, true = _checked(flux, true_flux)
    errors = flux_error(recovered, true)
    dmag = magnitude_offset(recovered, true)
    detected = np.isfinite(recovered)
    outlier = detected & ~(np.abs(dmag) <= OUTLIER_MAG)
    centre = float(np.nan_to_num(mean(dmag)))
    contributions = _contributions(dmag - centre, errors, outlier, detected)
    scores = _of_sums(contributions.sum(axis=0)[None], centre)
    mags = np.full(len(true), np.nan) if true_mag is None else np.asarray(true_mag, np.float64)
    clusters = np.arange(len(true)) if galaxy_id is None else np.asarray(galaxy_id)
    return Metrics(
        n=len(true),
        n_undetected=int(np.count_nonzero(~detected)),
        n_not_positive=int(np.count_nonzero(detected & ~(recovered > 0))),
        bias_median=median(dmag),
        nmad=nmad(dmag[np.isfinite(dmag)]),
        mag_mape=mean(np.abs(dmag) / mags),
        flux_mape_all=mean(np.where(detected, errors, 1.0)),
        scatter_over_bound=_scatter_over(bound, recovered - true),
        coverage=_coverage(flux_err, recovered - true),
        intervals=cluster_intervals(
            lambda totals: _of_sums(totals, centre),
            contributions,
            clusters,
            draws=draws,
            seed=seed,
        ),
        **{name: float(value[0]) for name, value in scores.items()},
    )


def _checked(flux: ArrayLike, true_flux: ArrayLike) -> tuple[Floats, Floats]:
    recovered, true = np.asarray(flux, np.float64), np.asarray(true_flux, np.float64)
    if recovered.shape != true.shape or true.ndim != 1:
        raise ValueError(f"fluxes of shape {recovered.shape} and true fluxes of {true.shape}")
    bad = np.flatnonzero(~(np.isfinite(true) & (true > 0)))
    if len(bad):
        raise ValueError(f"true flux {true[bad[0]]!r} of member {bad[0]} is not positive")
    return np.where(np.isfinite(recovered), recovered, np.nan), true


def _contributions(
    offset: Floats, errors: Floats, outlier: NDArray[np.bool_], detected: NDArray[np.bool_]
) -> Floats:
    """Return what each member adds to the sums that :func:`_of_sums` takes, shape (n, 8)."""
    known = np.isfinite(offset)
    shift = np.where(known, offset, 0.0)
    failed = outlier | ~detected
    columns = [known, shift, shift**2, detected, np.where(detected, errors, 0.0), outlier]
    return np.stack([*columns, np.ones(len(offset)), failed], axis=1).astype(np.float64)


def _of_sums(sums: Floats, centre: float) -> dict[str, Floats]:
    """Return the metrics that get intervals, from sums over members: quick enough for many draws.

    ``centre`` was taken from each dmag, so that squares lose no digits.
    """
    known, shift, square, detected, error, outliers, members, failed = sums.T
    with np.errstate(divide="ignore", invalid="ignore"):
        offset = shift / known
        return {
            "bias": centre + offset,
            "sigma": np.sqrt(np.maximum(square / known - offset**2, 0.0)),
            "flux_mape": error / detected,
            "outlier_fraction": outliers / detected,
            "failure_fraction": failed / members,
        }


def _scatter_over(bound: ArrayLike | None, difference: Floats) -> float:
    if bound is None:
        return float("nan")
    pull = difference / np.asarray(bound, np.float64)
    return nmad(pull[np.isfinite(pull)])


def _coverage(flux_err: ArrayLike | None, difference: Floats) -> float:
    if flux_err is None:
        return float("nan")
    error = np.asarray(flux_err, np.float64)
    known = np.isfinite(error) & np.isfinite(difference)
    return mean((np.abs(difference) <= error)[known].astype(np.float64))


def mean(values: Floats) -> float:
    """Return the mean of the finite values, NaN where there are none."""
    finite = values[np.isfinite(values)]
    return float(finite.mean()) if len(finite) else float("nan")


def median(values: Floats) -> float:
    """Return the median of the finite values, NaN where there are none."""
    finite = values[np.isfinite(values)]
    return float(np.median(finite)) if len(finite) else float("nan")


def iou(
    probabilities: NDArray[np.floating[Any]], truth: NDArray[np.bool_], threshold: float = 0.5
) -> Floats:
    """Return the intersection over union of masks, ``(I + eps) / (U + eps)``.

    Parameters
    ----------
    probabilities : ndarray of float, shape (..., y, x)
        Mask probabilities.
    truth : ndarray of bool, shape (..., y, x)
        True masks.
    threshold : float
        A pixel belongs to a mask where its probability exceeds this.

    Returns
    -------
    ndarray of float64, shape (...)
        Between 0 and 1; 1 where both masks are empty.
    """
    mask, true = probabilities > threshold, np.asarray(truth, bool)
    intersection = np.count_nonzero(mask & true, axis=(-2, -1))
    union = np.count_nonzero(mask | true, axis=(-2, -1))
    ratio: Floats = (intersection + IOU_EPSILON) / (union + IOU_EPSILON)
    return ratio
