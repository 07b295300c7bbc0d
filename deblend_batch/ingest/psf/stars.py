"""Stars of an image: the smallest bright sources, and all of one size.

They are a narrow locus in size against magnitude, where galaxies scatter.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import sep
from numpy.typing import NDArray
from scipy.ndimage import binary_dilation, map_coordinates, uniform_filter

from deblend_batch.field.sky.extraction import extract_objects
from deblend_batch.field.sky.noise import clipped_median_sigma

MIN_STARS = 5

_DETECT_SIGMA = 8.0
_MIN_SNR = 40.0
_NOISES = (1e-25, 1e15)
_MOST_SNR = 1e9
"""Of a pixel: what is brighter is damage."""
_MIN_AXIS_RATIO = 0.75
_PER_WINDOW = 100
_LOCUS_WIDTH = 0.10
_CORE_RADII = 4.0
"""So many half-light radii from its middle a star must be whole; its stamp reaches twice as far."""
_RING_RADII = 6.0
_MIN_RING = 50
_NEIGHBOUR_SIGMA = 3.0
_UNEVEN = 0.15
"""Share of its light by which a star may differ from itself turned by half: astigmatism, coma."""


@dataclass(frozen=True)
class StarCandidate:
    """A compact, round, bright, isolated source.

    Parameters
    ----------
    radius_px : float
        Half-light radius.
    flux : float
        Isophotal flux, image units.
    snr : float
        Its signal to noise.
    yx : tuple of float
        Position in the image, px.
    stamp : ndarray of float32, shape (y, x)
        Pixels around it, out to eight half-light radii, sky subtracted; NaN where a neighbour shines, a pixel
        is bad, or the image ends.
    """

    radius_px: float
    flux: float
    snr: float
    yx: tuple[float, float]
    stamp: NDArray[np.float32]


def star_candidates(
    window: NDArray[np.floating],
    saturation: float = float("inf"),
    origin_yx: tuple[int, int] = (0, 0),
) -> list[StarCandidate]:
    """Find the sources of a window that could be stars.

    Parameters
    ----------
    window : ndarray of float, shape (y, x)
        Image units; bad pixels are NaN.
    saturation : float
        Pixel value from which stars are saturated; inf if unknown.
    origin_yx : tuple of int
        Where in the image the window's first pixel is.

    Returns
    -------
    list of StarCandidate
        The brightest hundred of signal to noise above 40, axis ratio above 0.75, not blended, not at an
        edge or a bad pixel.
    """
    level, sigma = clipped_median_sigma(window)
    if not _NOISES[0] < sigma < _NOISES[1]:  # sep counts in float32, and would end the process
        return []
    bad = ~np.isfinite(window)
    most = _MOST_SNR * sigma
    pixels = np.clip(np.where(bad, 0.0, window - level).astype(np.float64), -most, most)
    sources: Any = extract_objects(pixels, _DETECT_SIGMA, err=sigma, mask=bad, minarea=4)
    snr = sources["flux"] / (sigma * np.sqrt(np.maximum(sources["npix"], 1)))
    round_ = sources["b"] > _MIN_AXIS_RATIO * sources["a"]
    # Cores near saturation are flattened; 0.7 leaves room for detectors that bend early.
    linear = sources["peak"] + level < 0.7 * saturation
    chosen = np.flatnonzero((snr > _MIN_SNR) & round_ & linear & (sources["flag"] == 0))
    chosen = np.sort(chosen[np.argsort(-sources["flux"][chosen], kind="stable")[:_PER_WINDOW]])
    sources, snr = sources[chosen], snr[chosen]
    if len(sources) == 0:
        return []
    radius, _ = sep.flux_radius(
        pixels, sources["x"], sources["y"], 6.0 * sources["a"], 0.5, mask=bad, subpix=5
    )
    found = []
    for source, radius_px, star_snr in zip(sources, radius, snr, strict=True):
        y, x = float(source["y"]), float(source["x"])
        stamp = _stamp(pixels, bad, (y, x), float(radius_px), sigma) if radius_px > 0 else None
        if stamp is not None:
            place = (y + origin_yx[0], x + origin_yx[1])
            flux = float(source["flux"])
            found.append(StarCandidate(float(radius_px), flux, float(star_snr), place, stamp))
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


def _stamp(
    pixels: NDArray[np.float64],
    bad: NDArray[np.bool_],
    yx: tuple[float, float],
    radius_px: float,
    sigma: float,
) -> NDArray[np.float32] | None:
    """Cut pixels around a source, out to eight half-light radii, and subtract what its outer ring shows.

    None where an edge or a bad pixel is within four.
    """
    inner = int(np.clip(np.ceil(_CORE_RADII * radius_px), 5, 25))
    y, x = round(yx[0]), round(yx[1])
    if y < inner or x < inner or y + inner >= pixels.shape[0] or x + inner >= pixels.shape[1]:
        return None
    core = (slice(y - inner, y + inner + 1), slice(x - inner, x + inner + 1))
    if bad[core].any():
        return None
    half = 2 * inner
    box = (slice(max(0, y - half), y + half + 1), slice(max(0, x - half), x + half + 1))
    beyond = [
        (max(0, half - at), max(0, at + half + 1 - n))
        for at, n in zip((y, x), pixels.shape, strict=True)
    ]
    stamp = np.pad(np.where(bad[box], np.nan, pixels[box]), beyond, constant_values=np.nan)
    centre = (yx[0] - y + half, yx[1] - x + half)
    stamp[_neighbours(stamp, centre, radius_px, sigma)] = np.nan
    away = np.hypot(*(np.indices(stamp.shape) - np.reshape(centre, (2, 1, 1))))
    ring = stamp[(away > _RING_RADII * radius_px) & np.isfinite(stamp)]
    sky = clipped_median_sigma(ring)[0] if len(ring) >= _MIN_RING else 0.0
    return (stamp - sky).astype(np.float32)


def _neighbours(
    stamp: NDArray[np.floating], centre_yx: tuple[float, float], radius_px: float, sigma: float
) -> NDArray[np.bool_]:
    """Find the pixels of a star's stamp in which another source shines.

    A PSF looks much the same turned by half about its centre, and what stands beside a star does not: so even
    a faint neighbour is found in the star's own wings, where no threshold would tell them apart. Nearer than
    two half-light radii nothing is looked for.
    """
    dy, dx = np.indices(stamp.shape, np.float64) - np.reshape(centre_yx, (2, 1, 1))
    known = np.where(np.isfinite(stamp), stamp, 0.0)
    turned = map_coordinates(
        known, [centre_yx[0] - dy, centre_yx[1] - dx], np.float64, order=1, mode="constant"
    )
    excess = uniform_filter(known - turned, 3)
    most = _NEIGHBOUR_SIGMA * math.sqrt(2) * sigma / 3 + _UNEVEN * np.abs(uniform_filter(turned, 3))
    found = (excess > most) & (np.hypot(dy, dx) > 2 * radius_px)
    return np.asarray(binary_dilation(found, iterations=2))
