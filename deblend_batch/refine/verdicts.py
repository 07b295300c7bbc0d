"""What follows from a fit: which sources are none, and where one is missing. Pure functions of arrays."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from deblend_batch.detect.bits import NEAR_BRIGHT_STAR, SATURATED
from deblend_batch.refine.fits import Fits
from deblend_batch.refine.rules import RefineRules
from deblend_batch.refine.sources import Sources

NO_FLUX = "no flux of its own"
EXPLAINED = "its light is explained by its neighbours"
UNPROVEN = "a residual of its neighbour"


@dataclass(frozen=True)
class Verdicts:
    """What a round changes.

    Parameters
    ----------
    dropped : ndarray of int64, shape (n,)
        Ids of sources that are none.
    reason : ndarray of str, shape (n,)
        Why.
    into : ndarray of int64, shape (n,)
        The source next to it, which has its light now; -1 where there is none.
    added_yx : ndarray of float64, shape (k, 2)
        Where sources are missing, px.
    added_flux : ndarray of float64, shape (k,)
        A guess at their flux, nJy.
    moved : ndarray of int64, shape (j,)
        Ids of sources that were found to be two: one half is among the added.
    moved_yx : ndarray of float64, shape (j, 2)
        Where the other half is, px.
    """

    dropped: NDArray[np.int64]
    reason: NDArray[np.str_]
    into: NDArray[np.int64]
    added_yx: NDArray[np.float64]
    added_flux: NDArray[np.float64]
    moved: NDArray[np.int64]
    moved_yx: NDArray[np.float64]


def judge(
    fits: Fits, sources: Sources, psf_fwhm_px: float, rules: RefineRules, *, last: bool
) -> Verdicts:
    """Say what a round of fits shows.

    Parameters
    ----------
    fits : Fits
        Of that round.
    sources : Sources
        All of the field, before the round.
    psf_fwhm_px : float
        Full width at half maximum of the PSF.
    rules : RefineRules
        What a source must show.
    last : bool
        Whether nothing is added: it would not be fitted any more.

    Returns
    -------
    Verdicts
        In the order of ids, and of significance.
    """
    absent = fits.snr < rules.absent_snr
    explained = (fits.snr < rules.least_snr) & (fits.shared > rules.shared)
    doubtful = (fits.sure < rules.least_sure) & (fits.shared > rules.sure_shared)
    is_clump = (fits.flux_ratio < rules.clump_ratio) & (fits.radii_away < rules.clump_radii)
    explained |= doubtful & is_clump
    unproven = _unproven(fits, sources, rules)
    dropped = absent | unproven | _weakest_first(fits, explained & ~absent)
    rows = np.flatnonzero(dropped)[np.argsort(fits.source_id[dropped], kind="stable")]
    glare = _in_glare(fits, sources)
    may = fits.source_id[~glare[fits.blend] & ~dropped]
    two = _divided(fits, may, psf_fwhm_px, rules)
    halves = fits.halves
    peaks = np.empty(0, np.int64)
    if not last:
        peaks = _missing(fits, ~glare, sources.yx, psf_fwhm_px, rules)
    return Verdicts(
        fits.source_id[rows],
        np.select([absent[rows], explained[rows]], [NO_FLUX, EXPLAINED], UNPROVEN),
        fits.neighbour_id[rows],
        np.concatenate([fits.peak_yx[peaks], halves.yx[two, 1]]),
        np.concatenate([fits.peak_flux[peaks], halves.flux[two, 1]]),
        halves.source_id[two],
        halves.yx[two, 0],
    )


def unsure(sources: Sources, rules: RefineRules) -> NDArray[np.bool_]:
    """Tell which sources are none when all is done: errors may be large for what a later round has found.

    Parameters
    ----------
    sources : Sources
        All of the field, with the values of their last fits.
    rules : RefineRules
        What a source must show.
    """
    fitted = (sources.round > 0) & ((sources.flags & SATURATED) == 0)
    least = np.where(sources.is_added, rules.added_sure, rules.absent_sure)
    return np.asarray(fitted & (sources.flux < least * sources.flux_err))


def _in_glare(fits: Fits, sources: Sources) -> NDArray[np.bool_]:
    """Tell which blends hold a saturated star or the light of one: no fit describes its halo and spikes."""
    place = np.searchsorted(sources.id, fits.source_id)
    found = fits.in_glare.copy()
    found[fits.blend[(sources.flags[place] & (SATURATED | NEAR_BRIGHT_STAR)) != 0]] = True
    return found


def _divided(
    fits: Fits, may: NDArray[np.int64], psf_fwhm_px: float, rules: RefineRules
) -> NDArray[np.int64]:
    """Return the trials that show two sources, by id."""
    halves = fits.halves
    two = halves.are_two(psf_fwhm_px, rules.halves) & np.isin(halves.source_id, may)
    found = np.flatnonzero(two)
    return found[np.argsort(halves.source_id[found], kind="stable")]


def _unproven(fits: Fits, sources: Sources, rules: RefineRules) -> NDArray[np.bool_]:
    """Tell which added members a fit does not bear out."""
    weak = (fits.snr < rules.added_snr) | (fits.shared > rules.added_shared)
    return np.asarray(weak & np.isin(fits.source_id, sources.id[sources.is_added]))


def _weakest_first(fits: Fits, doubtful: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Spare a member whose nearest neighbour is weaker and goes now: it may gain its light."""
    order = np.argsort(fits.source_id, kind="stable")
    place = np.searchsorted(fits.source_id[order], fits.neighbour_id)
    place = order[np.minimum(place, len(order) - 1)] if len(order) else place
    is_beside = fits.source_id[place] == fits.neighbour_id
    weaker = np.where(is_beside & doubtful[place], fits.snr[place], np.inf) < fits.snr
    return doubtful & ~weaker


def _missing(
    fits: Fits,
    may: NDArray[np.bool_],
    known_yx: NDArray[np.float64],
    psf_fwhm_px: float,
    rules: RefineRules,
) -> NDArray[np.int64]:
    """Return the peaks that are sources, the most significant first; of two at one place that one."""
    found = np.flatnonzero((fits.peak_sn >= rules.peak_snr) & may)
    found = found[np.lexsort((*fits.peak_yx[found].T, -fits.peak_sn[found]))]
    if not len(found):
        return found
    apart = rules.apart_fwhm * psf_fwhm_px
    distance, _ = cKDTree(known_yx).query(fits.peak_yx[found])
    found = found[distance >= apart]
    kept: list[int] = []
    near = cKDTree(fits.peak_yx[found]).query_ball_point(fits.peak_yx[found], apart)
    taken = np.zeros(len(found), bool)
    for number, others in enumerate(near):
        if not taken[others].any():
            taken[number] = True
            kept.append(int(found[number]))
    return np.array(kept, np.int64)
