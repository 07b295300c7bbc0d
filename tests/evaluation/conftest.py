"""Pairs of round Gaussians: everything about them can be computed by hand."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from deblend_batch.simulate.pairs.batch import PairBatch

STAMP_PX = 64
SIGMA = 0.01
WIDTH_PX = 2.5


def gaussian(yx: np.ndarray, flux: np.ndarray, size: int = STAMP_PX) -> np.ndarray:
    """Images (n, size, size) of Gaussians with sigma ``WIDTH_PX``."""
    y, x = np.indices((size, size))
    dy, dx = (axis - yx[:, i, None, None] for i, axis in enumerate((y, x)))
    profile = np.exp(-(dy**2 + dx**2) / (2 * WIDTH_PX**2)) / (2 * np.pi * WIDTH_PX**2)
    images: np.ndarray = flux[:, None, None] * profile
    return images


def make_pairs(n: int = 40, seed: int = 0, separation_px: float = 14.0) -> PairBatch:
    rng = np.random.default_rng(seed)
    angle = rng.uniform(0, 2 * np.pi, n)
    central = np.full((n, 2), STAMP_PX // 2) + rng.uniform(-0.3, 0.3, (n, 2))
    companion = central + separation_px * np.stack([np.sin(angle), np.cos(angle)], axis=-1)
    mag = rng.uniform(20.0, 22.0, (n, 2))
    flux = 10 ** (-0.4 * (mag - 25.96))
    truth = np.stack(
        [gaussian(yx, f) for yx, f in zip((central, companion), flux.T, strict=True)], axis=1
    )
    noise = rng.normal(0, SIGMA, (n, STAMP_PX, STAMP_PX))
    return PairBatch(
        stamps=(truth.sum(axis=1) + noise).astype(np.float32),
        central_yx=central.astype(np.float32),
        companion_yx=companion.astype(np.float32),
        neighbours_yx=np.full((n, 1, 2), np.nan, np.float32),
        flux=flux.astype(np.float32),
        truth=truth.astype(np.float32),
        sigma=np.full(n, SIGMA, np.float32),
        psf_fwhm_px=np.full(n, 3.0, np.float32),
        mag=mag.astype(np.float32),
        radius_px=np.full((n, 2), 1.1774 * WIDTH_PX, np.float32),
        kind=rng.integers(0, 4, (n, 2)).astype(np.int8),
        galaxy_id=rng.integers(0, n, (n, 2)),
        true_yx=np.stack([central, companion], axis=1).astype(np.float32),
    )


@pytest.fixture(scope="session")
def pairs_of_gaussians() -> Callable[..., PairBatch]:
    """Make pairs of Gaussians, ``(n, seed, separation_px)``."""
    return make_pairs


@pytest.fixture(scope="session")
def gaussian_pairs() -> PairBatch:
    """Forty well separated pairs."""
    return make_pairs()
