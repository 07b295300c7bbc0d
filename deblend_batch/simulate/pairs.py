"""Pairs of pool galaxies, blended on the fly by the rules of Boucaud et al. 2020, with their defects mended."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from deblend_batch.errors import ConfigError
from deblend_batch.simulate.batch import PairBatch
from deblend_batch.simulate.pool import SPLITS, GalaxyPool, Split
from deblend_batch.simulate.presets import get_preset

Floats = NDArray[np.float64]
Images = NDArray[np.float32]

BLOCK = 64
_MAX_NEIGHBOURS = 4
_LISTED_SNR = 5.0
_SMALLEST_RADIUS_FWHM = 0.43


@dataclass(frozen=True)
class PairRules:
    """How pairs are made.

    Parameters
    ----------
    stamp_size : int
        Side of the stamps, in pixels.
    max_mag_difference : float
        Largest difference of the members' magnitudes.
    noise_factor : tuple of float
        Range of a factor on the preset's noise, uniform in the logarithm.
    noise_correlation : tuple of float
        Range of the weight of adjacent pixels in the kernel that correlates the noise; (0, 0) is white.
    flux_jitter_mag : float
        Each member is brightened or faded by up to this, as far as ``max_mag_difference`` allows.
    free_offset_fraction : float
        Share of the pairs whose distance follows from the PSF and the stamp alone and not from the radii, as of
        pairs that were found by their distance on the sky.
    neighbours_per_stamp : float
        Mean number of further galaxies in a stamp (Poisson, at most four).
    close_neighbour_fraction : float
        Share of those that may come nearer to a member than the members are to each other.
    centroid_error : bool
        Whether the reported positions have a detector's error.
    background_error : float
        Standard deviation of a constant left in the stamp by background subtraction, in units of the noise.
    seed_faithful : bool
        Reproduce the released generator: a noisy stamp per member, added after a shift that pads with zeros (so
        that noise is there twice and its edge shows), and no centroid error.
    """

    stamp_size: int = 128
    max_mag_difference: float = 2.0
    noise_factor: tuple[float, float] = (1.0, 1.0)
    noise_correlation: tuple[float, float] = (0.0, 0.0)
    flux_jitter_mag: float = 0.0
    free_offset_fraction: float = 0.0
    neighbours_per_stamp: float = 0.0
    close_neighbour_fraction: float = 0.1
    centroid_error: bool = True
    background_error: float = 0.0
    seed_faithful: bool = False


def training_rules(stamp_size: int = 64) -> PairRules:
    """Return rules wide enough to train for several instruments and real fields.

    Parameters
    ----------
    stamp_size : int
        Side of the stamps, in pixels.

    Returns
    -------
    PairRules
        Noise over a factor of 24, some of it correlated; third galaxies; free distances for a quarter of the pairs.
    """
    return PairRules(
        stamp_size=stamp_size,
        noise_factor=(0.5, 12.0),
        noise_correlation=(0.0, 0.4),
        flux_jitter_mag=0.4,
        free_offset_fraction=0.25,
        neighbours_per_stamp=0.3,
        background_error=0.05,
    )


def offset_limits(radius_px: Floats, psf_fwhm_px: Floats, largest_px: float) -> Floats:
    """Return the smallest and largest distance of a pair from its radii.

    Parameters
    ----------
    radius_px : numpy.ndarray
        float64 (n, 2), half-light radii; none counts as smaller than 0.43 PSF widths, the seed's smallest.
    psf_fwhm_px : numpy.ndarray
        float64 (n,), PSF widths.
    largest_px : float
        Largest distance that the stamp holds.

    Returns
    -------
    numpy.ndarray
        float64 (n, 2): max(Re) and min(4 min(Re), largest), or 0.8 of the latter where that is not above the
        former.
    """
    radius = np.maximum(radius_px, _SMALLEST_RADIUS_FWHM * psf_fwhm_px[:, None])
    high = np.minimum(4 * radius.min(axis=1), largest_px)
    low = radius.max(axis=1)
    return np.stack([np.where(low >= high, 0.8 * high, low), high], axis=1)


def centroid_sigma(flux: Floats, radius_px: Floats, psf_fwhm_px: Floats, sigma: Floats) -> Floats:
    """Return a detector's centroid error per axis in pixels, from 0.03 to 0.5.

    Parameters
    ----------
    flux, radius_px, psf_fwhm_px, sigma : numpy.ndarray
        float64, broadcast together; image units and pixels.

    Returns
    -------
    numpy.ndarray
        float64: width over signal to noise (optimal Gaussian profile, King 1983), with a floor for structure.
    """
    width = np.hypot(radius_px / 1.18, psf_fwhm_px / 2.355)
    return np.clip(np.hypot(0.04, width / signal_to_noise(flux, radius_px, psf_fwhm_px, sigma)), 0.03, 0.5)


def signal_to_noise(flux: Floats, radius_px: Floats, psf_fwhm_px: Floats, sigma: Floats) -> Floats:
    """Return the matched-filter signal to noise of Gaussians as wide as the sources; arguments broadcast."""
    width = np.hypot(radius_px / 1.18, psf_fwhm_px / 2.355)
    return np.asarray(flux / (sigma * np.sqrt(4 * np.pi) * width), np.float64)


@dataclass(frozen=True)
class _Plan:
    """What a block of pairs will be: rows of the pool, positions and amplitudes, before any pixel is touched."""

    rows: NDArray[np.int64]
    mag: Floats
    flux: Floats
    sigma: Floats
    true_yx: Floats
    shift: NDArray[np.int64]
    turn: NDArray[np.int64]
    error: Floats
    other_rows: NDArray[np.int64]
    other_flux: Floats
    other_yx: Floats
    other_shift: NDArray[np.int64]


class PairSampler:
    """Draws pairs of one side of the split without end; pair number k is the same however one asks for it.

    Parameters
    ----------
    pool : GalaxyPool
        Isolated galaxies.
    split : {"train", "validation", "test"}
        Side of the galaxy-level split.
    seed : int
        Seed of the pairs.
    rules : PairRules, optional
        How pairs are made.

    Raises
    ------
    ConfigError
        If the split has no two galaxies that may pair.
    """

    def __init__(
        self, pool: GalaxyPool, split: Split = "train", seed: int = 0, rules: PairRules | None = None
    ) -> None:
        self.pool, self.rules, self.seed = pool, rules or PairRules(), seed
        self.split: Split = split
        self.drawn = 0
        self._preset = get_preset(pool.preset)
        self._centre = pool.centre_yx.astype(np.float64)
        self._index_partners(pool.rows(split))

    def _index_partners(self, rows: NDArray[np.int64]) -> None:
        """Order galaxies by PSF and magnitude, so that the partners of each are one range."""
        order = rows[np.lexsort((self.pool.mag[rows], self.pool.group[rows]))]
        stride = 1000.0
        key = self.pool.group[order] * stride + self.pool.mag[order]
        reach = self.rules.max_mag_difference
        low, high = np.searchsorted(key, key - reach, "right"), np.searchsorted(key, key + reach, "left")
        edges = np.searchsorted(self.pool.group[order], self.pool.group[order], "left")
        ends = np.searchsorted(self.pool.group[order], self.pool.group[order], "right")
        self._rows, self._low, self._high = order, np.maximum(low, edges), np.minimum(high, ends)
        self._first, self._last = edges, ends
        self._centrals = np.flatnonzero(self._high - self._low > 1)
        if self._centrals.size == 0:
            raise ConfigError(
                f"no two {self.split} galaxies of the pool of {len(self.pool)} may pair; draw a larger pool"
            )

    def draw(self, n: int) -> PairBatch:
        """Draw the next ``n`` pairs."""
        batch = self.draw_range(self.drawn, self.drawn + n)
        self.drawn += n
        return batch

    def draw_range(self, start: int, stop: int) -> PairBatch:
        """Draw pairs number ``start`` to ``stop``, whatever was drawn before.

        Parameters
        ----------
        start, stop : int
            Range of pair numbers; the same number is always the same pair.

        Returns
        -------
        PairBatch
            ``stop - start`` pairs.
        """
        parts = []
        for block in range(start // BLOCK, -(-stop // BLOCK)):
            first = block * BLOCK
            parts.append(self._block(block, slice(max(start - first, 0), min(stop - first, BLOCK))))
        names = PairBatch.__dataclass_fields__
        return PairBatch(**{name: np.concatenate([part[name] for part in parts]) for name in names})

    def _block(self, block: int, take: slice) -> dict[str, NDArray[np.generic]]:
        key = (SPLITS.index(self.split), block)
        rng = np.random.default_rng(np.random.SeedSequence(self.seed, spawn_key=key))
        plan = self._plan(rng)
        noise = self._noise(plan, rng)
        return self._render(plan, noise, take)

    # Planning: which galaxies, where and how bright.

    def _plan(self, rng: np.random.Generator) -> _Plan:
        rows, place = self._choose(rng)
        mag = self._magnitudes(rows, rng)
        flux = 10 ** (-0.4 * (mag - self._preset.zero_point))
        sigma = self._preset.noise_sigma * np.exp(rng.uniform(*np.log(self.rules.noise_factor), BLOCK))
        turn = rng.integers(0, 8, BLOCK)
        centre = self._turned(self._centre[rows], turn[:, None])
        radius, width = self.pool.radius_px[rows].astype(np.float64), self.pool.psf_fwhm_px[rows[:, 0]].astype(np.float64)
        error = rng.standard_normal((BLOCK, 2, 2))
        error *= centroid_sigma(flux, radius, width[:, None], sigma[:, None])[:, :, None]
        if not self.rules.centroid_error or self.rules.seed_faithful:
            error[:] = 0.0
        middle = self.rules.stamp_size // 2
        shift = np.empty((BLOCK, 2, 2), np.int64)
        shift[:, 0] = middle - np.rint(centre[:, 0] + error[:, 0])
        target = centre[:, 0] + shift[:, 0] + self._offsets(radius, width, rng)
        shift[:, 1] = np.rint(target - centre[:, 1])
        true = centre + shift
        others = self._others(place, true, turn, sigma, rng)
        return _Plan(rows, mag, flux, sigma, true, shift, turn, error, *others)

    def _choose(self, rng: np.random.Generator) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        place = self._centrals[rng.integers(0, self._centrals.size, BLOCK)]
        low, high = self._low[place], self._high[place]
        partner = low + np.floor(rng.random(BLOCK) * (high - low - 1)).astype(np.int64)
        partner += partner >= place
        return np.stack([self._rows[place], self._rows[partner]], axis=1), place

    def _magnitudes(self, rows: NDArray[np.int64], rng: np.random.Generator) -> Floats:
        mag = self.pool.mag[rows].astype(np.float64)
        jitter = self.rules.flux_jitter_mag * rng.uniform(-1, 1, mag.shape)
        moved = mag + jitter
        allowed = np.abs(moved[:, 0] - moved[:, 1]) < self.rules.max_mag_difference
        return np.where(allowed[:, None], moved, mag + jitter.mean(axis=1, keepdims=True))

    def _offsets(self, radius: Floats, width: Floats, rng: np.random.Generator) -> Floats:
        largest = min(64.0, self.rules.stamp_size / 2 - 2)
        limits = offset_limits(radius, width, largest)
        free = rng.random(BLOCK) < self.rules.free_offset_fraction
        limits[free, 0], limits[free, 1] = np.minimum(width[free], 0.5 * largest), largest
        distance = limits[:, 0] + rng.random(BLOCK) * (limits[:, 1] - limits[:, 0])
        angle = rng.uniform(0, 2 * np.pi, BLOCK)
        return distance[:, None] * np.stack([np.sin(angle), np.cos(angle)], axis=1)

    def _others(
        self, place: NDArray[np.int64], true: Floats, turn: NDArray[np.int64], sigma: Floats, rng: np.random.Generator
    ) -> tuple[NDArray[np.int64], Floats, Floats, NDArray[np.int64]]:
        """Third galaxies: flux zero where there is none; the reported position NaN where it would not be detected."""
        shape = (BLOCK, _MAX_NEIGHBOURS)
        count = np.minimum(rng.poisson(self.rules.neighbours_per_stamp, BLOCK), _MAX_NEIGHBOURS)
        first, last = self._first[place][:, None], self._last[place][:, None]
        rows = self._rows[first + np.floor(rng.random(shape) * (last - first)).astype(np.int64)]
        size = self.rules.stamp_size
        target = rng.uniform(-4, size + 4, (*shape, 2))
        centre = self._turned(self._centre[rows], turn[:, None])
        shift = np.rint(target - centre).astype(np.int64)
        position = centre + shift
        nearest = np.hypot(*np.moveaxis(position[:, :, None] - true[:, None], -1, 0)).min(axis=2)
        apart = np.hypot(*(true[:, 1] - true[:, 0]).T)[:, None]
        apart = apart * np.where(rng.random(shape) < self.rules.close_neighbour_fraction, 0.5, 1.0)
        mag = self.pool.mag[rows] + rng.uniform(0, 2.0, shape)
        present = (np.arange(_MAX_NEIGHBOURS) < count[:, None]) & (nearest >= apart)
        flux = np.where(present, 10 ** (-0.4 * (mag - self._preset.zero_point)), 0.0)
        radius, width = self.pool.radius_px[rows], self.pool.psf_fwhm_px[rows]
        error = centroid_sigma(np.maximum(flux, 1e-9), radius, width, sigma[:, None])
        seen = position + error[:, :, None] * rng.standard_normal(position.shape)
        inside = ((seen > -0.5) & (seen < size - 0.5)).all(axis=-1)
        listed = inside & (signal_to_noise(flux, radius, width, sigma[:, None]) > _LISTED_SNR)
        return rows, flux, np.where(listed[:, :, None], seen, np.nan), shift

    def _turned(self, yx: Floats, turn: NDArray[np.int64]) -> Floats:
        """Positions after the symmetry operation ``turn``: bit 0 flips y, bit 1 flips x, bit 2 then swaps them."""
        edge = self.pool.stamp_px - 1.0
        y = np.where(turn & 1, edge - yx[..., 0], yx[..., 0])
        x = np.where(turn & 2, edge - yx[..., 1], yx[..., 1])
        swap = (turn & 4) > 0
        return np.stack([np.where(swap, x, y), np.where(swap, y, x)], axis=-1)

    # Drawing: pixels.

    def _noise(self, plan: _Plan, rng: np.random.Generator) -> Images:
        size = self.rules.stamp_size
        low, high = self.rules.noise_correlation
        level = self.rules.background_error * rng.standard_normal(BLOCK)
        if high > 0:
            noise = _correlated_noise(size, rng.uniform(low, high, BLOCK), rng)
        else:
            noise = rng.standard_normal((BLOCK, size, size), dtype=np.float32)
        if self.rules.seed_faithful:
            self._add_second_noise(noise, plan, rng)
        noise += level.astype(np.float32)[:, None, None]
        noise *= plan.sigma.astype(np.float32)[:, None, None]
        return noise

    def _add_second_noise(self, noise: Images, plan: _Plan, rng: np.random.Generator) -> None:
        """Add the companion's own noise, which moved with its stamp and left zeros behind."""
        size = noise.shape[1]
        second = rng.standard_normal(noise.shape, dtype=np.float32)
        moved = np.rint(plan.true_yx[:, 1] - plan.true_yx[:, 0]).astype(np.int64)
        for image, own, (dy, dx) in zip(noise, second, moved, strict=True):
            into, out_of = _overlap(dy, size, size), _overlap(dx, size, size)
            image[into[0], out_of[0]] += own[into[1], out_of[1]]

    def _render(self, plan: _Plan, noise: Images, take: slice) -> dict[str, NDArray[np.generic]]:
        size, count = self.rules.stamp_size, range(BLOCK)[take]
        truth = np.zeros((len(count), 2, size, size), np.float32)
        stamps = noise[take]
        for k, i in enumerate(count):
            for member in (0, 1):
                self._add(truth[k, member], plan.rows[i, member], plan.flux[i, member], plan.shift[i, member], plan.turn[i])
            for j in np.flatnonzero(plan.other_flux[i]):
                self._add(stamps[k], plan.other_rows[i, j], plan.other_flux[i, j], plan.other_shift[i, j], plan.turn[i])
        stamps += truth.sum(axis=1)
        detected = (plan.true_yx + plan.error).astype(np.float32)
        single = {
            "central_yx": detected[:, 0],
            "companion_yx": detected[:, 1],
            "neighbours_yx": plan.other_yx.astype(np.float32),
            "flux": plan.flux.astype(np.float32),
            "sigma": plan.sigma.astype(np.float32),
            "psf_fwhm_px": self.pool.psf_fwhm_px[plan.rows[:, 0]],
            "mag": plan.mag.astype(np.float32),
            "radius_px": self.pool.radius_px[plan.rows],
            "kind": self.pool.kind[plan.rows],
            "galaxy_id": self.pool.galaxy_id[plan.rows],
            "true_yx": plan.true_yx.astype(np.float32),
        }
        return {"stamps": stamps, "truth": truth, **{name: value[take] for name, value in single.items()}}

    def _add(self, image: Images, row: int, flux: float, shift: NDArray[np.int64], turn: int) -> None:
        """Add a galaxy: pixel p of its turned stamp falls on pixel p + shift of ``image``."""
        source = self.pool.images[row]
        if turn & 1:
            source = source[::-1]
        if turn & 2:
            source = source[:, ::-1]
        if turn & 4:
            source = source.T
        to_y, from_y = _overlap(int(shift[0]), image.shape[0], source.shape[0])
        to_x, from_x = _overlap(int(shift[1]), image.shape[1], source.shape[1])
        image[to_y, to_x] += source[from_y, from_x].astype(np.float32) * np.float32(flux * self.pool.unit[row])


def _overlap(shift: int, target: int, source: int) -> tuple[slice, slice]:
    """Slices of target and source where source, moved by ``shift``, lies on target."""
    start, stop = max(0, shift), max(0, min(target, source + shift))
    if stop <= start:
        return slice(0, 0), slice(0, 0)
    return slice(start, stop), slice(start - shift, stop - shift)


def _correlated_noise(size: int, weight: Floats, rng: np.random.Generator) -> Images:
    """White noise smoothed by the separable kernel (w, 1, w), kept at unit rms, as drizzling leaves it."""
    white = rng.standard_normal((weight.size, size + 2, size + 2), dtype=np.float32)
    w = weight.astype(np.float32)[:, None, None]
    rows = white[:, 1:-1] + w * (white[:, :-2] + white[:, 2:])
    both = rows[:, :, 1:-1] + w * (rows[:, :, :-2] + rows[:, :, 2:])
    both /= 1 + 2 * w**2
    return np.asarray(both, np.float32)
