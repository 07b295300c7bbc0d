"""Blends of one or more sources, as columns."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace

import numpy as np
from numpy.typing import NDArray

MOST_MEMBERS = 32
"""Members that a blend may have at most: fits grow with the square of it."""
MAX_OTHERS = 8
"""Sources beside a pair, in its stamp, whose positions a network is told: the nearest."""
MAX_OTHERS_OF_FIT = 32
"""The same of a blend: pixels of the others would be taken for sky, and the largest stamps hold many."""


@dataclass(frozen=True)
class Blends:
    """Blends as columns; row ``i`` of each array is blend ``i``, padded to the largest number of members.

    The central is first. A pre-detected pair says who that is; else it is the brightest of the members that
    are measured here, where the magnitudes of all members are known, or the one with the smallest id. After
    it come the others that are measured, then those that are fitted beside them, by the same rule.

    Parameters
    ----------
    blend_id : ndarray of int64, shape (n,)
        Stable hash of the ids of the members that are measured: no two blends of a run have the same.
    n_members : ndarray of int16, shape (n,)
        Number of members; what stands behind them is padding.
    source_id : ndarray of int64, shape (n, m)
        Detection ids; 0 in the padding.
    yx : ndarray of float64, shape (n, m, 2)
        Pixel positions, (blend, member, (y, x)); NaN in the padding.
    radec : ndarray of float64, shape (n, m, 2)
        ICRS degrees, (blend, member, (ra, dec)); NaN in the padding.
    is_measured : ndarray of bool, shape (n, m)
        True for members that have a row in the catalogue; others are only fitted beside them.
    is_primary : ndarray of bool, shape (n, m)
        True on the one row of each source that is the one to use.
    neighbour : ndarray of int8, shape (n, m)
        Number of the member that is nearest on the sky; -1 where there is none.
    separation_arcsec : ndarray of float64, shape (n, m)
        Distance to it; NaN where there is none.
    flags : ndarray of int32, shape (n, m)
        Flags known before any pixel is read; 0 in the padding.
    centre_yx : ndarray of float64, shape (n, 2)
        Where the middle of the stamp is to be, px.
    stamp_size : ndarray of int16, shape (n,)
        Edge of the stamp, px.
    others_yx : ndarray of float32, shape (n, k, 2)
        Pixel positions of other sources in that stamp, or the largest that it may have to be, or so near that
        their light is; the nearest to its middle first, NaN-padded.
    psf_fwhm_arcsec : ndarray of float32, shape (n, band)
        Full width at half maximum of the PSF that the detections say of the central; NaN where they say none,
        and one column where they say one for all bands, or nothing.
    """

    blend_id: NDArray[np.int64]
    n_members: NDArray[np.int16]
    source_id: NDArray[np.int64]
    yx: NDArray[np.float64]
    radec: NDArray[np.float64]
    is_measured: NDArray[np.bool_]
    is_primary: NDArray[np.bool_]
    neighbour: NDArray[np.int8]
    separation_arcsec: NDArray[np.float64]
    flags: NDArray[np.int32]
    centre_yx: NDArray[np.float64]
    stamp_size: NDArray[np.int16]
    others_yx: NDArray[np.float32]
    psf_fwhm_arcsec: NDArray[np.float32]

    def __len__(self) -> int:
        return len(self.blend_id)

    def __getitem__(self, rows: slice | NDArray[np.generic]) -> Blends:
        return replace(self, **{f.name: getattr(self, f.name)[rows] for f in fields(self)})

    @property
    def width(self) -> int:
        """Members that there is room for."""
        return int(self.source_id.shape[1])

    @property
    def is_member(self) -> NDArray[np.bool_]:
        """False in the padding; shape (n, m)."""
        return np.asarray(np.arange(self.width) < self.n_members[:, None])

    def narrowed(self) -> Blends:
        """Return the same blends without the columns that hold nothing but padding."""
        width = int(self.n_members.max(initial=1))
        cut = {name: getattr(self, name)[:, :width] for name in MEMBER_COLUMNS}
        return replace(self, **cut)

    @classmethod
    def concatenate(cls, parts: Sequence[Blends]) -> Blends:
        """Put blends of one width end to end."""
        names = [f.name for f in fields(cls)]
        return cls(**{name: np.concatenate([getattr(p, name) for p in parts]) for name in names})


MEMBER_COLUMNS = (
    "source_id", "yx", "radec", "is_measured", "is_primary", "neighbour", "separation_arcsec", "flags",
)  # fmt: skip
"""Columns whose second axis counts members."""
