"""The point spread function's width, measured from the stars of an image."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from threadpoolctl import threadpool_limits

from deblend_batch.field.sky.noise import clipped_median_sigma
from deblend_batch.ingest.psf.moffat import FittedStar, fit_moffat
from deblend_batch.ingest.psf.stars import MIN_STARS, StarCandidate, stellar_locus

_BRIGHTEST = 200
_VARIATION = 0.05
_PER_REGION = 12
_REGIONS = 4
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


def fit_stars(candidates: Sequence[StarCandidate], shape_yx: tuple[int, int]) -> list[FittedStar]:
    """Choose the stars among compact sources, and fit them.

    Parameters
    ----------
    candidates : sequence of StarCandidate
        Of the whole image.
    shape_yx : tuple of int
        Rows and columns of the image.

    Returns
    -------
    list of FittedStar
        The brightest twelve of each sixteenth of the image; none where fewer than five are of one size.
    """
    brightest = sorted(candidates, key=lambda star: -star.flux)
    radii = np.array([star.radius_px for star in brightest[:_BRIGHTEST]])
    locus = stellar_locus(radii)
    if not locus:
        return []
    # The locus is that of the brightest; where the PSF varies others lie a little beside it.
    low = radii[locus].min() * (1 - _VARIATION)
    high = radii[locus].max() * (1 + _VARIATION)
    alike = [star for star in brightest if low <= star.radius_px <= high]
    # Of matrices this small threads make nothing faster, and on a busy machine each fit much slower.
    with threadpool_limits(limits=1, user_api="blas"):
        return _fitted(alike, shape_yx)


def _fitted(candidates: Sequence[StarCandidate], shape_yx: tuple[int, int]) -> list[FittedStar]:
    """Fit them in their order, until each region has its dozen."""
    taken: dict[tuple[int, int], int] = {}
    found = []
    for star in candidates:
        y, x = (int(at * _REGIONS / edge) for at, edge in zip(star.yx, shape_yx, strict=True))
        if taken.get((y, x), 0) >= _PER_REGION:
            continue
        # Further out there is little of a star, and much of its surroundings.
        wings = star.stamp.shape[0] // 4
        fit = fit_moffat(star.stamp[wings:-wings, wings:-wings])
        if fit is not None:
            shape, (centre_y, centre_x) = fit
            taken[y, x] = taken.get((y, x), 0) + 1
            centre = (centre_y + wings, centre_x + wings)
            found.append(FittedStar(star.yx, star.snr, shape, centre, star.stamp))
    return found


def measure_width(stars: Sequence[FittedStar]) -> PsfWidth | None:
    """Measure the PSF's width.

    Parameters
    ----------
    stars : sequence of FittedStar
        Of the whole image.

    Returns
    -------
    PsfWidth or None
        None where there are fewer than five, or they are not of one size.
    """
    widths = np.array([star.shape.fwhm_px for star in stars])
    if len(widths) < MIN_STARS:
        return None
    median, sigma = clipped_median_sigma(widths)
    if not 0 < median < np.inf or sigma > _MAX_SCATTER * median:
        return None
    return PsfWidth(median, sigma / median, len(widths))
