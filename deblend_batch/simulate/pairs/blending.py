"""Pairs of pool galaxies, blended on the fly by the rules of Boucaud et al. 2020, their defects mended."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from deblend_batch.simulate.galaxies.pool import SPLITS, GalaxyPool, Split
from deblend_batch.simulate.pairs.batch import PairBatch
from deblend_batch.simulate.pairs.plan import BLOCK, PairPlan, PairPlanner
from deblend_batch.simulate.pairs.rules import PairRules, training_rules
from deblend_batch.simulate.presets import get_preset

__all__ = ["PairRules", "PairSampler", "training_rules"]

Images = NDArray[np.float32]


class PairSampler:
    """Draws pairs without end; pair number k is the same however one asks for it.

    Parameters
    ----------
    pool : GalaxyPool
        Isolated galaxies.
    split : {"train", "validation", "test"}, optional
        Side of the galaxy-level split; all galaxies if None.
    seed : int
        Seed of the pairs.
    rules : PairRules, optional
        How pairs are made.
    """

    def __init__(
        self,
        pool: GalaxyPool,
        split: Split | None = "train",
        seed: int = 0,
        rules: PairRules | None = None,
    ) -> None:
        self.pool, self.rules, self.seed = pool, rules or PairRules(), seed
        self.split: Split | None = split
        self.drawn = 0
        rows = np.arange(len(pool)) if split is None else pool.rows(split)
        self._planner = PairPlanner(pool, rows, get_preset(pool.preset), self.rules)

    def draw(self, n: int) -> PairBatch:
        """Draw the next ``n`` pairs."""
        batch = self.draw_range(self.drawn, self.drawn + n)
        self.drawn += n
        return batch

    def draw_range(self, start: int, stop: int) -> PairBatch:
        """Draw pairs number ``start`` to ``stop``, whatever was drawn before."""
        parts = []
        for block in range(start // BLOCK, -(-stop // BLOCK)):
            first = block * BLOCK
            parts.append(self._block(block, slice(max(start - first, 0), min(stop - first, BLOCK))))
        return PairBatch(
            **{name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
        )

    def _block(self, block: int, take: slice) -> dict[str, NDArray[Any]]:
        split = len(SPLITS) if self.split is None else SPLITS.index(self.split)
        rng = np.random.default_rng(np.random.SeedSequence(self.seed, spawn_key=(split, block)))
        plan = self._planner.plan(rng)
        stamps = self._noise(plan, rng)[take]
        truth = self._light(plan, stamps, range(BLOCK)[take])
        return {"stamps": stamps, "truth": truth, **_known(plan, self.pool, take)}

    def _noise(self, plan: PairPlan, rng: np.random.Generator) -> Images:
        """Draw the background of every stamp; with ``seed_faithful``, of every member's stamp."""
        size = self.rules.stamp_size
        low, high = self.rules.noise_correlation
        level = self.rules.background_error * rng.standard_normal(BLOCK)
        if high > 0:
            noise = correlated_noise(size, rng.uniform(low, high, BLOCK), rng)
        else:
            noise = rng.standard_normal((BLOCK, size, size), dtype=np.float32)
        if self.rules.seed_faithful:
            moved = np.rint(plan.true_yx[:, 1] - plan.true_yx[:, 0]).astype(np.int64)
            for image, (dy, dx) in zip(noise, moved, strict=True):
                own = rng.standard_normal((size, size), dtype=np.float32)
                (to_y, from_y), (to_x, from_x) = _overlap(dy, size, size), _overlap(dx, size, size)
                image[to_y, to_x] += own[from_y, from_x]
        noise += level.astype(np.float32)[:, None, None]
        noise *= plan.sigma.astype(np.float32)[:, None, None]
        return noise

    def _light(self, plan: PairPlan, stamps: Images, pairs: range) -> Images:
        """Add all galaxies to the stamps, in place; return the members' own images."""
        size, others = self.rules.stamp_size, plan.neighbours
        truth = np.zeros((len(pairs), 2, size, size), np.float32)
        for image, members, i in zip(stamps, truth, pairs, strict=True):
            turn = int(plan.turn[i])
            for member in (0, 1):
                self._add(
                    members[member],
                    plan.rows[i, member],
                    plan.flux[i, member],
                    plan.shift[i, member],
                    turn,
                )
            for k in np.flatnonzero(others.flux[i]):
                self._add(image, others.rows[i, k], others.flux[i, k], others.shift[i, k], turn)
        stamps += truth.sum(axis=1)
        return truth

    def _add(
        self, image: Images, row: int, flux: float, shift: NDArray[np.int64], turn: int
    ) -> None:
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
        image[to_y, to_x] += source[from_y, from_x] * np.float32(flux * self.pool.unit[row])


def _known(plan: PairPlan, pool: GalaxyPool, take: slice) -> dict[str, NDArray[Any]]:
    rows = plan.rows[take]
    return {
        "central_yx": plan.detected_yx[take, 0].astype(np.float32),
        "companion_yx": plan.detected_yx[take, 1].astype(np.float32),
        "neighbours_yx": plan.neighbours.detected_yx[take].astype(np.float32),
        "flux": plan.flux[take].astype(np.float32),
        "sigma": plan.sigma[take].astype(np.float32),
        "psf_fwhm_px": pool.psf_fwhm_px[rows[:, 0]],
        "mag": plan.mag[take].astype(np.float32),
        "radius_px": pool.radius_px[rows],
        "kind": pool.kind[rows],
        "galaxy_id": pool.galaxy_id[rows],
        "true_yx": plan.true_yx[take].astype(np.float32),
    }


def _overlap(shift: int, target: int, source: int) -> tuple[slice, slice]:
    """Slices of target and source where source, moved by ``shift``, lies on target."""
    start, stop = max(0, shift), min(target, source + shift)
    if stop <= start:
        return slice(0), slice(0)
    return slice(start, stop), slice(start - shift, stop - shift)


def correlated_noise(size: int, weight: NDArray[np.float64], rng: np.random.Generator) -> Images:
    """Smooth white noise by the separable kernel (w, 1, w) at unit rms, as drizzling leaves it.

    Parameters
    ----------
    size : int
        Side of the stamps.
    weight : numpy.ndarray
        float64 (n,), the kernel's w of each stamp.
    rng : numpy.random.Generator
        Source of randomness.

    Returns
    -------
    numpy.ndarray
        float32 (n, y, x).
    """
    white = rng.standard_normal((weight.size, size + 2, size + 2), dtype=np.float32)
    w = weight.astype(np.float32)[:, None, None]
    rows = white[:, 1:-1] + w * (white[:, :-2] + white[:, 2:])
    both = rows[:, :, 1:-1] + w * (rows[:, :, :-2] + rows[:, :, 2:])
    both /= 1 + 2 * w**2
    return np.asarray(both, np.float32)
