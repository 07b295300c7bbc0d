"""The rules by which pairs are made, and what a detector knows of a source."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

_SMALLEST_RADIUS_FWHM = 0.43


@dataclass(frozen=True)
class PairRules:
    """How pairs are made.

    Parameters
    ----------
    stamp_size : int
        Side of the stamps, in pixels.
    max_mag_difference : float
        Largest difference of the members' magnitudes.
    noise_factor : tuple of float
        Range of a factor on the preset's noise (which has a spread of its own), uniform in the logarithm.
    least_snr : float
        Matched-filter signal to noise that both members have at least, as sources that a detector listed: the
        upper end of the noise's range is lowered to it, pair by pair. 0 sets no limit.
    noise_correlation : tuple of float
        Range of the weight of adjacent pixels in the kernel that correlates the noise; (0, 0) is white.
    flux_jitter_mag : float
        Each member is brightened or faded by up to this, as far as ``max_mag_difference`` allows.
    free_offset_fraction : float
        Share of the pairs whose distance follows from the PSF and the stamp alone and not from the radii,
        as of pairs that were found by their distance on the sky.
    neighbours_per_stamp : float
        Mean number of further galaxies in a stamp (Poisson, at most four).
    close_neighbour_fraction : float
        Share of those that may come nearer to a member than the members are to each other.
    centroid_error : bool
        Whether the reported positions have a detector's error.
    background_error : float
        Standard deviation of a constant left in the stamp by background subtraction, in units of the noise.
    seed_faithful : bool
        Reproduce the released generator: a noisy stamp per member, added after a shift that pads with zeros
        (so that noise is there twice and its edge shows), and no centroid error.
    """

    stamp_size: int = 128
    max_mag_difference: float = 2.0
    noise_factor: tuple[float, float] = (1.0, 1.0)
    least_snr: float = 0.0
    noise_correlation: tuple[float, float] = (0.0, 0.0)
    flux_jitter_mag: float = 0.0
    free_offset_fraction: float = 0.0
    neighbours_per_stamp: float = 0.0
    close_neighbour_fraction: float = 0.1
    centroid_error: bool = True
    background_error: float = 0.0
    seed_faithful: bool = False


def training_rules(stamp_size: int = 64) -> PairRules:
    """Return rules wide enough to train for several instruments and real fields.

    Parameters
    ----------
    stamp_size : int
        Side of the stamps, in pixels.
    """
    return PairRules(
        stamp_size=stamp_size,
        noise_factor=(0.5, 60.0),
        least_snr=5.0,
        noise_correlation=(0.0, 0.4),
        flux_jitter_mag=0.4,
        free_offset_fraction=0.25,
        neighbours_per_stamp=0.3,
        background_error=0.05,
    )


def offset_limits(radius_px: Floats, psf_fwhm_px: Floats, largest_px: float) -> Floats:
    """Return the smallest and largest distance of a pair from its radii.

    Parameters
    ----------
    radius_px : numpy.ndarray
        float64 (n, 2), half-light radii; none counts as smaller than 0.43 PSF widths, the seed's smallest.
    psf_fwhm_px : numpy.ndarray
        float64 (n,), PSF widths.
    largest_px : float
        Largest distance that the stamp holds.

    Returns
    -------
    numpy.ndarray
        float64 (n, 2): max(Re) and min(4 min(Re), largest), or 0.8 of the latter where that is not above the
        former.
    """
    radius = np.maximum(radius_px, _SMALLEST_RADIUS_FWHM * psf_fwhm_px[:, None])
    high = np.minimum(4 * radius.min(axis=1), largest_px)
    low = radius.max(axis=1)
    return np.stack([np.where(low >= high, 0.8 * high, low), high], axis=1)


def centroid_sigma(flux: Floats, radius_px: Floats, psf_fwhm_px: Floats, sigma: Floats) -> Floats:
    """Return a detector's centroid error per axis in pixels, from 0.03 to 0.5.

    Parameters
    ----------
    flux, radius_px, psf_fwhm_px, sigma : numpy.ndarray
        float64, broadcast together; image units and pixels.

    Returns
    -------
    numpy.ndarray
        float64: width over signal to noise (optimal Gaussian profile, King 1983), with a floor for structure.
    """
    width = np.hypot(radius_px / 1.18, psf_fwhm_px / 2.355)
    return np.clip(
        np.hypot(0.04, width / signal_to_noise(flux, radius_px, psf_fwhm_px, sigma)), 0.03, 0.5
    )


def signal_to_noise(flux: Floats, radius_px: Floats, psf_fwhm_px: Floats, sigma: Floats) -> Floats:
    """Return the matched-filter signal to noise of Gaussians as wide as the sources; arguments broadcast."""
    width = np.hypot(radius_px / 1.18, psf_fwhm_px / 2.355)
    return np.asarray(flux / (sigma * np.sqrt(4 * np.pi) * width), np.float64)
