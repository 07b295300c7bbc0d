"""Fit the error model: quantile regression of the relative flux errors on held-out pairs."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import optimize

from deblend_batch.models.uncertainty import ErrorModel, Evidence, predictors, quadratic_form

_ONE_SIGMA = 0.6827
_SMALLEST_ERROR = 1e-4
_EDGE_PERCENT = 1.0

Floats = NDArray[np.float64]


def fit_error_model(evidence: Evidence, true_flux: NDArray[np.float32]) -> ErrorModel:
    """Fit the error model so that one stated sigma covers 68.27 % of the errors, whatever the pair.

    The log of the error is modelled at that quantile (Koenker & Bassett 1978), so no shape of the
    errors' distribution is assumed.

    Parameters
    ----------
    evidence : Evidence
        Predictions for held-out pairs, with their noise.
    true_flux : ndarray of float32, shape (n, 2)
        True fluxes of central and companion.
    """
    flux = evidence.flux
    with np.errstate(divide="ignore", invalid="ignore"):
        error = np.log(np.maximum(np.abs(flux - true_flux) / np.abs(flux), _SMALLEST_ERROR))
    usable = np.isfinite(error).all(axis=1)
    known, error = predictors(evidence)[usable], error[usable].astype(np.float64)
    low, high = np.percentile(known, [_EDGE_PERCENT, 100 - _EDGE_PERCENT], axis=(0, 1))
    clipped = np.clip(known, low, high)
    return ErrorModel(
        with_noise=_fit_members(quadratic_form(clipped), error),
        without_noise=_fit_members(quadratic_form(clipped[..., :-1]), error),
        low=tuple(low.tolist()),
        high=tuple(high.tolist()),
    )


def _fit_members(form: Floats, error: Floats) -> tuple[tuple[float, ...], tuple[float, ...]]:
    central, companion = (
        tuple(quantile_regression(form[:, member], error[:, member], _ONE_SIGMA).tolist())
        for member in (0, 1)
    )
    return central, companion


def quantile_regression(columns: Floats, values: Floats, quantile: float) -> Floats:
    """Fit a linear model of a quantile, by linear programming.

    Parameters
    ----------
    columns : ndarray of float64, shape (n, k)
        Regressors.
    values : ndarray of float64, shape (n,)
        What is modelled.
    quantile : float
        Share of the values below the model.

    Returns
    -------
    ndarray of float64, shape (k,)
        Coefficients.
    """
    # The dual (Koenker 2005, section 6.2) has k constraints instead of n, and its multipliers are the fit.
    solved = optimize.linprog(
        -values,
        A_eq=columns.T,
        b_eq=(1 - quantile) * columns.sum(axis=0),
        bounds=(0, 1),
        method="highs",
    )
    return -np.asarray(solved.eqlin.marginals, np.float64)
