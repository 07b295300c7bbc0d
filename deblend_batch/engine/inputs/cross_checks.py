"""A detection table against the pixels that it is said to describe: positions, magnitudes and the mask.

A sample of windows is read, the same in every run. What is compared is what one mistake moves alike in all
sources: an origin of 1, another image's frame, a flux read as a magnitude, a mask of which no bit means bad.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter
from scipy.spatial import cKDTree

from deblend_batch.errors import BadDataError, DetectionsError
from deblend_batch.field.layout import Field
from deblend_batch.field.mask_bits import MaskBits, bad_pixels
from deblend_batch.field.noise import clipped_median_sigma, sample_blocks
from deblend_batch.field.photometry import AB_ZERO_POINT_NJY, nanojansky_per_unit

NO_DATA = ("UNOBSERVED", "NO_DATA")
"""Bits of pixels that hold nothing: a source there is off the image, and says nothing of the mask."""

_WINDOWS = 5
_REACH_PX = 3
_MARGIN_PX = 12
_LEAST = 20
_SNR = 15.0
_OFFSET_PX = 0.5
_SIGNIFICANT = 5.0
_MAGNITUDES = 3.0
_AGAINST = -0.3
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
    """

    offset_yx: NDArray[np.float64]
    magnitude: NDArray[np.float64]
    given: NDArray[np.float64]
    is_bad: NDArray[np.bool_]
    alone: NDArray[np.bool_]


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
    offsets = found.offset_yx[found.alone & np.isfinite(found.offset_yx).all(axis=1)]
    if len(offsets) < _LEAST:
        return f"positions not compared: {len(offsets)} bright sources that stand alone", ""
    median = np.median(offsets, axis=0)
    error = 1.86 * np.median(np.abs(offsets - median), axis=0) / np.sqrt(len(offsets))
    dy, dx = median.tolist()
    line = (
        f"positions: peaks are {dx:+.2f} px in x, {dy:+.2f} in y from them ({len(offsets)} sources)"
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


def check_magnitudes(found: Sources) -> tuple[str, str]:
    """Return what is to be said of the magnitudes, and what is wrong with them."""
    known = found.alone & np.isfinite(found.magnitude) & np.isfinite(found.given)
    if known.sum() < _LEAST:
        return "", ""
    seen, given = found.magnitude[known], found.given[known]
    off = float(np.median(given - seen))
    line = f"magnitudes: {off:+.2f} of small apertures ({known.sum()} sources)"
    varies = np.ptp(given) > 0 and np.ptp(seen) > 0
    order = rank_correlation(seen, given) if varies else 1.0
    if order < _AGAINST:
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
    if len(found.is_bad) < _LEAST or not found.is_bad.any():
        return "", ""
    share = float(found.is_bad.mean())
    line = f"mask: {share:.1%} of {len(found.is_bad):,} sources are on bad pixels"
    if share <= _MOST_BAD:
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
        nothing = np.empty(0)
        return Sources(
            np.empty((0, 2)), nothing, nothing, nothing.astype(bool), nothing.astype(bool)
        )
    return Sources(*(np.concatenate(columns) for columns in zip(*parts, strict=True)))


_Part = tuple[
    NDArray[np.float64],
    NDArray[np.float64],
    NDArray[np.float64],
    NDArray[np.bool_],
    NDArray[np.bool_],
]


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
        offset, flux = _peaks(image, local[here], fwhm_px)
        with np.errstate(invalid="ignore", divide="ignore"):
            njy = flux * float(nanojansky_per_unit(field.meta.zero_point[0]))
            seen = AB_ZERO_POINT_NJY - 2.5 * np.log10(njy)
        y, x = np.round(local[here]).astype(int).T
        yield offset, seen, magnitude[here], bad[y, x], np.asarray(near) == 1


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


def _peaks(
    image: NDArray[np.float64], yx: NDArray[np.float64], fwhm_px: float
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Offsets of the peaks near positions, px, and fluxes in a small aperture; NaN where none stands out."""
    level, sigma = clipped_median_sigma(image)
    known = np.isfinite(image)
    smooth = gaussian_filter(np.where(known, image - level, 0), fwhm_px / 2.355)
    _, noise = clipped_median_sigma(smooth[known])
    reach = np.arange(-_REACH_PX, _REACH_PX + 1)
    dy, dx = np.meshgrid(reach, reach, indexing="ij")
    radius = int(np.clip(np.ceil(1.5 * fwhm_px), 2, _MARGIN_PX - _REACH_PX - 2))
    ay, ax = np.indices((2 * radius + 1, 2 * radius + 1)) - radius
    round_ = np.hypot(ay, ax) <= radius
    offset, flux = np.full(yx.shape, np.nan), np.full(len(yx), np.nan)
    for number, (y, x) in enumerate(np.round(yx).astype(int).tolist()):
        around = smooth[y + dy, x + dx]
        best = int(np.argmax(around))
        py, px = y + int(dy.flat[best]), x + int(dx.flat[best])
        stands_out = noise > 0 and around.flat[best] > _SNR * noise and sigma > 0
        if not stands_out or abs(py - y) == _REACH_PX or abs(px - x) == _REACH_PX:
            continue
        offset[number] = np.array([py, px]) + _vertex(smooth, py, px) - yx[number]
        pixels = image[py + ay, px + ax]
        if np.isfinite(pixels).all():
            flux[number] = (pixels - level)[round_].sum()
    return offset, flux


def _vertex(smooth: NDArray[np.float64], y: int, x: int) -> NDArray[np.float64]:
    """Return where between pixels a peak is: the vertices of parabolas through three pixels."""
    found = []
    for low, middle, high in (smooth[y - 1 : y + 2, x], smooth[y, x - 1 : x + 2]):
        curve = low - 2 * middle + high
        found.append(0.5 * (low - high) / curve if curve < 0 else 0.0)
    return np.array(found)
