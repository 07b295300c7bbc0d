"""Between image units, nanojansky and AB magnitudes (Oke & Gunn 1983, doi:10.1086/160817)."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

AB_ZERO_POINT_NJY = 31.4
"""AB magnitude of one nanojansky, to the 4e-4 mag that catalogues use."""

ZERO_POINT_RANGE = (-60.0, 60.0)
"""AB magnitudes between which any zero point is: that of W/m2/Hz is -56, of a night's photons 45."""

_POGSON = 2.5 / np.log(10)


def nanojansky_per_unit(zero_point: ArrayLike) -> NDArray[np.float64]:
    """Return the flux of one image unit.

    Parameters
    ----------
    zero_point : array_like of float
        AB magnitude of one image unit.

    Returns
    -------
    ndarray of float64, shape of ``zero_point``
        nJy per image unit, ``10 ** (0.4 * (31.4 - zero_point))``.

    Examples
    --------
    >>> float(nanojansky_per_unit(31.4))
    1.0
    """
    exponent = 0.4 * (AB_ZERO_POINT_NJY - np.asarray(zero_point, np.float64))
    return np.asarray(10.0**exponent)


def magnitude(flux_njy: ArrayLike) -> NDArray[np.float64]:
    """Return AB magnitudes.

    Parameters
    ----------
    flux_njy : array_like of float
        Flux, nJy.

    Returns
    -------
    ndarray of float64, shape of ``flux_njy``
        AB magnitude; NaN where the flux is not positive.

    Examples
    --------
    >>> float(magnitude(100.0))
    26.4
    """
    flux = np.asarray(flux_njy, np.float64)
    positive = np.where(flux > 0, flux, np.nan)
    return np.asarray(AB_ZERO_POINT_NJY - 2.5 * np.log10(positive))


def magnitude_error(flux_njy: ArrayLike, flux_err_njy: ArrayLike) -> NDArray[np.float64]:
    """Return the first-order error of AB magnitudes, ``2.5 / ln 10 * err / flux``.

    Parameters
    ----------
    flux_njy, flux_err_njy : array_like of float
        Flux and its one-sigma error, nJy.

    Returns
    -------
    ndarray of float64, broadcast shape of the two
        Magnitudes; NaN where the flux is not positive.

    Examples
    --------
    >>> round(float(magnitude_error(100.0, 10.0)), 4)
    0.1086
    """
    flux = np.asarray(flux_njy, np.float64)
    positive = np.where(flux > 0, flux, np.nan)
    with np.errstate(over="ignore", invalid="ignore"):
        return np.asarray(_POGSON * np.asarray(flux_err_njy, np.float64) / positive)
