"""What a PSF looks like of which nothing but the width is known."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter
from scipy.special import j1

MOFFAT_BETA = 3.5

_OBSCURATION = 0.33  # linear, of a telescope in space
_CORE = 0.781  # width of its Airy core over that of its PSF; the rest is jitter
_JITTER = 0.688

_OVERSAMPLING = 5
_SEEING_ARCSEC = 0.3
_REACH_FWHM = 4.0
_SIGMA_OF_FWHM = 1 / 2.3548200450309493

Array = NDArray[np.float64]


def is_seeing(fwhm_px: float, pixel_scale_arcsec: float) -> bool:
    """Tell whether a PSF is so wide that it is the atmosphere's: 0.3 arcsec and more."""
    return fwhm_px * pixel_scale_arcsec >= _SEEING_ARCSEC


def psf_image(fwhm_px: float, pixel_scale_arcsec: float) -> NDArray[np.float32]:
    """Draw a PSF of a width: a Moffat profile, or, in space, an obscured aperture with jitter.

    Parameters
    ----------
    fwhm_px : float
        Full width at half maximum before the pixel, px.
    pixel_scale_arcsec : float
        Size of a pixel.

    Returns
    -------
    ndarray of float32, shape (y, x)
        Odd size, unit sum, the pixel included.
    """
    half = max(3, int(np.ceil(_REACH_FWHM * fwhm_px)))
    if is_seeing(fwhm_px, pixel_scale_arcsec):
        image = pixel_integrated(lambda r: moffat(r, fwhm_px, MOFFAT_BETA), half)
    else:
        image = diffraction_image(fwhm_px, half)
    return image.astype(np.float32)


def diffraction_image(fwhm_px: float, half: int) -> Array:
    """Draw the PSF of a telescope in space, (2 half + 1) px wide, unit sum, the pixel included."""
    jitter_px = fwhm_px * _JITTER * _SIGMA_OF_FWHM
    return pixel_integrated(lambda r: _airy(r, fwhm_px * _CORE), half, jitter_px)


def moffat(radius: Array, fwhm_px: float, beta: float) -> Array:
    """Return a Moffat profile, one in its middle."""
    scale = fwhm_px / (2.0 * np.sqrt(2.0 ** (1.0 / beta) - 1.0))
    return np.asarray((1.0 + (radius / scale) ** 2) ** -beta, np.float64)


def _airy(radius: Array, fwhm_px: float) -> Array:
    """Return the pattern of an obscured aperture, a constant in its middle."""
    # The width of an obscured pattern in units of lambda / D: 1.029 without obscuration, less with it.
    unit = np.linspace(1e-6, 1.0, 2001)
    pattern = _obscured(np.pi * unit)
    half_width = float(np.interp(-0.5, -pattern / pattern[0], unit))
    return _obscured(np.pi * radius * 2.0 * half_width / fwhm_px)


def _obscured(x: Array) -> Array:
    x = np.maximum(x, 1e-6)
    inner = np.maximum(_OBSCURATION * x, 1e-9)
    amplitude = 2.0 * j1(x) / x - _OBSCURATION**2 * 2.0 * j1(inner) / inner
    return np.asarray(amplitude**2, np.float64)


def pixel_integrated(profile: Callable[[Array], Array], half: int, jitter_px: float = 0.0) -> Array:
    """Integrate a round profile, blurred by a Gaussian of that rms, over pixels; unit sum."""
    side = 2 * half + 1
    fine = (np.arange(side * _OVERSAMPLING) + 0.5) / _OVERSAMPLING - 0.5 - half
    sampled = profile(np.hypot(fine[:, None], fine[None, :]))
    if jitter_px:
        sampled = gaussian_filter(sampled, jitter_px * _OVERSAMPLING, mode="constant")
    image = sampled.reshape(side, _OVERSAMPLING, side, _OVERSAMPLING).mean(axis=(1, 3))
    return np.asarray(image / image.sum(), np.float64)
