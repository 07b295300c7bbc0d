"""Blends of two whose numbers a test gives, and whose others are of no interest."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from deblend_batch.tiling.blends import MAX_OTHERS, Blends


def blends_of_two(yx: np.ndarray, size: int = 16, **changes: Any) -> Blends:
    """Pairs at positions (n, 2, 2) whose stamps have the central in their middle."""
    n = len(yx)
    plain = Blends(
        blend_id=np.arange(n),
        n_members=np.full(n, 2, np.int16),
        source_id=np.arange(2 * n).reshape(n, 2),
        yx=yx,
        radec=np.zeros((n, 2, 2)),
        is_measured=np.ones((n, 2), bool),
        is_primary=np.ones((n, 2), bool),
        neighbour=np.tile(np.array([1, 0], np.int8), (n, 1)),
        separation_arcsec=np.ones((n, 2)),
        flags=np.zeros((n, 2), np.int32),
        centre_yx=yx[:, 0],
        stamp_size=np.full(n, size, np.int16),
        others_yx=np.full((n, MAX_OTHERS, 2), np.nan, np.float32),
        psf_fwhm_arcsec=np.full((n, 1), np.nan, np.float32),
    )
    return replace(plain, **changes)
