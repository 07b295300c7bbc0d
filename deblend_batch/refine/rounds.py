"""Fit, judge, and fit again what changed: the rounds of a field, apart from where the fits run."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from deblend_batch.field.layout import Field
from deblend_batch.refine.fits import Fits
from deblend_batch.refine.rules import NO_TRIAL, RefineRules, TrialRules
from deblend_batch.refine.sources import Sources
from deblend_batch.refine.verdicts import NO_FLUX, Verdicts, judge, unsure
from deblend_batch.tiling.blending import Sky, central_first, describe_blends
from deblend_batch.tiling.blends import Blends
from deblend_batch.tiling.contaminants import add_contaminants
from deblend_batch.tiling.grouping import BlendRules, group_sources

_NEAR = 0.4  # of a stamp: what is farther from a member says little of it
FitAll = Callable[[Blends, TrialRules], Fits]
"""Fits blends, and tries members, wherever that is done; no fit depends on which others are fitted."""


@dataclass(frozen=True)
class Dropped:
    """Sources that are none.

    Parameters
    ----------
    sources : Sources
        As they were last seen.
    reason : ndarray of str, shape (n,)
        Why they are none.
    into : ndarray of int64, shape (n,)
        Id of the source beside each; -1 where there was none.
    """

    sources: Sources
    reason: NDArray[np.str_]
    into: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.sources)


def refine(
    found: Sources, field: Field, fit_all: FitAll, links: BlendRules, rules: RefineRules
) -> tuple[Sources, list[Dropped]]:
    """Refine the sources of a field.

    Parameters
    ----------
    found : Sources
        What a detection found: rather too many than too few.
    field : Field
        Their field.
    fit_all : callable
        Fits blends.
    links : BlendRules
        What a blend is.
    rules : RefineRules
        What a source must show.

    Returns
    -------
    sources : Sources
        Those that stand, by id, with the values of their last fit.
    dropped : list of Dropped
        One for each round, and one for the end.
    """
    sources, changed, dropped = Sources.joined([found]), found.yx, []
    for number in range(1, rules.rounds + 1):
        blends = _touched(_blends(sources, field, links), changed)
        if len(blends) == 0:
            break
        fits = fit_all(blends, rules.trial if number == 1 else NO_TRIAL)
        last = number == rules.rounds
        verdicts = judge(fits, sources, max(field.psf_fwhm_px), rules, last=last)
        sources, gone, changed = _carried_out(sources, fits, verdicts, field, number)
        dropped.append(gone)
    none = unsure(sources, rules)
    dropped.append(_gone(sources[none]))
    return sources[~none], dropped


def _gone(sources: Sources) -> Dropped:
    reason = np.full(len(sources), NO_FLUX)
    return Dropped(sources, reason, np.full(len(sources), -1, np.int64))


def _blends(sources: Sources, field: Field, links: BlendRules) -> Blends:
    detections, scale = sources.as_detections(field), field.pixel_scale_arcsec
    sky = Sky(detections, sources.yx, field.shape_yx)
    widest = float(max(field.meta.psf_fwhm_arcsec))
    grouping = group_sources(detections, sources.yx, scale, links)
    grouping = add_contaminants(grouping, sky, scale, widest, links.max_members)
    return describe_blends(central_first(grouping, detections), sky, scale, widest)


def _touched(blends: Blends, changed_yx: NDArray[np.float64]) -> Blends:
    """Return the blends beside whose members something has changed; the fits of others would say the same."""
    if len(blends) == 0 or len(changed_yx) == 0:
        return blends[np.zeros(len(blends), bool)]
    blend, member = np.nonzero(blends.is_measured)
    distance, _ = cKDTree(changed_yx).query(blends.yx[blend, member])
    near = distance <= _NEAR * blends.stamp_size[blend]
    return blends[np.unique(blend[near])]


def _carried_out(
    sources: Sources, fits: Fits, verdicts: Verdicts, field: Field, number: int
) -> tuple[Sources, Dropped, NDArray[np.float64]]:
    """Return the sources after a round, those that went, and where something changed."""
    sources = _updated(sources, fits, number)
    gone = np.isin(sources.id, verdicts.dropped)
    dropped = Dropped(sources[gone], verdicts.reason, verdicts.into)
    added = Sources.added(verdicts.added_yx, verdicts.added_flux, field, sources)
    changed = np.concatenate([dropped.sources.yx, added.yx])
    sources.yx[np.searchsorted(sources.id, verdicts.moved)] = verdicts.moved_yx
    return Sources.joined([sources[~gone], added]), dropped, changed


def _updated(sources: Sources, fits: Fits, number: int) -> Sources:
    """Give sources what their fits say, where they say something."""
    usable = np.isfinite(fits.snr) & np.isfinite(fits.yx).all(axis=1)
    rows = np.searchsorted(sources.id, fits.source_id[usable])
    columns = {}
    for name in ("yx", "yx_err", "flux", "flux_err", "radius_arcsec"):
        values = getattr(sources, name).copy()
        values[rows] = getattr(fits, name)[usable]
        columns[name] = values
    of_round = sources.round.copy()
    of_round[rows] = number
    return replace(sources, **columns, round=of_round)
