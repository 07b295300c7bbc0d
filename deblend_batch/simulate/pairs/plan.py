"""Which galaxies form a pair, where and how bright: everything of a block of pairs but its pixels."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from deblend_batch.errors import ConfigError
from deblend_batch.simulate.galaxies.pool import GalaxyPool
from deblend_batch.simulate.pairs.rules import (
    PairRules,
    centroid_sigma,
    offset_limits,
    signal_to_noise,
)
from deblend_batch.simulate.presets import Preset

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]

BLOCK = 64
"""Pairs that share a random stream."""
MAX_NEIGHBOURS = 4
_LISTED_SNR = 5.0
_NEIGHBOUR_FADE_MAG = 2.0
_NEIGHBOUR_MARGIN_PX = 4.0


@dataclass(frozen=True)
class Neighbours:
    """Third galaxies of a block.

    Parameters
    ----------
    rows : numpy.ndarray
        int64 (BLOCK, MAX_NEIGHBOURS), rows of the pool.
    flux : numpy.ndarray
        float64 (BLOCK, MAX_NEIGHBOURS); zero where there is none.
    shift : numpy.ndarray
        int64 (BLOCK, MAX_NEIGHBOURS, 2), from pixels of the turned galaxy to pixels of the stamp.
    detected_yx : numpy.ndarray
        float64 (BLOCK, MAX_NEIGHBOURS, 2); NaN where there is none or it would not be detected.
    """

    rows: Integers
    flux: Floats
    shift: Integers
    detected_yx: Floats


@dataclass(frozen=True)
class PairPlan:
    """A block of pairs, member by member (central, companion), before any pixel is touched.

    Parameters
    ----------
    rows : numpy.ndarray
        int64 (BLOCK, 2), rows of the pool.
    mag, flux : numpy.ndarray
        float64 (BLOCK, 2), true AB magnitude and flux in image units.
    sigma : numpy.ndarray
        float64 (BLOCK,), background rms per pixel.
    turn : numpy.ndarray
        int64 (BLOCK,), symmetry operation of all galaxies of a pair (they share a PSF); see :func:`turned`.
    shift : numpy.ndarray
        int64 (BLOCK, 2, 2), from pixels of the turned galaxies to pixels of the stamp.
    true_yx, detected_yx : numpy.ndarray
        float64 (BLOCK, 2, 2), positions in the stamp.
    neighbours : Neighbours
        Third galaxies.
    """

    rows: Integers
    mag: Floats
    flux: Floats
    sigma: Floats
    turn: Integers
    shift: Integers
    true_yx: Floats
    detected_yx: Floats
    neighbours: Neighbours


def turned(yx: Floats, turn: Integers, stamp_px: int) -> Floats:
    """Apply a symmetry operation of the square to positions.

    Parameters
    ----------
    yx : numpy.ndarray
        float64 (..., 2).
    turn : numpy.ndarray
        int64, broadcast with the leading axes: bit 0 flips y, bit 1 flips x, bit 2 then swaps them.
    stamp_px : int
        Side of the square.

    Returns
    -------
    numpy.ndarray
        float64 (..., 2).
    """
    edge = stamp_px - 1.0
    y = np.where(turn & 1, edge - yx[..., 0], yx[..., 0])
    x = np.where(turn & 2, edge - yx[..., 1], yx[..., 1])
    swap = (turn & 4) > 0
    return np.stack([np.where(swap, x, y), np.where(swap, y, x)], axis=-1)


class PairPlanner:
    """Plans blocks of pairs of some galaxies of a pool.

    Parameters
    ----------
    pool : GalaxyPool
        Isolated galaxies.
    rows : numpy.ndarray
        int64, rows of the pool that may be used.
    preset : Preset
        Gives zero point and noise.
    rules : PairRules
        How pairs are made.
    """

    def __init__(self, pool: GalaxyPool, rows: Integers, preset: Preset, rules: PairRules) -> None:
        self._pool, self._preset, self._rules = pool, preset, rules
        self._mag = pool.mag.astype(np.float64)
        self._centre = pool.centre_yx.astype(np.float64)
        self._radius = pool.radius_px.astype(np.float64)
        self._fwhm = pool.psf_fwhm_px.astype(np.float64)
        self._index_partners(rows)
        if self._centrals.size == 0:
            raise ConfigError(
                f"no two of {rows.size} galaxies share a PSF within {rules.max_mag_difference} mag; "
                "draw a larger pool"
            )

    def _index_partners(self, rows: Integers) -> None:
        """Order galaxies by PSF and magnitude, so that the partners of each are one range."""
        order = rows[np.lexsort((self._mag[rows], self._pool.group[rows]))]
        group, reach = self._pool.group[order], self._rules.max_mag_difference
        key = group * 1000.0 + self._mag[order]
        self._rows = order
        self._first = np.searchsorted(group, group, "left")
        self._last = np.searchsorted(group, group, "right")
        self._low = np.maximum(np.searchsorted(key, key - reach, "right"), self._first)
        self._high = np.minimum(np.searchsorted(key, key + reach, "left"), self._last)
        self._centrals = np.flatnonzero(self._high - self._low > 1)

    def plan(self, rng: np.random.Generator) -> PairPlan:
        """Plan one block; every random number of it comes from ``rng``."""
        place = self._centrals[rng.integers(0, self._centrals.size, BLOCK)]
        rows = np.stack([self._rows[place], self._rows[self._partners(place, rng)]], axis=1)
        mag = self._magnitudes(rows, rng)
        flux = 10 ** (-0.4 * (mag - self._preset.zero_point))
        sigma = self._noise(rows, flux, rng)
        turn = rng.integers(0, 8, BLOCK)
        centre = turned(self._centre[rows], turn[:, None], self._pool.stamp_px)
        error = self._centroid_errors(rows, flux, sigma, rng)
        shift = np.empty((BLOCK, 2, 2), np.int64)
        shift[:, 0] = self._rules.stamp_size // 2 - np.rint(centre[:, 0] + error[:, 0])
        wanted = centre[:, 0] + shift[:, 0] + self._offsets(rows, rng)
        shift[:, 1] = np.rint(wanted - centre[:, 1])
        true = centre + shift
        neighbours = self._neighbours(place, true, turn, sigma, rng)
        return PairPlan(rows, mag, flux, sigma, turn, shift, true, true + error, neighbours)

    def _partners(self, place: Integers, rng: np.random.Generator) -> Integers:
        low, high = self._low[place], self._high[place]
        partner = low + np.floor(rng.random(BLOCK) * (high - low - 1)).astype(np.int64)
        return np.asarray(partner + (partner >= place), np.int64)

    def _magnitudes(self, rows: Integers, rng: np.random.Generator) -> Floats:
        mag = self._mag[rows]
        jitter = self._rules.flux_jitter_mag * rng.uniform(-1, 1, mag.shape)
        apart = np.abs((mag + jitter)[:, 0] - (mag + jitter)[:, 1])
        allowed = (apart < self._rules.max_mag_difference)[:, None]
        return mag + np.where(allowed, jitter, jitter.mean(axis=1, keepdims=True))

    def _centroid_errors(
        self, rows: Integers, flux: Floats, sigma: Floats, rng: np.random.Generator
    ) -> Floats:
        error = rng.standard_normal((BLOCK, 2, 2))
        if not self._rules.centroid_error or self._rules.seed_faithful:
            return np.zeros_like(error)
        spread = centroid_sigma(flux, self._radius[rows], self._fwhm[rows], sigma[:, None])
        return error * spread[:, :, None]

    def _noise(self, rows: Integers, flux: Floats, rng: np.random.Generator) -> Floats:
        usual = self._preset.noise_sigma * np.exp(
            self._preset.noise_spread * rng.standard_normal(BLOCK)
        )
        low, high = np.log(self._rules.noise_factor)
        if self._rules.least_snr > 0:
            snr = signal_to_noise(flux, self._radius[rows], self._fwhm[rows], usual[:, None])
            high = np.clip(np.log(snr.min(axis=1) / self._rules.least_snr), low, high)
        return usual * np.exp(rng.uniform(low, high, BLOCK))

    def _offsets(self, rows: Integers, rng: np.random.Generator) -> Floats:
        fwhm = self._fwhm[rows[:, 0]]
        largest = min(64.0, self._rules.stamp_size / 2 - 2)
        limits = offset_limits(self._radius[rows], fwhm, largest)
        free = rng.random(BLOCK) < self._rules.free_offset_fraction
        limits[free, 0], limits[free, 1] = np.minimum(fwhm[free], 0.5 * largest), largest
        # Uniform in area, as the seed's offsets are.
        distance = np.sqrt(rng.uniform(limits[:, 0] ** 2, limits[:, 1] ** 2))
        angle = rng.uniform(0, 2 * np.pi, BLOCK)
        return np.stack([distance * np.sin(angle), distance * np.cos(angle)], axis=1)

    def _neighbours(
        self, place: Integers, true: Floats, turn: Integers, sigma: Floats, rng: np.random.Generator
    ) -> Neighbours:
        shape, size = (BLOCK, MAX_NEIGHBOURS), self._rules.stamp_size
        first, last = self._first[place][:, None], self._last[place][:, None]
        rows = self._rows[first + np.floor(rng.random(shape) * (last - first)).astype(np.int64)]
        centre = turned(self._centre[rows], turn[:, None], self._pool.stamp_px)
        wanted = rng.uniform(-_NEIGHBOUR_MARGIN_PX, size + _NEIGHBOUR_MARGIN_PX, (*shape, 2))
        shift = np.rint(wanted - centre).astype(np.int64)
        mag = self._mag[rows] + rng.uniform(0, _NEIGHBOUR_FADE_MAG, shape)
        count = rng.poisson(self._rules.neighbours_per_stamp, BLOCK)
        present = np.arange(MAX_NEIGHBOURS) < count[:, None]
        present &= self._far_enough(centre + shift, true, rng)
        flux = np.where(present, 10 ** (-0.4 * (mag - self._preset.zero_point)), 0.0)
        known = (self._radius[rows], self._fwhm[rows], sigma[:, None])
        error = centroid_sigma(np.maximum(flux, 1e-9), *known)[:, :, None]
        detected = centre + shift + error * rng.standard_normal((*shape, 2))
        inside = ((detected > -0.5) & (detected < size - 0.5)).all(axis=-1)
        listed = inside & (signal_to_noise(flux, *known) > _LISTED_SNR)
        return Neighbours(rows, flux, shift, np.where(listed[:, :, None], detected, np.nan))

    def _far_enough(self, yx: Floats, true: Floats, rng: np.random.Generator) -> NDArray[np.bool_]:
        """Tell which galaxies are no nearer to a member than the members are to each other, or may be."""
        nearest = _distance(yx[:, :, None], true[:, None]).min(axis=2)
        close = rng.random(yx.shape[:2]) < self._rules.close_neighbour_fraction
        return np.asarray(
            nearest >= _distance(true[:, 0], true[:, 1])[:, None] * np.where(close, 0.5, 1.0)
        )


def _distance(first: Floats, second: Floats) -> Floats:
    step = first - second
    return np.asarray(np.sqrt((step * step).sum(axis=-1)), np.float64)
