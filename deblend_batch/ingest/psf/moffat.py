"""Moffat profiles (Moffat 1969), fitted to stars: what a PSF looks like to the first order."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import least_squares

_MAX_SHEAR = 0.5
_MIN_PIXELS = 30
_GAUSSIAN = 1e-3
"""Inverse of a slope that is a Gaussian's, to a thousandth: the fit is in the inverse, for that limit."""


@dataclass(frozen=True)
class Moffat:
    """The shape of an elliptical Moffat profile.

    Parameters
    ----------
    fwhm_px : float
        Full width at half maximum, geometric mean of its axes.
    beta : float
        Slope of the wings.
    g1, g2 : float
        Reduced shear, along x and along the diagonal.
    """

    fwhm_px: float
    beta: float
    g1: float
    g2: float

    def at(self, dy: NDArray[np.floating], dx: NDArray[np.floating]) -> NDArray[np.float64]:
        """Return the profile of flux 1 at offsets (px) from its centre; the pixel is taken as included."""
        alpha = self.fwhm_px / (2 * np.sqrt(2 ** (1 / self.beta) - 1))
        # The inverse of the shear, which keeps areas.
        norm = np.sqrt(1 - self.g1**2 - self.g2**2)
        u = ((1 - self.g1) * dx - self.g2 * dy) / norm
        v = ((1 + self.g1) * dy - self.g2 * dx) / norm
        central = (self.beta - 1) / (np.pi * alpha**2)
        return np.asarray(central * (1 + (u**2 + v**2) / alpha**2) ** -self.beta)


@dataclass(frozen=True)
class FittedStar:
    """A star and the profile that fits it.

    Parameters
    ----------
    yx : tuple of float
        Position in the image, px.
    snr : float
        Signal to noise of its isophotal flux.
    shape : Moffat
        The fit.
    centre_yx : tuple of float
        Its centre in ``stamp``, px.
    stamp : ndarray of float32, shape (y, x)
        Pixels around it, sky subtracted; NaN where they say nothing of it.
    """

    yx: tuple[float, float]
    snr: float
    shape: Moffat
    centre_yx: tuple[float, float]
    stamp: NDArray[np.float32]


def fit_moffat(stamp: NDArray[np.floating]) -> tuple[Moffat, tuple[float, float]] | None:
    """Fit a Moffat profile to a star.

    Parameters
    ----------
    stamp : ndarray of float, shape (y, x)
        The star near the centre, sky subtracted; NaN where a pixel says nothing of it.

    Returns
    -------
    tuple or None
        Shape, and centre (y, x) in the stamp; None where it does not converge.
    """
    known = np.isfinite(stamp)
    if known.sum() < _MIN_PIXELS:
        return None
    y, x = np.indices(stamp.shape, np.float64)[:, known]
    pixels = stamp[known].astype(np.float64)
    centre = (np.array(stamp.shape) - 1) / 2
    peak = float(pixels.max())
    half_width = max(1.0, float((pixels > peak / 2).sum() / np.pi) ** 0.5)

    def residuals(parameters: NDArray[np.float64]) -> NDArray[np.float64]:
        log_flux, y0, x0, log_fwhm, slope, g1, g2 = parameters
        shape = Moffat(float(np.exp(log_fwhm)), 1 / float(slope), float(g1), float(g2))
        model = np.exp(log_flux) * shape.at(y - y0, x - x0)
        return np.asarray((model - pixels) / peak)

    width = 2 * half_width
    start = [np.log(peak * width**2), *centre, np.log(width), 1 / 3, 0.0, 0.0]
    low = [start[0] - 3, *(centre - 2), np.log(0.3), _GAUSSIAN, -_MAX_SHEAR, -_MAX_SHEAR]
    high = [start[0] + 3, *(centre + 2), np.log(10 * width), 1 / 1.2, _MAX_SHEAR, _MAX_SHEAR]
    try:
        fit = least_squares(residuals, start, bounds=(low, high), max_nfev=100)
    except ValueError:
        return None
    if not fit.success:
        return None
    _, y0, x0, log_fwhm, slope, g1, g2 = (float(value) for value in fit.x)
    return Moffat(float(np.exp(log_fwhm)), 1 / slope, g1, g2), (y0, x0)
