"""Pairs of blended sources, as columns."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace

import numpy as np
from numpy.typing import NDArray

MAX_NEIGHBOURS = 8
"""Other sources whose positions a model is told, nearest first; more are only flagged."""


@dataclass(frozen=True)
class Pairs:
    """Pairs as columns; row ``i`` of each array is pair ``i``.

    Parameters
    ----------
    blend_id : ndarray of int64, shape (n,)
        Stable hash of the member ids.
    source_id : ndarray of int64, shape (n, 2)
        Detection ids [central, companion].
    yx : ndarray of float64, shape (n, 2, 2)
        Pixel positions, (pair, member, (y, x)).
    radec : ndarray of float64, shape (n, 2, 2)
        ICRS degrees, (pair, member, (ra, dec)).
    separation_arcsec : ndarray of float64, shape (n,)
        Distance on the sky.
    is_primary : ndarray of bool, shape (n, 2)
        True on the one row of each source that is the one to use: its closest pair.
    neighbours_yx : ndarray of float32, shape (n, 8, 2)
        Pixel positions of other sources near the central, nearest first, NaN-padded.
    flags : ndarray of int32, shape (n, 2)
        Flags known before any pixel is read.
    """

    blend_id: NDArray[np.int64]
    source_id: NDArray[np.int64]
    yx: NDArray[np.float64]
    radec: NDArray[np.float64]
    separation_arcsec: NDArray[np.float64]
    is_primary: NDArray[np.bool_]
    neighbours_yx: NDArray[np.float32]
    flags: NDArray[np.int32]

    def __len__(self) -> int:
        return len(self.blend_id)

    def __getitem__(self, rows: slice | NDArray[np.generic]) -> Pairs:
        return replace(self, **{f.name: getattr(self, f.name)[rows] for f in fields(self)})
