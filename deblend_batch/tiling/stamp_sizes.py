"""Sizes of the stamps of blends: a few, so that batches keep fixed shapes.

A stamp has to hold all members, and of those that are measured the light and some sky about it.
"""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray

STAMP_SIZES_PX: Final = (32, 48, 64, 96, 128)
"""Edges of square stamps; at most one and a half times what a blend needs, and mostly less."""
MARGIN_PX: Final = 12
"""Least distance of a measured member from the edge: with less there is no sky to fit."""
LARGEST_EXTENT_PX: Final = STAMP_SIZES_PX[-1] - 2 * MARGIN_PX
"""How far apart, along y or x, members of one blend may be."""

_REACH = 4.0
"""In half-light radii: holds 99 % of an exponential profile's light and 85 % of a de Vaucouleurs'."""
_ROUNDING_PX = 2.0
"""A stamp's middle is a whole pixel, and its edge an even number of them."""


def reach_px(
    radius_px: NDArray[np.floating], psf_fwhm_px: NDArray[np.floating] | float
) -> NDArray[np.float64]:
    """Return how far the light of sources reaches.

    Parameters
    ----------
    radius_px : ndarray of float, any shape
        Half-light radii; NaN where unknown.
    psf_fwhm_px : ndarray of float, or float
        Full width at half maximum of the PSF, broadcastable to them.

    Returns
    -------
    ndarray of float64
        Four times the radius, or the PSF's width where that is more; at least :data:`MARGIN_PX`.
    """
    wide = np.fmax(np.asarray(radius_px, np.float64), psf_fwhm_px)
    return np.fmax(_REACH * wide, MARGIN_PX)


def extent_of(offset_px: NDArray[np.floating], reach: NDArray[np.floating]) -> NDArray[np.float64]:
    """Return the edge of the square about a blend's centre that holds its members.

    Parameters
    ----------
    offset_px : ndarray of float, shape (n, m)
        Larger of the distances of members from the centre along y and x, px; NaN where there is none.
    reach : ndarray of float, shape (n, m)
        How far from its position a member must be in the stamp, px.

    Returns
    -------
    ndarray of float64, shape (n,)
        Edges, px.
    """
    return np.asarray(2 * np.nanmax(offset_px + reach, axis=1) + _ROUNDING_PX)


def stamp_sizes(extent_px: NDArray[np.floating]) -> NDArray[np.int64]:
    """Choose the stamp of each blend.

    Parameters
    ----------
    extent_px : ndarray of float, shape (n,)
        Edge of the square that should be in the stamp, px.

    Returns
    -------
    ndarray of int64, shape (n,)
        The smallest of :data:`STAMP_SIZES_PX` that holds it; the largest where none does.
    """
    sizes = np.array(STAMP_SIZES_PX)
    return sizes[np.minimum(np.searchsorted(sizes, extent_px), len(sizes) - 1)]


def is_larger(extent_px: NDArray[np.floating]) -> NDArray[np.bool_]:
    """Tell which blends no stamp holds."""
    return np.asarray(extent_px > STAMP_SIZES_PX[-1])
