"""Pairs of round Gaussians with known fluxes: the simplest blends there are."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

SIZE = 32


@dataclass(frozen=True)
class GaussianPairs:
    """Blends and their truth; columns as in ``Model.predict``."""

    stamps: NDArray[np.float32]
    central_yx: NDArray[np.float32]
    companion_yx: NDArray[np.float32]
    neighbours_yx: NDArray[np.float32]
    flux: NDArray[np.float32]
    sigma: NDArray[np.float32]


def gaussian_pairs(n: int, size: int = SIZE, seed: int = 0, noise: float = 0.01) -> GaussianPairs:
    """Draw ``n`` pairs; every third one has a third source."""
    rng = np.random.default_rng(seed)
    central = size // 2 + rng.uniform(-0.5, 0.5, (n, 2))
    angle, separation = rng.uniform(0, 2 * np.pi, n), rng.uniform(3, size / 3, n)
    companion = central + separation[:, None] * np.stack([np.sin(angle), np.cos(angle)], 1)
    third = central - 1.2 * (companion - central)
    third[np.arange(n) % 3 > 0] = np.nan
    flux = np.exp(rng.uniform(0, 2, (n, 2)))
    stamps = rng.normal(0, noise, (n, size, size))
    stamps += _blob(central, flux[:, 0], size) + _blob(companion, flux[:, 1], size)
    stamps += np.nan_to_num(_blob(third, 0.5 * flux[:, 0], size))
    return GaussianPairs(
        stamps.astype(np.float32),
        central.astype(np.float32),
        companion.astype(np.float32),
        third[:, None].astype(np.float32),
        flux.astype(np.float32),
        np.full(n, noise, np.float32),
    )


def _blob(yx: NDArray[np.float64], flux: NDArray[np.float64], size: int) -> NDArray[np.float64]:
    axis, width = np.arange(size), 1.5
    dy, dx = axis - yx[:, :1], axis - yx[:, 1:]
    profile: NDArray[np.float64] = np.exp(
        -(dy[:, :, None] ** 2 + dx[:, None, :] ** 2) / (2 * width**2)
    )
    return profile * (flux / (2 * np.pi * width**2))[:, None, None]
