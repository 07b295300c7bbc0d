"""One-sigma flux errors: a log-linear model of the fractional scatter.

The network itself gives no error; the model is fitted on pairs held out from training. How well it
splits a pair depends above all on the separation, on the flux ratio and on the signal to noise, so
``ln(flux_err / flux)`` is modelled as a quadratic form of these; see
:mod:`deblend_batch.train.calibrate` for the fit.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic.dataclasses import dataclass

from deblend_batch.models.card import STRICT

Floats = NDArray[np.floating[Any]]
_TINY = np.finfo(np.float32).tiny


@dataclass(frozen=True, config=STRICT)
class ErrorModel:
    """Coefficients of the error model.

    Parameters
    ----------
    with_noise : tuple of tuple of float, shape (2, 10)
        For central and companion: coefficients of the quadratic form of log flux ratio, log
        separation and log signal to noise.
    without_noise : tuple of tuple of float, shape (2, 6)
        The same without the signal to noise, for callers who do not know the noise.
    low, high : tuple of float, shape (3,)
        Range of log flux ratio, log separation and log signal to noise in the fit; beyond it the
        edge's value is used, and below the lowest signal to noise the error grows as its inverse.
    """

    with_noise: tuple[tuple[float, ...], tuple[float, ...]]
    without_noise: tuple[tuple[float, ...], tuple[float, ...]]
    low: tuple[float, float, float]
    high: tuple[float, float, float]

    def flux_err(
        self, flux: Floats, separation_px: Floats, sigma: Floats | None
    ) -> NDArray[np.float32]:
        """Estimate one-sigma errors.

        Parameters
        ----------
        flux : ndarray of float, shape (n, 2)
            Predicted fluxes of central and companion, any linear unit.
        separation_px : ndarray of float, shape (n,)
            Separation of the members, px.
        sigma : ndarray of float, shape (n,), or None
            Background rms per pixel, unit of ``flux``.

        Returns
        -------
        ndarray of float32, shape (n, 2)
            Errors, unit of ``flux``; NaN where a flux is.
        """
        known = predictors(flux, separation_px, sigma)
        used = known.shape[-1]
        clipped = np.clip(known, self.low[:used], self.high[:used])
        coefficients = np.asarray(self.without_noise if sigma is None else self.with_noise)
        log_error = (quadratic_form(clipped) * coefficients).sum(axis=-1)
        if sigma is not None:
            log_error = log_error + np.maximum(self.low[2] - known[..., 2], 0)
        error: NDArray[np.float32] = (np.abs(flux) * np.exp(log_error)).astype(np.float32)
        return error


def predictors(flux: Floats, separation_px: Floats, sigma: Floats | None) -> NDArray[np.float64]:
    """Return what the error depends on.

    Parameters
    ----------
    flux, separation_px, sigma
        As for :meth:`ErrorModel.flux_err`.

    Returns
    -------
    ndarray of float64, shape (n, 2, 3) or (n, 2, 2)
        Per member: log of its flux over the other's, log of the separation in px and, where sigma
        is known, log of its flux over sigma.
    """
    positive = np.maximum(np.abs(flux.astype(np.float64)), _TINY)
    columns = [
        np.log(positive / positive[:, ::-1]),
        np.broadcast_to(np.log(np.maximum(separation_px, 0.1))[:, None], positive.shape),
    ]
    if sigma is not None:
        columns.append(np.log(positive / np.maximum(sigma.astype(np.float64), _TINY)[:, None]))
    return np.stack(columns, axis=-1)


def quadratic_form(known: NDArray[np.float64]) -> NDArray[np.float64]:
    """Expand k predictors, last axis, into 1, themselves and all products of two."""
    k = known.shape[-1]
    ones = np.ones((*known.shape[:-1], 1))
    products = [known[..., i : i + 1] * known[..., i:] for i in range(k)]
    return np.concatenate([ones, known, *products], axis=-1)
