"""A detection table against the pixels that it is said to describe: positions, magnitudes and the mask.

A sample of windows is read, the same in every run. What is compared is what one mistake moves alike in all
sources: an origin of 1, another image's frame, a flux read as a magnitude, a mask of which no bit means bad.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter, maximum_filter, uniform_filter
from scipy.spatial import cKDTree

from deblend_batch.errors import BadDataError, DetectionsError
from deblend_batch.field.layout import Field
from deblend_batch.field.mask_bits import MaskBits, bad_pixels
from deblend_batch.field.photometry import AB_ZERO_POINT_NJY, nanojansky_per_unit
from deblend_batch.field.sky.noise import clipped_median_sigma, sample_blocks

NO_DATA = ("UNOBSERVED", "NO_DATA")
"""Bits of pixels that hold nothing: a source there is off the image, and says nothing of the mask."""

_FWHM = 2.3548
"""Of a Gaussian, in sigma."""
_WINDOWS = 5
_REACH_PX = 3
_MARGIN_PX = 12
_LEAST = 20
_SNR = 15.0
_OFFSET_PX = 0.45
"""Positions of pixels' corners are 0.5 off, and measured to some hundredths."""
_SIGNIFICANT = 5.0
_FAR_PX = 40
_FAR_BIN_PX = 2
_PEAKS = 400
_TIMES_MORE = 3.0
_CHANCE_SIGMA = 8.0
_MARGIN_SNR = 10.0
"""What is so much brighter than what stands out must, though it be no star, or in another band."""
_LEAST_SEEN = 0.25
_MAGNITUDES = 3.0
_AGAINST = -0.5
_AGAINST_SIGMA = 3.0
_MOST_BAD = 0.2


@dataclass(frozen=True)
class Sources:
    """What the pixels show at the positions of a sample of detections.

    Parameters
    ----------
    offset_yx : ndarray of float64, shape (n, 2)
        From the position to the peak near it, px; NaN where none stands out.
    magnitude : ndarray of float64, shape (n,)
        AB, in a small aperture; NaN where nothing stands out.
    given : ndarray of float64, shape (n,)
        The table's magnitude; NaN where unknown.
    is_bad : ndarray of bool, shape (n,)
        Whether the mask calls the pixel bad although it holds data.
    alone : ndarray of bool, shape (n,)
        Whether no other detection is near.
    bright : ndarray of bool, shape (n,)
        Whether it should stand out by its magnitude.
    far_yx : ndarray of float64, shape (p, 2)
        From each position to each peak within some 60 px, px.
    peak_yx : ndarray of float64, shape (k, 2)
        The highest peaks of each window, px.
    """

    offset_yx: NDArray[np.float64]
    magnitude: NDArray[np.float64]
    given: NDArray[np.float64]
    is_bad: NDArray[np.bool_]
    alone: NDArray[np.bool_]
    bright: NDArray[np.bool_]
    far_yx: NDArray[np.float64]
    peak_yx: NDArray[np.float64]


def compare_with_pixels(
    field: Field,
    yx: NDArray[np.float64],
    magnitude: NDArray[np.floating],
    table: str,
    meant: Collection[str],
) -> tuple[str, ...]:
    """Compare detections with the pixels of a field's first band.

    Parameters
    ----------
    field : Field
        The field.
    yx : ndarray of float64, shape (n, 2)
        Pixel positions, 0-based.
    magnitude : ndarray of float, shape (n,)
        AB; NaN where unknown.
    table : str
        URL of the table, for messages.
    meant : collection of str
        Comparisons that must not stop: ``positions``, ``magnitudes``, ``mask``.

    Returns
    -------
    tuple of str
        A line for each comparison.

    Raises
    ------
    DetectionsError
        If one cannot be.
    """
    found = sample_sources(field, yx, np.asarray(magnitude, np.float64))
    lines = []
    for name, (line, problem) in {
        "positions": check_positions(found),
        "magnitudes": check_magnitudes(found),
        "mask": check_mask(found),
    }.items():
        if problem and name not in meant:
            raise DetectionsError(
                f"{table}: {problem} in {field.url}; if it is meant, give 'meant: [{name}]'"
            )
        if line:
            lines.append(line)
    return tuple(lines)


def check_positions(found: Sources) -> tuple[str, str]:
    """Return what is to be said of the positions, and what is wrong with them."""
    shift = far_shift(found.far_yx)
    if shift is not None:
        dy, dx = shift
        line = f"positions: the image's peaks are {dx:+.1f} px in x, {dy:+.1f} in y from them"
        return (
            line,
            f"the image's peaks are {dx:+.1f} px in x and {dy:+.1f} in y off its positions,",
        )
    shows = np.asarray(np.isfinite(found.offset_yx).all(axis=1))
    expected = found.alone & found.bright
    enough = min(expected.sum(), len(found.peak_yx)) >= _LEAST
    if enough and shows[expected].mean() < _LEAST_SEEN:
        line = f"positions: {shows[expected].sum()} of {expected.sum()} bright sources show a peak"
        return line, f"of {expected.sum()} bright sources {shows[expected].sum()} show a peak"
    offsets, which = found.offset_yx[found.alone & shows], "sources"
    if len(offsets) < _LEAST:  # companions pull peaks to all sides alike
        offsets, which = found.offset_yx[shows], "sources, most of them in blends"
    if len(offsets) < _LEAST:
        return (
            f"positions not compared: {len(offsets)} sources show a peak, {_LEAST} are needed",
            "",
        )
    median = np.median(offsets, axis=0)
    error = 1.86 * np.median(np.abs(offsets - median), axis=0) / np.sqrt(len(offsets))
    dy, dx = median.tolist()
    line = (
        f"positions: peaks are {dx:+.2f} px in x, {dy:+.2f} in y from them ({len(offsets)} {which})"
    )
    if not ((np.abs(median) >= _OFFSET_PX) & (np.abs(median) > _SIGNIFICANT * error)).any():
        return line, ""
    hint = ""
    if np.all(np.abs(median + 1) < 0.25):
        hint = "; they seem to count from 1 (FITS, SExtractor), which 'origin: 1' says"
    return (
        line,
        f"the peaks of {len(offsets)} sources are {dx:+.2f} px in x and {dy:+.2f} in y off{hint},",
    )


def far_shift(far_yx: NDArray[np.float64]) -> tuple[float, float] | None:
    """Return by how much positions are off that are those of another frame, px (y, x).

    Parameters
    ----------
    far_yx : ndarray of float64, shape (p, 2)
        From each position to each peak within some 40 px. If many are alike, and few are near zero, all
        positions are off by that much.

    Returns
    -------
    tuple of float, or None
        None where nothing says that they are.
    """
    if len(far_yx) < _LEAST:
        return None
    edges = np.arange(-_FAR_PX - _FAR_BIN_PX / 2, _FAR_PX + _FAR_BIN_PX, _FAR_BIN_PX)
    counts, _ = np.histogramdd(far_yx, bins=[edges, edges])
    summed = uniform_filter(counts, 3, mode="constant") * 9
    at = np.unravel_index(int(np.argmax(summed)), summed.shape)
    middle, chance = len(summed) // 2, 9 * float(counts.mean())
    more, here = float(summed[at]) - chance, float(summed[middle, middle]) - chance
    if more < max(_LEAST, _TIMES_MORE * here, _CHANCE_SIGMA * chance**0.5):
        return None
    centre = (np.array(at) - middle) * _FAR_BIN_PX
    alike = far_yx[(np.abs(far_yx - centre) <= 1.5 * _FAR_BIN_PX).all(axis=1)]
    dy, dx = np.median(alike, axis=0)
    return float(dy), float(dx)


def check_magnitudes(found: Sources) -> tuple[str, str]:
    """Return what is to be said of the magnitudes, and what is wrong with them."""
    known = found.alone & np.isfinite(found.magnitude) & np.isfinite(found.given)
    if known.sum() < _LEAST:
        return (
            f"magnitudes not compared: {known.sum()} sources with one stand alone, {_LEAST} are needed",
            "",
        )
    seen, given = found.magnitude[known], found.given[known]
    off = float(np.median(given - seen))
    line = f"magnitudes: {off:+.2f} of small apertures ({known.sum()} sources)"
    varies = np.ptp(given) > 0 and np.ptp(seen) > 0
    order = rank_correlation(seen, given) if varies else 1.0
    if order < min(_AGAINST, -_AGAINST_SIGMA / (known.sum() - 1) ** 0.5):
        return line, "brighter sources have larger magnitudes (are they fluxes?)"
    if abs(off) > _MAGNITUDES:
        return line, f"magnitudes are {off:+.1f} of what the pixels hold (zero point, unit?)"
    return line, ""


def rank_correlation(first: NDArray[np.float64], second: NDArray[np.float64]) -> float:
    """Return Spearman's coefficient; to import ``scipy.stats`` for it would cost every run a second."""
    _, one, one_count = np.unique(first, return_inverse=True, return_counts=True)
    _, two, two_count = np.unique(second, return_inverse=True, return_counts=True)
    # Equal values share the mean of their ranks.
    ranks = (np.cumsum(one_count) - one_count / 2)[one], (np.cumsum(two_count) - two_count / 2)[two]
    return float(np.corrcoef(*ranks)[0, 1])


def check_mask(found: Sources) -> tuple[str, str]:
    """Return what is to be said of the mask, and what is wrong with it."""
    if not found.is_bad.any():
        return "", ""
    share = float(found.is_bad.mean())
    line = f"mask: {share:.1%} of {len(found.is_bad):,} sources are on bad pixels"
    if share <= _MOST_BAD or len(found.is_bad) < _LEAST:
        return line, ""
    return (
        line,
        f"{share:.0%} of {len(found.is_bad):,} sources are on pixels that the mask calls bad",
    )


def sample_sources(
    field: Field, yx: NDArray[np.float64], magnitude: NDArray[np.float64]
) -> Sources:
    """Look at the pixels under the detections of some windows."""
    inside = np.isfinite(yx).all(axis=1)
    tree = cKDTree(yx[inside]) if inside.any() else None
    fwhm_px = field.psf_fwhm_px[0]
    parts = [] if tree is None else list(_windows(field, yx, magnitude, tree, fwhm_px))
    if not parts:
        nothing, none, pairs = np.empty(0), np.empty(0, bool), np.empty((0, 2))
        return Sources(pairs, nothing, nothing, none, none, none, pairs, pairs)
    return Sources(*(np.concatenate(columns) for columns in zip(*parts, strict=True)))


_Part = tuple[NDArray[Any], ...]
"""Of a window what :class:`Sources` has of all."""


def _windows(
    field: Field,
    yx: NDArray[np.float64],
    magnitude: NDArray[np.float64],
    tree: cKDTree,
    fwhm_px: float,
) -> Iterator[_Part]:
    for rows, columns in sample_blocks(field.shape_yx, count=_WINDOWS):
        try:
            image = field.plane(0, rows, columns).astype(np.float64)
            bad = _bad(field, rows, columns, image)
        except BadDataError:  # the tiles that need these pixels will go to quarantine for it
            continue
        corner = np.array([rows.start, columns.start])
        local = yx - corner
        edge = np.array(image.shape) - _MARGIN_PX
        here = (local >= _MARGIN_PX).all(axis=1) & (local < edge).all(axis=1)
        if not here.any():
            continue
        image[bad | ~np.isfinite(image)] = np.nan
        near = tree.query_ball_point(yx[here], 2 * _MARGIN_PX / 3, return_length=True)
        smoothed = Smoothed.of(image, fwhm_px)
        offset, flux = _peaks(image, smoothed, local[here], fwhm_px)
        unit = float(nanojansky_per_unit(field.meta.zero_point[0]))
        with np.errstate(invalid="ignore", divide="ignore", over="ignore"):
            seen = AB_ZERO_POINT_NJY - 2.5 * np.log10(flux * unit)
            given = 10 ** ((AB_ZERO_POINT_NJY - magnitude[here]) / 2.5) / unit
            height = given / (4 * np.pi * (fwhm_px / _FWHM) ** 2)
            bright = height > _MARGIN_SNR * _SNR * smoothed.noise
        y, x = np.round(local[here]).astype(int).T
        known = np.isfinite(image[y, x]) & (smoothed.noise > 0)
        peaks = smoothed.highest() + corner
        stated = magnitude[here], bad[y, x], np.asarray(near) == 1, bright & known
        yield offset, seen, *stated, _far_offsets(peaks, tree), peaks


def _bad(
    field: Field, rows: slice, columns: slice, image: NDArray[np.float64]
) -> NDArray[np.bool_]:
    """Pixels that hold data and are called bad."""
    if field.mask is None:
        return np.zeros(image.shape, bool)
    mask, bits = field.plane(0, rows, columns, "mask"), field.meta.mask_bits
    if bits is not None:
        bits = MaskBits(bits.bits, tuple(name for name in bits.bad if name not in NO_DATA))
    bad = bad_pixels(mask, bits) & np.isfinite(image)
    if field.variance is not None:
        bad &= field.plane(0, rows, columns, "variance") > 0
    return bad


@dataclass(frozen=True)
class Smoothed:
    """A window, smoothed with its PSF.

    Parameters
    ----------
    pixels : ndarray of float64, shape (y, x)
        Less the sky; 0 where nothing is known.
    level : float
        The sky.
    noise : float
        Of the smoothed pixels; 0 where there is none.
    """

    pixels: NDArray[np.float64]
    level: float
    noise: float

    @classmethod
    def of(cls, image: NDArray[np.float64], fwhm_px: float) -> Smoothed:
        """Smooth an image that has NaN where nothing is known."""
        level, sigma = clipped_median_sigma(image)
        known = np.isfinite(image)
        pixels = gaussian_filter(np.where(known, image - level, 0), fwhm_px / _FWHM)
        _, noise = clipped_median_sigma(pixels[known])
        return cls(pixels, level, noise if sigma > 0 else 0.0)

    def highest(self) -> NDArray[np.float64]:
        """Return the positions (y, x) of the highest peaks that stand out."""
        peak = (self.pixels == maximum_filter(self.pixels, 2 * _REACH_PX + 1)) & (
            self.pixels > _SNR * self.noise
        )
        found = np.argwhere(peak)
        order = np.argsort(-self.pixels[peak], kind="stable")[:_PEAKS]
        return found[order].astype(np.float64) if self.noise > 0 else np.empty((0, 2))


def _far_offsets(peaks_yx: NDArray[np.float64], tree: cKDTree) -> NDArray[np.float64]:
    """Return the way from each position to each of the highest peaks that is not far."""
    near = tree.query_ball_point(peaks_yx, 1.5 * _FAR_PX, return_sorted=False)
    ways = [peak - tree.data[rows] for peak, rows in zip(peaks_yx, near, strict=True) if rows]
    return np.concatenate(ways) if ways else np.empty((0, 2))


def _peaks(
    image: NDArray[np.float64], smoothed: Smoothed, yx: NDArray[np.float64], fwhm_px: float
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Offsets of the peaks near positions, px, and fluxes in a small aperture; NaN where none stands out."""
    reach = np.arange(-_REACH_PX, _REACH_PX + 1)
    dy, dx = np.meshgrid(reach, reach, indexing="ij")
    radius = int(np.clip(np.ceil(1.5 * fwhm_px), 2, _MARGIN_PX - _REACH_PX - 2))
    ay, ax = np.indices((2 * radius + 1, 2 * radius + 1)) - radius
    round_ = np.hypot(ay, ax) <= radius
    offset, flux = np.full(yx.shape, np.nan), np.full(len(yx), np.nan)
    for number, (y, x) in enumerate(np.round(yx).astype(int).tolist()):
        around = smoothed.pixels[y + dy, x + dx]
        best = int(np.argmax(around))
        py, px = y + int(dy.flat[best]), x + int(dx.flat[best])
        stands_out = smoothed.noise > 0 and around.flat[best] > _SNR * smoothed.noise
        if not stands_out or abs(py - y) == _REACH_PX or abs(px - x) == _REACH_PX:
            continue
        offset[number] = np.array([py, px]) + _vertex(smoothed.pixels, py, px) - yx[number]
        pixels = image[py + ay, px + ax]
        if np.isfinite(pixels).all():
            flux[number] = (pixels - smoothed.level)[round_].sum()
    return offset, flux


def _vertex(smooth: NDArray[np.float64], y: int, x: int) -> NDArray[np.float64]:
    """Return where between pixels a peak is: the vertices of parabolas through three pixels."""
    found = []
    for low, middle, high in (smooth[y - 1 : y + 2, x], smooth[y, x - 1 : x + 2]):
        curve = low - 2 * middle + high
        found.append(0.5 * (low - high) / curve if curve < 0 else 0.0)
    return np.array(found)
