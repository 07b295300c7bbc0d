"""The point spread function's width, measured from the stars of an image.

Stars are the smallest bright sources, and all of one size: a narrow locus in size against magnitude,
where galaxies scatter.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import sep
from numpy.typing import NDArray
from scipy.optimize import least_squares

from deblend_batch.field.extraction import extract_objects
from deblend_batch.field.noise import clipped_median_sigma

MIN_STARS = 5

_DETECT_SIGMA = 8.0
_MIN_SNR = 40.0
_MIN_AXIS_RATIO = 0.75
_LOCUS_WIDTH = 0.10
_BRIGHTEST = 200
_FITTED = 40
_MAX_SCATTER = 0.10


@dataclass(frozen=True)
class PsfWidth:
    """A measured PSF.

    Parameters
    ----------
    fwhm_px : float
        Full width at half maximum, median of the stars.
    scatter : float
        1.4826 MAD of the stars' widths, relative.
    stars : int
        Number of stars fitted.
    """

    fwhm_px: float
    scatter: float
    stars: int


@dataclass(frozen=True)
class StarCandidate:
    """A compact, round, bright, isolated source.

    Parameters
    ----------
    radius_px : float
        Half-light radius.
    flux : float
        Isophotal flux, image units.
    stamp : ndarray of float64, shape (y, x)
        Pixels around it, background subtracted.
    """

    radius_px: float
    flux: float
    stamp: NDArray[np.float64]


def measure_fwhm(windows: Iterable[NDArray[np.floating]], saturation: float) -> PsfWidth | None:
    """Measure the PSF's width from windows of an image.

    Parameters
    ----------
    windows : iterable of ndarray of float, shape (y, x)
        Pieces of the image, image units; bad pixels are NaN.
    saturation : float
        Pixel value from which stars are saturated; inf if unknown.

    Returns
    -------
    PsfWidth or None
        None where there are fewer than five stars of one size.
    """
    candidates = [star for window in windows for star in star_candidates(window, saturation)]
    brightest = sorted(candidates, key=lambda star: -star.flux)[:_BRIGHTEST]
    chosen = stellar_locus(np.array([star.radius_px for star in brightest]))
    fits = [moffat_fwhm(brightest[number].stamp) for number in chosen[:_FITTED]]
    widths = np.array([width for width in fits if width is not None])
    if len(widths) < MIN_STARS:
        return None
    median, sigma = clipped_median_sigma(widths)
    if not 0 < median < np.inf or sigma > _MAX_SCATTER * median:
        return None
    return PsfWidth(median, sigma / median, len(widths))


def star_candidates(
    window: NDArray[np.floating], saturation: float = float("inf")
) -> list[StarCandidate]:
    """Find the sources of a window that could be stars.

    Parameters
    ----------
    window : ndarray of float, shape (y, x)
        Image units; bad pixels are NaN.
    saturation : float
        Pixel value from which stars are saturated.

    Returns
    -------
    list of StarCandidate
        Signal to noise above 40, axis ratio above 0.75, not blended, not at an edge or a bad pixel.
    """
    level, sigma = clipped_median_sigma(window)
    if not sigma > 0:
        return []
    bad = ~np.isfinite(window)
    pixels = np.where(bad, 0.0, window - level).astype(np.float64)
    sources: Any = extract_objects(pixels, _DETECT_SIGMA, err=sigma, mask=bad, minarea=4)
    snr = sources["flux"] / (sigma * np.sqrt(np.maximum(sources["npix"], 1)))
    round_ = sources["b"] > _MIN_AXIS_RATIO * sources["a"]
    # Cores near saturation are flattened; 0.7 leaves room for detectors that bend early.
    linear = sources["peak"] + level < 0.7 * saturation
    sources = sources[(snr > _MIN_SNR) & round_ & linear & (sources["flag"] == 0)]
    if len(sources) == 0:
        return []
    radius, _ = sep.flux_radius(
        pixels, sources["x"], sources["y"], 6.0 * sources["a"], 0.5, mask=bad, subpix=5
    )
    found = []
    for source, radius_px in zip(sources, radius, strict=True):
        stamp = _stamp(pixels, bad, (float(source["y"]), float(source["x"])), float(radius_px))
        if stamp is not None and radius_px > 0:
            found.append(StarCandidate(float(radius_px), float(source["flux"]), stamp))
    return found


def stellar_locus(radius_px: NDArray[np.floating]) -> list[int]:
    """Find the stars among sources: the smallest size at which sources crowd.

    Parameters
    ----------
    radius_px : ndarray of float, shape (n,)
        Half-light radii, the brightest source first.
    """
    if len(radius_px) < MIN_STARS:
        return []
    log_radius = np.log(radius_px)
    ordered = np.sort(log_radius)
    counts = np.searchsorted(ordered, ordered + 2 * _LOCUS_WIDTH, side="right") - np.arange(
        len(ordered)
    )
    enough = max(MIN_STARS, int(np.ceil(0.5 * counts.max())))
    if counts.max() < enough:
        return []
    first = int(np.argmax(counts >= enough))
    # From the first crowded window on, take the densest one that still overlaps it.
    last = int(np.searchsorted(ordered, ordered[first] + 2 * _LOCUS_WIDTH, side="right"))
    start = ordered[first + int(np.argmax(counts[first:last]))]
    inside = (log_radius >= start) & (log_radius <= start + 2 * _LOCUS_WIDTH)
    return [int(number) for number in np.flatnonzero(inside)]


def moffat_fwhm(stamp: NDArray[np.floating]) -> float | None:
    """Fit a circular Moffat profile (Moffat 1969) to a star.

    Parameters
    ----------
    stamp : ndarray of float, shape (y, x)
        The star near the centre, background subtracted.

    Returns
    -------
    float or None
        Full width at half maximum of the fit, px; None where it does not converge.
    """
    y, x = np.indices(stamp.shape, dtype=np.float64)
    centre = (np.array(stamp.shape) - 1) / 2
    peak = float(stamp.max())
    half_width = max(1.0, float((stamp > peak / 2).sum() / np.pi) ** 0.5)

    def residuals(parameters: NDArray[np.float64]) -> NDArray[np.float64]:
        amplitude, y0, x0, log_alpha, beta, sky = parameters
        square = ((y - y0) ** 2 + (x - x0) ** 2) * np.exp(-2 * log_alpha)
        model = amplitude * (1 + square) ** -beta + sky
        return np.asarray((model - stamp).ravel() / peak)

    start = [peak, *centre, np.log(1.5 * half_width), 3.0, 0.0]
    low = [0.0, *(centre - 2), np.log(0.2), 1.2, -peak]
    high = [5 * peak, *(centre + 2), np.log(10.0 * half_width + 2), 20.0, peak]
    try:
        fit = least_squares(residuals, start, bounds=(low, high), max_nfev=200)
    except ValueError:
        return None
    alpha, beta = np.exp(fit.x[3]), fit.x[4]
    return float(2 * alpha * np.sqrt(2 ** (1 / beta) - 1)) if fit.success else None


def _stamp(
    pixels: NDArray[np.float64], bad: NDArray[np.bool_], yx: tuple[float, float], radius_px: float
) -> NDArray[np.float64] | None:
    """Cut pixels around a source, out to four half-light radii; None at an edge or a bad pixel."""
    half = int(np.clip(np.ceil(4 * radius_px), 5, 25))
    y, x = round(yx[0]), round(yx[1])
    if y < half or x < half or y + half >= pixels.shape[0] or x + half >= pixels.shape[1]:
        return None
    box = (slice(y - half, y + half + 1), slice(x - half, x + half + 1))
    return None if bad[box].any() else pixels[box].copy()
