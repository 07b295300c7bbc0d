"""The light that a bright source's halo leaves under its neighbours: which of them stand above it.

At the rim of a halo noise alone passes the threshold, and rings, spikes and arms do everywhere in it. So a
bright source's profile is taken as the median of ellipses round it, and the scatter along them: what does not
stand above both is the halo's. Nothing need be known of the PSF's wings, or of the galaxy, but that they are
even.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from deblend_batch.detect.moments import Isophotes
from deblend_batch.field.sky.noise import MAD_TO_SIGMA

_MOST_HOSTS = 4000
_LEAST_PEAK = 12.0  # of the filtered image: fainter sources have no halo that passes the threshold
_NEAR_FWHM = 2.5
"""Nearer, peaks of the sharper image tell better than an ellipse that a neighbour fills."""
_REACH_RADII = 2.0
_REACH_FWHM = 5.0
_MOST_REACH_PX = 250
"""A tile's halo: what is larger may look otherwise in another tiling."""
_COMPARABLE, _COMPARABLE_TOP = 0.1, 0.3
"""Of the host's light and height: what has more of both is left out of its ellipses."""
_TOWERS = 4.0
"""How much higher a peak is no lesser one: a star whose ring has got more pixels than its core."""
_LEAST_IN_RING = 12
_SIBLING_RADII = 2.0
_SCATTERS = 2.5
_SPIKE_RATIO, _SPIKE_ANGLE, _SPIKE_REACH = 0.5, np.radians(10.0), 4.0
"""Minor over major axis; by how much the major one misses the star; how far, in reaches of its profile."""

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Hosting:
    """What each source has under it; row ``i`` is source ``i``.

    Parameters
    ----------
    host : ndarray of int64, shape (n,)
        The source whose halo is brightest there; -1 where there is none.
    halo : ndarray of float64, shape (n,)
        Light of all halos at its peak, in units of the filtered image's noise.
    scatter : ndarray of float64, shape (n,)
        Rms along the host's ellipse there, in the same units; 0 without a host.
    radii : ndarray of float64, shape (n,)
        Distance from the host in units of its isophote's radius; inf without a host.
    share : ndarray of float64, shape (n,)
        Light in the source's pixels over that in the host's; inf without a host.
    siblings : ndarray of int64, shape (n,)
        How many have the same host and are about as near to it.
    apart : ndarray of bool, shape (n,)
        Whether the host is so far that its ellipse there shows its own light.
    area_px : ndarray of float64, shape (n,)
        Pixels of the source.
    reach_px : ndarray of float64, shape (n,)
        How far the source's own profile stays above the threshold; 0 where it was not measured.
    """

    host: NDArray[np.int64]
    halo: Array
    scatter: Array
    radii: Array
    share: Array
    siblings: NDArray[np.int64]
    apart: NDArray[np.bool_]
    area_px: Array
    reach_px: Array


def measure_hosting(
    segments: NDArray[np.int32],
    smooth: Array,
    objects: Isophotes,
    peaks_yx: Array,
    saturated: NDArray[np.bool_],
    fwhm_px: float,
    threshold: float,
) -> Hosting:
    """Measure the halos of the bright sources under all others.

    Parameters
    ----------
    segments : ndarray of int32, shape (y, x)
        Number of each pixel's source, from 1.
    smooth : ndarray of float64, shape (y, x)
        The filtered image, in units of its noise.
    objects : Isophotes
        The sources.
    peaks_yx : ndarray of float64, shape (n, 2)
        Their highest places.
    saturated : ndarray of bool, shape (n,)
        Which have a saturated core.
    fwhm_px : float
        Width of the PSF.
    threshold : float
        Isophote, in units of the noise.
    """
    n = len(objects)
    light, area, top = _sums(segments, smooth, n)
    found = _no_hosts(n, area)
    reach = _REACH_RADII * _circle(area) + _REACH_FWHM * fwhm_px
    hosts = np.flatnonzero(top >= _LEAST_PEAK)
    hosts = hosts[np.argsort(-light[hosts], kind="stable")][:_MOST_HOSTS]
    order = np.argsort(peaks_yx[:, 0], kind="stable")
    rows = peaks_yx[order, 0]
    brightest = np.zeros(n)
    for host in hosts.tolist():
        out = min(float(reach[host] * _stretch(objects, host)), _MOST_REACH_PX)
        centre = peaks_yx[host]
        near = order[slice(*np.searchsorted(rows, [centre[0] - out, centre[0] + out]))]
        near = near[np.abs(peaks_yx[near, 1] - centre[1]) <= out]
        near = near[_is_lesser(light[near] / light[host], top[near] / top[host])]
        if not len(near):
            continue
        comparable = (light >= _COMPARABLE * light[host]) & (top >= _COMPARABLE_TOP * top[host])
        rings = _Rings.measure(
            segments, smooth, objects, host, centre, out, comparable & (not saturated[host])
        )
        radius = rings.radius_of(peaks_yx[near])
        found.reach_px[host] = rings.reach(threshold)
        level, scatter = rings.at(radius)
        apart = radius >= _NEAR_FWHM * fwhm_px
        found.halo[near[apart]] += np.maximum(level[apart], 0)
        more = level > brightest[near]
        mine = near[more]
        brightest[mine] = level[more]
        found.host[mine], found.scatter[mine] = host, scatter[more]
        found.apart[mine], found.radii[mine] = apart[more], radius[more] / _circle(area)[host]
        found.share[mine] = light[mine] / light[host]
    _count_siblings(found)
    return found


def _is_lesser(light: Array, top: Array) -> NDArray[np.bool_]:
    """Tell which sources may be a part of another, by their light and height over the other's."""
    return np.asarray(((light < 1) & (top < _TOWERS)) | (top < 1 / _TOWERS))


def _no_hosts(n: int, area: Array) -> Hosting:
    return Hosting(
        host=np.full(n, -1),
        halo=np.zeros(n),
        scatter=np.zeros(n),
        radii=np.full(n, np.inf),
        share=np.full(n, np.inf),
        siblings=np.zeros(n, np.int64),
        apart=np.zeros(n, bool),
        area_px=area,
        reach_px=np.zeros(n),
    )


def _count_siblings(found: Hosting) -> None:
    near = np.flatnonzero((found.host >= 0) & (found.radii < _SIBLING_RADII))
    count = np.bincount(found.host[near], minlength=len(found.host))
    found.siblings[near] = count[found.host[near]] - 1


def stands_out(
    hosting: Hosting, peak: Array, threshold: float, share: float = 1.0
) -> NDArray[np.bool_]:
    """Tell which sources stand above the halos under them.

    Parameters
    ----------
    hosting : Hosting
        Of the sources.
    peak : ndarray of float64, shape (n,)
        Of each on the filtered image, in units of its noise.
    threshold : float
        By how much, in the same units, if not by 2.5 times the scatter along the halo, where that is more.
    share : float
        What of that is asked.
    """
    least = share * np.maximum(threshold, _SCATTERS * hosting.scatter)
    return np.asarray(~hosting.apart | (peak - hosting.halo > least))


def is_near_star(
    hosting: Hosting, peaks_yx: Array, saturated: NDArray[np.bool_]
) -> NDArray[np.bool_]:
    """Tell which sources lie where a saturated star's own profile is above the threshold."""
    near = np.zeros(len(peaks_yx), bool)
    for star in np.flatnonzero(saturated):
        near |= np.hypot(*(peaks_yx - peaks_yx[star]).T) < hosting.reach_px[star]
    return near & ~saturated


def is_spike(
    hosting: Hosting, objects: Isophotes, peaks_yx: Array, saturated: NDArray[np.bool_]
) -> NDArray[np.bool_]:
    """Tell which sources are long, point at a saturated star, and are no farther than its spikes reach."""
    is_long = objects.b < _SPIKE_RATIO * objects.a
    found = np.zeros(len(peaks_yx), bool)
    for star in np.flatnonzero(saturated):
        dy, dx = (peaks_yx - peaks_yx[star]).T
        turned = np.abs(np.sin(objects.theta - np.arctan2(dy, dx)))
        near = np.hypot(dy, dx) < _SPIKE_REACH * hosting.reach_px[star]
        found |= near & (turned < np.sin(_SPIKE_ANGLE))
    return found & is_long & ~saturated


@dataclass(frozen=True)
class _Rings:
    """Medians and scatter along ellipses round a source, one a pixel apart; NaN where too few pixels are."""

    centre: Array
    turn: Array
    level: Array
    scatter: Array

    @classmethod
    def measure(
        cls,
        segments: NDArray[np.int32],
        smooth: Array,
        objects: Isophotes,
        host: int,
        centre: Array,
        out: float,
        left_out: NDArray[np.bool_],
    ) -> _Rings:
        low = np.maximum(np.floor(centre - out).astype(int), 0)
        high = np.minimum(np.ceil(centre + out).astype(int) + 1, smooth.shape)
        box = (slice(low[0], high[0]), slice(low[1], high[1]))
        turn = _turn(objects, host)
        y, x = np.indices((high[0] - low[0], high[1] - low[1]))
        radius = _radius(np.stack([y + low[0], x + low[1]], axis=-1) - centre, turn)
        owner = segments[box]
        other = np.concatenate([[False], left_out])
        other[host + 1] = False
        used = ~other[owner] & (radius < out)
        bins, values = radius[used].astype(np.int64), smooth[box][used]
        level = _medians(bins, values, int(out) + 1)
        scatter = MAD_TO_SIGMA * _medians(bins, np.abs(values - level[bins]), int(out) + 1)
        return cls(centre, turn, level, scatter)

    def radius_of(self, yx: Array) -> Array:
        return _radius(yx - self.centre, self.turn)

    def at(self, radius: Array) -> tuple[Array, Array]:
        """Level and scatter at distances; 0 beyond the last ellipse."""
        where = np.minimum(radius.astype(np.int64), len(self.level) - 1)
        inside = radius < len(self.level)
        level, scatter = (
            np.where(inside, np.nan_to_num(each[where]), 0.0) for each in (self.level, self.scatter)
        )
        return level, scatter

    def reach(self, threshold: float) -> float:
        above = np.flatnonzero(np.nan_to_num(self.level) > threshold)
        return float(above[-1] + 1) if len(above) else 0.0


def _sums(segments: NDArray[np.int32], smooth: Array, n: int) -> tuple[Array, Array, Array]:
    """Light, area and height of each source."""
    pixel = np.flatnonzero(segments)
    number, value = segments.ravel()[pixel] - 1, smooth.ravel()[pixel]
    top = np.zeros(n)
    np.maximum.at(top, number, value)
    return (
        np.asarray(np.bincount(number, value, n), np.float64),
        np.bincount(number, minlength=n).astype(np.float64),
        top,
    )


def _circle(area: Array) -> Array:
    return np.sqrt(area / np.pi)


def _stretch(objects: Isophotes, host: int) -> float:
    return float(np.sqrt(objects.a[host] / objects.b[host]))


def _turn(objects: Isophotes, host: int) -> Array:
    """Return the matrix that makes a source's ellipse a circle of its area; from (y, x)."""
    stretch, angle = _stretch(objects, host), objects.theta[host]
    along = np.array([np.sin(angle), np.cos(angle)]) / stretch
    across = np.array([np.cos(angle), -np.sin(angle)]) * stretch
    return np.stack([along, across])


def _radius(offset: Array, turn: Array) -> Array:
    return np.asarray(np.hypot(*np.moveaxis(offset @ turn.T, -1, 0)))


def _medians(bins: NDArray[np.int64], values: Array, count: int) -> Array:
    """Median of the values of each bin; NaN where there are few."""
    order = np.lexsort((values, bins))
    size = np.bincount(bins, minlength=count)
    first = np.cumsum(size) - size
    enough = size >= _LEAST_IN_RING
    found = np.full(count, np.nan)
    found[enough] = values[order[(first + size // 2)[enough]]]
    return found
