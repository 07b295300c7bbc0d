"""Two sources instead of one: what a fit says where a member is divided along its major axis.

Two galaxies nearer than the PSF's width make one peak; a profile fits both, and its residual shows nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from deblend_batch.engine.methods.fit import FitMethod
from deblend_batch.engine.methods.method import Arrays

LEAST_SNR = 20.0
"""Of a member that is tried: with less, two of half its light would not stand."""
_RADIUS_FWHM = (0.3, 1.3)
"""Half-light radii of two galaxies in one peak: wider ones show their shape, clumps and all."""
_MOST_MEMBERS = 7
_STEP = 0.8  # of the radius, at most of the PSF's width


@dataclass(frozen=True)
class Trials:
    """Members that were divided for a trial, each alone.

    Parameters
    ----------
    row, member : ndarray of int64, shape (k,)
        Which they are: row of the stamps, and number of the member.
    yx : ndarray of float64, shape (k, 2, 2)
        Positions of the two, px in the stamp.
    flux : ndarray of float64, shape (k, band, 2)
        Their fluxes.
    snr, shared : ndarray of float64, shape (k, 2)
        Flux over error in the best band, and the least share of others' light.
    gain : ndarray of float64, shape (k,)
        By how much the sum of squares became less.
    """

    row: NDArray[np.int64]
    member: NDArray[np.int64]
    yx: NDArray[np.float64]
    flux: NDArray[np.float64]
    snr: NDArray[np.float64]
    shared: NDArray[np.float64]
    gain: NDArray[np.float64]


def try_divided(
    method: FitMethod, given: Arrays, answer: Arrays, may: NDArray[np.bool_], fwhm_px: float
) -> Trials:
    """Fit blends again, each with one of its members divided.

    Parameters
    ----------
    method : FitMethod
        Runs the fits.
    given, answer : mapping of ndarray
        What it was given of some blends, of one number of members, and its answer.
    may : ndarray of bool, shape (n, m)
        Members that may be tried.
    fwhm_px : float
        Full width at half maximum of the PSF.
    """
    row, member = np.nonzero(may & _eligible(answer, fwhm_px))
    if given["positions"].shape[1] > _MOST_MEMBERS or not len(row):
        row = member = np.empty(0, np.int64)
        nothing = np.empty((0, 2))
        flux = np.empty((0, answer["flux"].shape[1], 2))
        return Trials(row, member, np.empty((0, 2, 2)), flux, nothing, nothing, np.empty(0))
    divided = {name: values[row] for name, values in given.items()}
    divided["positions"] = _divided(divided["positions"], answer, row, member, fwhm_px)
    found = method.answer(divided, method.default_rows)
    return _read(found, answer, row, member)


def _eligible(answer: Arrays, fwhm_px: float) -> NDArray[np.bool_]:
    """Tell which members are bright, and a little wider than a point."""
    radius = answer["radius_px"] / fwhm_px
    wide = (radius > _RADIUS_FWHM[0]) & (radius < _RADIUS_FWHM[1]) & ~answer["is_star"]
    return np.asarray(wide & (_best_snr(answer) > LEAST_SNR))


def _best_snr(answer: Mapping[str, NDArray[Any]]) -> NDArray[np.float64]:
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.asarray(np.fmax.reduce(answer["flux"] / answer["flux_noise"], axis=1))


def _divided(
    positions: NDArray[np.float64],
    answer: Arrays,
    row: NDArray[np.int64],
    member: NDArray[np.int64],
    fwhm_px: float,
) -> NDArray[np.float64]:
    """Put one half of each member in its place, and the other behind all members."""
    angle = np.radians(answer["position_angle"][row, member])
    step = _STEP * np.clip(answer["radius_px"][row, member], _RADIUS_FWHM[0] * fwhm_px, fwhm_px)
    away = np.stack([np.sin(angle), np.cos(angle)], axis=1) * step[:, None]
    middle = answer["yx"][row, member]
    positions = positions.copy()
    positions[np.arange(len(row)), member] = middle + away
    return np.concatenate([positions, (middle - away)[:, None]], axis=1)


def _read(
    found: Arrays,
    before: Arrays,
    row: NDArray[np.int64],
    member: NDArray[np.int64],
) -> Trials:
    both = np.stack([member, np.full(len(member), found["flux"].shape[2] - 1)], axis=1)
    one = np.arange(len(row))[:, None]
    shared = np.fmin.reduce(found["blendedness"], axis=1)
    gain = np.nansum(before["squares"][row] - found["squares"], axis=1)
    return Trials(
        row,
        member,
        found["yx"][one, both],
        np.moveaxis(found["flux"][one, :, both], 2, 1),
        _best_snr(found)[one, both],
        shared[one, both],
        gain,
    )
