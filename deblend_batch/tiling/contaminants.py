"""Contaminants: bright sources that are linked to no member of a blend, and whose light is in its pixels.

They are fitted beside the members, and measured in a blend of their own.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from deblend_batch.tiling.blending import Sky
from deblend_batch.tiling.division import are_held, first_with_room, place_in_run
from deblend_batch.tiling.grouping import Grouping
from deblend_batch.tiling.linking import known_radii
from deblend_batch.tiling.stamp_sizes import LARGEST_EXTENT_PX

LEAST_LIGHT = 0.03
"""Light of a contaminant beyond the line halfway to a source, as a share of that source's own.

The least that counts. With 0.1 isolated galaxies of a ground-based field come out 1.4 % too bright, with 0.03
0.7 %, with 0.01 0.5 %; fits of such a field take 1.3, 1.6 and 2.3 times as long as without contaminants.
"""
MOST_CONTAMINANTS = 3
"""Of a blend, and of each magnitude that are looked at: the others are farther, or less light."""

_TIERS = 25
"""Magnitudes above the faintest source; sources within one of them are searched together."""
_MOST_RATIO_MAG = 50.0
_FAINTER = 5  # magnitudes: all light of one that is so much fainter is as little as that
_REACH_PX = LARGEST_EXTENT_PX / 2
"""Farther away a contaminant would make stamps as large as they may be; its light is flat there, like sky."""


@dataclass(frozen=True)
class _Reached:
    """Who receives whose light, and how much of it as a share of one's own."""

    source: NDArray[np.int64]
    by: NDArray[np.int64]
    light: NDArray[np.float64]


def add_contaminants(
    grouping: Grouping,
    sky: Sky,
    pixel_scale_arcsec: float,
    psf_fwhm_arcsec: float,
    max_members: int,
    least_light: float = LEAST_LIGHT,
) -> Grouping:
    """Put beside the members of each blend the sources whose light is in their pixels.

    Light is taken to fall as that of a Moffat profile of index 2 with the source's half-light radius, which
    is between those of exponential and of de Vaucouleurs profiles. Sources of unknown magnitude contaminate
    none, and are contaminated by none.

    Parameters
    ----------
    grouping : Grouping
        Blends, each source measured in one of them at most.
    sky : Sky
        The field.
    pixel_scale_arcsec : float
        Edge of a pixel.
    psf_fwhm_arcsec : float
        Full width at half maximum of the widest band's PSF.
    max_members : int
        Most members of a blend; those that have as many get no others.
    least_light : float
        Least light of a contaminant, as :data:`LEAST_LIGHT`.

    Returns
    -------
    Grouping
        The same blends in the same order; what they measure is the same.
    """
    radius = known_radii(sky.detections.radius_arcsec) / pixel_scale_arcsec
    radius = np.hypot(radius, psf_fwhm_arcsec / pixel_scale_arcsec / 2)
    reached = _reached(sky.yx, np.asarray(sky.detections.mag, np.float64), radius, least_light)
    return _widened(grouping, *_chosen(grouping, reached, sky.yx, max_members))


def _reached(
    yx: NDArray[np.float64],
    mag: NDArray[np.float64],
    radius: NDArray[np.float64],
    least_light: float,
) -> _Reached:
    """Find the contaminants of every source, of each tier of brightness the nearest few."""
    known = np.flatnonzero(np.isfinite(mag))
    tier = np.floor(mag[known])
    tier = np.maximum(tier, tier.max(initial=-np.inf) - _TIERS)
    source, by, light = [known[:0]], [known[:0]], [np.empty(0)]
    for level in np.unique(tier):
        bright, asking = known[tier == level], known[tier >= level - _FAINTER]
        most = float(_ratio(mag[asking].max() - mag[bright].min()))
        near = [*range(1, MOST_CONTAMINANTS + 2)]  # one of them may be the source itself
        reach = min(2 * float(radius[bright].max()) * _distance(least_light / most), _REACH_PX)
        apart, index = cKDTree(yx[bright]).query(yx[asking], near, distance_upper_bound=reach)
        row, column = np.nonzero(np.isfinite(apart))
        receives, gives = asking[row], bright[index[row, column]]
        share = _ratio(mag[receives] - mag[gives])
        share *= _beyond(apart[row, column] / (2 * radius[gives]))
        kept = (share >= least_light) & (receives != gives)
        source.append(receives[kept])
        by.append(gives[kept])
        light.append(share[kept])
    return _Reached(np.concatenate(source), np.concatenate(by), np.concatenate(light))


def _ratio(mag: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return how many times brighter a source is that is so much brighter in magnitudes."""
    return np.asarray(10 ** (0.4 * np.minimum(mag, _MOST_RATIO_MAG)))


def _beyond(distance: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the share of a profile's light beyond a line at a distance, in half-light radii."""
    return np.asarray((1 - distance / np.hypot(1, distance)) / 2)


def _distance(share: float) -> float:
    """Return the distance beyond which there is a share of the light, at most half of it."""
    share = min(share, 0.5)
    return float((1 - 2 * share) / np.sqrt(4 * share * (1 - share)))


def _chosen(
    grouping: Grouping, reached: _Reached, yx: NDArray[np.float64], max_members: int
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Choose for each blend the brightest there of those that are no members and that its stamp holds."""
    home = np.full(len(yx), -1, np.int64)
    blends, column = np.nonzero(grouping.is_measured)
    home[grouping.rows[blends, column]] = blends
    asked = np.flatnonzero(
        home[reached.source] >= 0
    )  # of a field whose sources others measure, none
    blend, by, light = home[reached.source[asked]], reached.by[asked], reached.light[asked]
    outside = (grouping.rows[blend] != by[:, None]).all(axis=1)
    outside &= _held(grouping, yx, blend, by)
    order = np.lexsort((by, -light, blend))
    order = order[outside[order]]
    room = np.minimum(max_members - (grouping.rows >= 0).sum(axis=1), MOST_CONTAMINANTS)
    pairs = first_with_room(np.stack([blend, by], axis=1)[order], room)
    return pairs[:, 0], pairs[:, 1]


def _held(
    grouping: Grouping, yx: NDArray[np.float64], blend: NDArray[np.int64], by: NDArray[np.int64]
) -> NDArray[np.bool_]:
    """Whether the stamp of a blend holds a contaminant, on whatever sides of it others are."""
    places = np.where((grouping.rows >= 0)[..., None], yx[grouping.rows], np.nan)
    low, high = np.nanmin(places, axis=1), np.nanmax(places, axis=1)
    return are_held(yx[by], low[blend], high[blend], LARGEST_EXTENT_PX)


def _widened(grouping: Grouping, blend: NDArray[np.int64], by: NDArray[np.int64]) -> Grouping:
    """Write contaminants behind the members of their blends."""
    n_members = (grouping.rows >= 0).sum(axis=1)
    column = n_members[blend] + place_in_run(blend)
    width = max(int(column.max(initial=-1)) + 1, grouping.rows.shape[1])
    more = ((0, 0), (0, width - grouping.rows.shape[1]))
    rows = np.pad(grouping.rows, more, constant_values=-1)
    rows[blend, column] = by
    return replace(grouping, rows=rows, is_measured=np.pad(grouping.is_measured, more))
