"""One-sigma flux errors: a log-linear model of the fractional scatter.

The network itself gives no error; the model is fitted on pairs held out from training, see
:mod:`deblend_batch.train.calibrate`. How well a pair is split depends above all on its separation,
flux ratio and signal to noise, on how extended the members are, on how far the network moved away
from the split by nearest position, and on third sources nearby. So ``ln(flux_err / flux)`` is a
quadratic form of these.
"""

from __future__ import annotations

from dataclasses import dataclass as plain_dataclass
from typing import Annotated, Any

import numpy as np
from numpy.typing import NDArray
from pydantic import Field
from pydantic.dataclasses import dataclass

from deblend_batch.models.card import STRICT

Floats = NDArray[np.floating[Any]]
_TINY = float(np.finfo(np.float32).tiny)
_CROWDING_PX = 20.0
_SIGN = np.array([1.0, -1.0])  # of the network's shift, for central and companion
_N = 6  # predictors, of which the last is the signal to noise

Six = Annotated[tuple[float, ...], Field(min_length=_N, max_length=_N)]
Form = Annotated[tuple[float, ...], Field(min_length=28, max_length=28)]
FormOfFive = Annotated[tuple[float, ...], Field(min_length=21, max_length=21)]


@plain_dataclass(frozen=True)
class Evidence:
    """What the errors of n pairs are judged by.

    Parameters
    ----------
    flux : ndarray of float, shape (n, 2)
        Predicted fluxes of central and companion, any linear unit.
    separation_px : ndarray of float, shape (n,)
        Separation of the members, px.
    crowding : ndarray of float, shape (n, 2)
        Result of :func:`crowding`.
    hints : ndarray of float, shape (n, 2)
        Of :class:`~deblend_batch.models.networks.interface.Estimate`.
    sigma : ndarray of float, shape (n,), or None
        Background rms per pixel, unit of ``flux``; None where it is not known.
    """

    flux: Floats
    separation_px: Floats
    crowding: Floats
    hints: Floats
    sigma: Floats | None


@dataclass(frozen=True, config=STRICT)
class ErrorModel:
    """Coefficients of the error model.

    Parameters
    ----------
    with_noise : tuple of tuple of float, shape (2, 28)
        For central and companion: coefficients of :func:`quadratic_form` of all six predictors.
    without_noise : tuple of tuple of float, shape (2, 21)
        The same without the signal to noise, for callers who do not know the noise.
    low, high : tuple of float, shape (6,)
        Range of each predictor in the fit; beyond it the edge's value is used, and below the lowest
        signal to noise the error grows as its inverse.
    """

    with_noise: tuple[Form, Form]
    without_noise: tuple[FormOfFive, FormOfFive]
    low: Six
    high: Six

    def flux_err(self, evidence: Evidence) -> NDArray[np.float32]:
        """Estimate one-sigma errors.

        Returns
        -------
        ndarray of float32, shape (n, 2)
            Errors, unit of the fluxes; NaN where a flux is.
        """
        known = predictors(evidence)
        used = known.shape[-1]
        clipped = np.clip(known, self.low[:used], self.high[:used])
        coefficients = np.asarray(self.with_noise if used == _N else self.without_noise)
        log_error = (quadratic_form(clipped) * coefficients).sum(axis=-1)
        if used == _N:
            log_error = log_error + np.maximum(self.low[-1] - known[..., -1], 0)
        error: NDArray[np.float32] = (np.abs(evidence.flux) * np.exp(log_error)).astype(np.float32)
        return error


def crowding(
    central_yx: Floats, companion_yx: Floats, neighbours_yx: Floats | None
) -> NDArray[np.float64]:
    """Measure how near third sources come to each member.

    Parameters
    ----------
    central_yx, companion_yx : ndarray of float, shape (n, 2)
        Positions of the members, px.
    neighbours_yx : ndarray of float, shape (n, k, 2), or None
        Positions of third sources, px, NaN-padded.

    Returns
    -------
    ndarray of float64, shape (n, 2)
        ``ln(1 + 20 px / distance)`` of the nearest, at least 1 px away; 0 where there is none.
    """
    members = np.stack([central_yx, companion_yx], axis=1).astype(np.float64)
    if neighbours_yx is None or neighbours_yx.shape[1] == 0:
        return np.zeros(members.shape[:2])
    distance = np.linalg.norm(neighbours_yx[:, None] - members[:, :, None], axis=-1)
    nearest = np.where(np.isfinite(distance), distance, np.inf).min(axis=-1)
    return np.asarray(np.log1p(_CROWDING_PX / np.maximum(nearest, 1.0)))


def predictors(evidence: Evidence) -> NDArray[np.float64]:
    """Return what the error depends on, per member.

    Returns
    -------
    ndarray of float64, shape (n, 2, 6) or (n, 2, 5)
        Log of the member's flux over the other's, log of the separation in px, extent, shift
        towards the member, crowding and, where sigma is known, log of the flux over sigma.
    """
    positive = np.maximum(np.abs(evidence.flux.astype(np.float64)), _TINY)
    separation = np.log(np.maximum(evidence.separation_px, 0.1))
    extent, shift = evidence.hints[:, :1], evidence.hints[:, 1:] * _SIGN
    columns = [
        np.log(positive / positive[:, ::-1]),
        np.broadcast_to(separation[:, None], positive.shape),
        np.broadcast_to(extent, positive.shape),
        shift,
        evidence.crowding,
    ]
    if evidence.sigma is not None:
        sigma = np.maximum(evidence.sigma.astype(np.float64), _TINY)
        columns.append(np.log(positive / sigma[:, None]))
    return np.stack(columns, axis=-1)


def quadratic_form(known: NDArray[np.float64]) -> NDArray[np.float64]:
    """Expand k predictors, last axis, into 1, themselves and all products of two.

    Parameters
    ----------
    known : ndarray of float64, shape (..., k)
        Predictors.

    Returns
    -------
    ndarray of float64, shape (..., (k + 1) (k + 2) / 2)
        Regressors.
    """
    k = known.shape[-1]
    ones = np.ones((*known.shape[:-1], 1))
    products = [known[..., i : i + 1] * known[..., i:] for i in range(k)]
    return np.concatenate([ones, known, *products], axis=-1)
