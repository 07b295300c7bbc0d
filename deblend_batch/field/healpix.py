"""Positions as HEALPix indices: names for sources, and what a HATS catalogue is partitioned by."""

from __future__ import annotations

import cdshealpix
import numpy as np
from astropy.coordinates import Latitude, Longitude
from numpy.typing import NDArray


def healpix_29(ra_deg: NDArray[np.float64], dec_deg: NDArray[np.float64]) -> NDArray[np.int64]:
    """Return nested HEALPix indices of order 29, whose cells are 0.4 mas wide.

    Parameters
    ----------
    ra_deg, dec_deg : ndarray of float64, shape (n,)
        ICRS degrees, finite.

    Returns
    -------
    ndarray of int64, shape (n,)
        Indices.
    """
    if len(ra_deg) == 0:
        return np.empty(0, np.int64)
    longitude, latitude = Longitude(ra_deg, unit="deg"), Latitude(dec_deg, unit="deg")
    return np.asarray(cdshealpix.nested.lonlat_to_healpix(longitude, latitude, 29), np.int64)
