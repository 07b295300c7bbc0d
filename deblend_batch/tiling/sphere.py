"""Directions and angles on the sky."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def unit_vectors(ra_deg: NDArray[np.float64], dec_deg: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return directions on the unit sphere.

    Parameters
    ----------
    ra_deg, dec_deg : ndarray of float64, shape (n,)
        ICRS degrees.

    Returns
    -------
    ndarray of float64, shape (n, 3)
        Cartesian unit vectors.
    """
    ra, dec = np.radians(ra_deg), np.radians(dec_deg)
    return np.stack([np.cos(dec) * np.cos(ra), np.cos(dec) * np.sin(ra), np.sin(dec)], axis=-1)


def separations_arcsec(
    first: NDArray[np.float64], second: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Return angles between unit vectors, exact for small ones (half-chord arcsine).

    Parameters
    ----------
    first, second : ndarray of float64, shape (n, 3)
        Unit vectors.

    Returns
    -------
    ndarray of float64, shape (n,)
        Angles, arcsec.
    """
    half_chord = np.linalg.norm(first - second, axis=-1) / 2
    angles: NDArray[np.float64] = np.degrees(2 * np.arcsin(np.minimum(half_chord, 1.0))) * 3600
    return angles
