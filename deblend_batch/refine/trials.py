"""Two sources instead of one: what a fit says where a member is divided along its major axis.

Two galaxies nearer than the PSF's width, or faint and wide, make one peak; a profile fits both, and its
residual shows nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from deblend_batch.engine.methods.fit import FitMethod
from deblend_batch.engine.methods.method import Arrays
from deblend_batch.refine.rules import TrialRules

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
    radius_px : ndarray of float64, shape (k, 2)
        Their half-light radii.
    snr, shared : ndarray of float64, shape (k, 2)
        Flux over error in the best band, and the least share of others' light.
    gain, gain_share : ndarray of float64, shape (k,)
        By how much the sum of squares became less, and by what share of it.
    """

    row: NDArray[np.int64]
    member: NDArray[np.int64]
    yx: NDArray[np.float64]
    flux: NDArray[np.float64]
    radius_px: NDArray[np.float64]
    snr: NDArray[np.float64]
    shared: NDArray[np.float64]
    gain: NDArray[np.float64]
    gain_share: NDArray[np.float64]


def try_divided(
    method: FitMethod,
    given: Arrays,
    answer: Arrays,
    may: NDArray[np.bool_],
    fwhm_px: float,
    rules: TrialRules,
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
    rules : TrialRules
        Which of these are tried.
    """
    row, member = np.nonzero(may & _eligible(answer, fwhm_px, rules))
    if given["positions"].shape[1] > _MOST_MEMBERS or not len(row):
        return _none(answer["flux"].shape[1])
    divided = {name: values[row] for name, values in given.items()}
    divided["positions"] = _divided(divided["positions"], answer, row, member, fwhm_px, rules)
    found = method.answer(divided, method.default_rows)
    return _read(found, answer, row, member)


def _none(bands: int) -> Trials:
    number, each = np.empty(0, np.int64), np.empty((0, 2))
    return Trials(
        row=number,
        member=number,
        yx=np.empty((0, 2, 2)),
        flux=np.empty((0, bands, 2)),
        radius_px=each,
        snr=each,
        shared=each,
        gain=np.empty(0),
        gain_share=np.empty(0),
    )


def _eligible(answer: Arrays, fwhm_px: float, rules: TrialRules) -> NDArray[np.bool_]:
    """Tell which members are bright, and wider than a point."""
    radius, (low, high) = answer["radius_px"] / fwhm_px, rules.radius_fwhm
    wide = (radius > low) & (radius < high) & ~answer["is_star"]
    return np.asarray(wide & (_best_snr(answer) > rules.least_snr))


def _best_snr(answer: Mapping[str, NDArray[Any]]) -> NDArray[np.float64]:
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.asarray(np.fmax.reduce(answer["flux"] / answer["flux_noise"], axis=1))


def _divided(
    positions: NDArray[np.float64],
    answer: Arrays,
    row: NDArray[np.int64],
    member: NDArray[np.int64],
    fwhm_px: float,
    rules: TrialRules,
) -> NDArray[np.float64]:
    """Put one half of each member in its place, and the other behind all members."""
    angle = np.radians(answer["position_angle"][row, member])
    step = _STEP * np.clip(
        answer["radius_px"][row, member], rules.radius_fwhm[0] * fwhm_px, fwhm_px
    )
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
    squares = np.nansum(before["squares"][row], axis=1)
    gain = squares - np.nansum(found["squares"], axis=1)
    return Trials(
        row,
        member,
        found["yx"][one, both],
        np.moveaxis(found["flux"][one, :, both], 2, 1),
        found["radius_px"][one, both],
        _best_snr(found)[one, both],
        shared[one, both],
        gain,
        np.divide(gain, squares, out=np.zeros(len(row)), where=squares > 0),
    )
