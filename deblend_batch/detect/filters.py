"""Filters matched to the PSF, which may be another in each part of an image."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import zoom
from scipy.signal import oaconvolve

from deblend_batch.tiling.tile import Box

_FWHM_TO_SIGMA = 1 / 2.3548200450309493
_SHARPER = 0.5  # width that is wanted of the sharper image's PSF, over that of the image
_NARROWEST_PX = 2.0  # what pixels can show without ringing
_DAMPING = 0.003  # squared transfer below which no frequency is raised any more
_REACH_FWHM = 4.0
_FINER = 5

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Place:
    """A part of an image, and the PSF there.

    Parameters
    ----------
    box : Box
        Its pixels.
    psf : ndarray of float, shape (y, x)
        Image of the PSF, the pixel included: odd size, centred.
    """

    box: Box
    psf: NDArray[np.floating]

    @cached_property
    def fwhm_px(self) -> float:
        """Full width at half maximum."""
        return width_of(self.psf)

    @cached_property
    def matched(self) -> Array:
        """The filter that finds faint sources best; positive, so that no ring of it is a source."""
        return np.asarray(np.maximum(self.psf, 0), np.float64)

    @cached_property
    def sharpening(self) -> Array:
        """The filter that makes the PSF narrower."""
        return sharpening_kernel(np.asarray(self.psf, np.float64))


def filter_places(
    snr: Array, places: Sequence[Place], kernel_of: Callable[[Place], Array]
) -> Array:
    """Filter an image of unit noise, each place by its own kernel, so that its noise stays one.

    Parameters
    ----------
    snr : ndarray of float64, shape (y, x)
        The image over its noise; 0 where pixels are bad.
    places : sequence of Place
        They cover the image once.
    kernel_of : callable
        Chooses the kernel.

    Returns
    -------
    ndarray of float64, shape (y, x)
        The filtered image.
    """
    found = np.zeros(snr.shape)
    for place in places:
        kernel = kernel_of(place)
        window = place.box.grown(len(kernel) // 2).clipped(snr.shape)
        part = oaconvolve(snr[window.slices], kernel / np.sqrt((kernel**2).sum()), mode="same")
        inner = place.box.shifted((-window.y0, -window.x0))
        found[place.box.slices] = part[inner.slices]
    return found


def psf_kernel(fwhm_px: float) -> NDArray[np.float32]:
    """Return a Gaussian PSF, float32 (y, x): odd size, at least 3 x 3, sum 1."""
    profile = gaussian_profile(fwhm_px)
    return np.asarray(np.outer(profile, profile), np.float32)


def gaussian_profile(fwhm_px: float) -> Array:
    """Return the profile of a Gaussian PSF along either axis, to one width from its middle; sum 1."""
    half = max(1, int(np.ceil(fwhm_px)))
    offset = np.arange(-half, half + 1, dtype=np.float64)
    profile = np.exp(-0.5 * (offset / (fwhm_px * _FWHM_TO_SIGMA)) ** 2)
    return np.asarray(profile / profile.sum())


def width_of(psf: NDArray[np.floating]) -> float:
    """Return the full width at half maximum of a PSF's image, px, from the area above half of its peak."""
    fine = zoom(np.asarray(psf, np.float64), _FINER, order=3, grid_mode=True, mode="grid-constant")
    return float(2 * np.sqrt((fine > fine.max() / 2).sum() / np.pi) / _FINER)


def sharpening_kernel(psf: Array) -> Array:
    """Return a filter that makes a PSF a narrower Gaussian, at best half as wide; noise gains little.

    The PSF's own wings and rings become that Gaussian, too: a ring that a bright source leaves is no peak.

    Parameters
    ----------
    psf : ndarray of float64, shape (y, x)
        Its image, odd size, unit sum, centred.

    Returns
    -------
    ndarray of float64, shape (y, x)
        The filter.
    """
    fwhm_px = width_of(psf)
    half = max(psf.shape[0] // 2, int(np.ceil(_REACH_FWHM * fwhm_px)))
    size = 2 * half + 1
    squared = (np.fft.fftfreq(size) ** 2)[:, None] + np.fft.fftfreq(size) ** 2
    sigma = max(_SHARPER * fwhm_px, _NARROWEST_PX) * _FWHM_TO_SIGMA
    wanted = np.exp(-2 * (np.pi * sigma) ** 2 * squared)
    room = half - psf.shape[0] // 2
    transfer = np.fft.fft2(np.fft.ifftshift(np.pad(psf, room)))
    response = wanted * transfer.conj() / (np.abs(transfer) ** 2 + _DAMPING)
    return np.asarray(np.fft.fftshift(np.fft.ifft2(response).real), np.float64)
