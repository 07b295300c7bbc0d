"""The first pass over a band: its sky, its noise, its stars and, where nobody says, its PSF."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from deblend_batch.errors import FieldError
from deblend_batch.field.mask_bits import saturated_pixels
from deblend_batch.field.sky.background import BackgroundMesh, BackgroundSurface
from deblend_batch.field.sky.noise import sample_blocks
from deblend_batch.field.wcs.sky_grid import SkyGrid
from deblend_batch.ingest.bands import Band, plane_offset_px
from deblend_batch.ingest.checks import (
    Check,
    MaskedPeaks,
    compare_noise,
    compare_place,
    settle_width,
    stop_at,
)
from deblend_batch.ingest.header import headers
from deblend_batch.ingest.header.headers import Found
from deblend_batch.ingest.planes.halos import NO_HALOS, Halos, SaturatedCores
from deblend_batch.ingest.planes.noise_correlation import BlockSums
from deblend_batch.ingest.psf.from_files import FilePsf
from deblend_batch.ingest.psf.moffat import FittedStar
from deblend_batch.ingest.psf.stars import MIN_STARS, StarCandidate, star_candidates
from deblend_batch.ingest.psf.width import PsfWidth, fit_stars, measure_width

Background = Literal["auto", "keep", "subtract"]

_WINDOW_PX = 8192
_SAMPLE_PX = 1024
_SAMPLES = 16
_MAX_RATIO = 1.3
"""Of the stars' width to what the header says: what differs more are no stars."""


@dataclass(frozen=True)
class MeasuredBand:
    """A band after the first pass.

    Parameters
    ----------
    band : Band
        The open band, its padding found.
    level : float
        Median sky level, image units.
    level_scatter : float
        Robust scatter of the level over the image, image units.
    surface : BackgroundSurface, optional
        What to subtract; None where the background is kept.
    noise_sigma : float
        Background rms per pixel, image units; 0 for an image without noise.
    plane_sigma : float, optional
        Median of the noise plane as an rms; None without one.
    psf_fwhm_arcsec : Found
        From an option, the header, or stars.
    saturate : Found, optional
        Pixel value from which the field's pixels are saturated, image units.
    noise_correlation : float, optional
        Noise of sums over many pixels, over that of independent ones; None where there is too little sky.
    stars : tuple of FittedStar
        Those that show the PSF; none where an option says what it is, or they are no stars.
    checks : tuple of Check
        What the file says against what the image shows.
    n_bad : int
        Pixels that are bad.
    halos : Halos
        Of saturated stars, where the file tells which pixels are.
    """

    band: Band
    level: float
    level_scatter: float
    surface: BackgroundSurface | None
    noise_sigma: float
    plane_sigma: float | None
    psf_fwhm_arcsec: Found
    saturate: Found | None
    noise_correlation: float | None
    stars: tuple[FittedStar, ...]
    checks: tuple[Check, ...] = ()
    n_bad: int = 0
    halos: Halos = NO_HALOS


def measure_band(
    band: Band, background: Background, meant: Collection[str], step: Callable[[], None]
) -> MeasuredBand:
    """Read a band once, window by window, and measure it; stop where what it says cannot be."""
    band = band.with_pixels_sampled()
    mesh = BackgroundMesh(band.shape_yx)
    plane_levels, n_bad = [], 0
    saturation = _scaled(headers.saturation(band.image.headers), band.factor)
    limit = None if saturation is None else saturation.value
    cores = SaturatedCores(band.shape_yx)
    for rows, columns in mesh.windows(_WINDOW_PX):
        window = band.read(rows, columns)
        mesh.add(rows, columns, window.good_pixels())
        n_bad += window.count_bad()
        saturated = saturated_pixels(window.image, limit, window.mask, band.mask_bits)
        cores.add(saturated, rows, columns)
        if window.variance is not None:
            sample = window.variance[::4, ::4]
            plane_levels.append(
                float(np.median(sample[sample > 0])) if (sample > 0).any() else np.nan
            )
        step()
    good = np.isfinite(mesh.level)
    if not good.any():
        raise FieldError(
            f"{band.image.label}: hardly a good pixel in it (NaN, masked or without weight); "
            "check the image and its noise and mask planes"
        )
    subtract = background == "subtract" or (background == "auto" and mesh.is_significant)
    level = float(np.median(mesh.level[good]))
    surface = mesh.surface()
    correlation, candidates, peaks = _sample(band, surface, _lowered(saturation, level))
    noise_sigma = float(np.nan_to_num(mesh.noise_sigma))
    plane_sigma = float(np.nanmedian(plane_levels)) ** 0.5 if plane_levels else None
    planes = _plane_checks(band, plane_sigma, noise_sigma, peaks)
    stop_at(planes, meant, band.image.label)  # a wrong mask may hide the stars
    fwhm, stars, psf_check = _psf(band, candidates)
    checks = planes if psf_check is None else (psf_check, *planes)
    stop_at(checks, meant, band.image.label)
    return MeasuredBand(
        band=band,
        level=level,
        level_scatter=mesh.scatter,
        surface=surface if subtract else None,
        noise_sigma=noise_sigma,
        plane_sigma=plane_sigma,
        psf_fwhm_arcsec=fwhm,
        saturate=_lowered(saturation, level if subtract else 0.0),
        noise_correlation=correlation,
        stars=tuple(stars),
        checks=checks,
        n_bad=n_bad,
        halos=NO_HALOS if limit is None else cores.halos(limit - level, noise_sigma),
    )


def _plane_checks(
    band: Band, plane_sigma: float | None, noise_sigma: float, peaks: MaskedPeaks
) -> tuple[Check, ...]:
    """Compare the noise plane and the mask with the image."""
    bits = band.mask_bits
    noise, mask = (None if each is None else each.plane for each in (band.noise, band.mask))
    found = [
        None
        if noise is None
        else compare_place("noise", noise.label, plane_offset_px(band, noise)),
        None if mask is None else compare_place("mask", mask.label, plane_offset_px(band, mask)),
        compare_noise(plane_sigma, noise_sigma, band.noise.kind) if band.noise else None,
        peaks.check(dict(bits.bits), bits.bad) if bits else peaks.check(None, ()),
    ]
    return tuple(check for check in found if check is not None)


def measure_steps(band: Band) -> int:
    """Return how often :func:`measure_band` will call ``step``."""
    return sum(1 for _ in BackgroundMesh(band.shape_yx).windows(_WINDOW_PX))


def _sample(
    band: Band, surface: BackgroundSurface, saturation: Found | None
) -> tuple[float | None, list[StarCandidate], MaskedPeaks]:
    """Read some windows at full resolution: the noise's correlation, what could be stars, masked peaks."""
    height, width = band.shape_yx
    limit = np.inf if saturation is None else saturation.value
    sums, peaks = BlockSums(), MaskedPeaks()
    candidates: list[StarCandidate] = []
    for block_rows, block_columns in sample_blocks(band.shape_yx, _SAMPLE_PX, _SAMPLES):
        rows = slice(block_rows.start, min(block_rows.stop, height))
        columns = slice(block_columns.start, min(block_columns.stop, width))
        window = band.read(rows, columns)
        surface.subtract_from(window.image, rows, columns)
        pixels = window.good_pixels()
        sums.add(pixels, window.variance)
        if band.mask is not None:
            peaks.add(window, window.observed_pixels())
        candidates += star_candidates(pixels, limit, (rows.start, columns.start))
    return sums.ratio(), candidates, peaks


def _psf(
    band: Band, candidates: Sequence[StarCandidate]
) -> tuple[Found, Sequence[FittedStar], Check | None]:
    """Return the PSF's width, the stars that show more of it, and whether they agree with the header."""
    stars = fit_stars(candidates, band.shape_yx)
    grid = SkyGrid.from_cards(band.wcs_cards, band.shape_yx, band.image.label)
    width = measure_width(stars)
    scale = grid.pixel_scale_arcsec()
    if band.psf_fwhm_arcsec is not None:
        by_card = band.psf is None
        said, check = settle_width(band.psf_fwhm_arcsec, width, scale, by_card=by_card)
        known = said.source == "option" or isinstance(band.psf, FilePsf)
        shown = not known and _agrees(width, said.value / scale)
        return said, stars if shown else (), check
    if width is None:
        raise FieldError(
            f"{band.image.label}: no PSF width in its header, and fewer than {MIN_STARS} stars of one "
            "size to measure it from; give --psf-fwhm ARCSEC"
        )
    return Found(width.fwhm_px * scale, f"measured from {width.stars} stars"), stars, None


def _agrees(width: PsfWidth | None, said_px: float) -> bool:
    return width is not None and 1 / _MAX_RATIO < width.fwhm_px / said_px < _MAX_RATIO


def _scaled(saturation: Found | None, factor: float) -> Found | None:
    return None if saturation is None else Found(saturation.value * factor, saturation.source)


def _lowered(saturation: Found | None, by: float) -> Found | None:
    """Return the level for pixels whose background was subtracted."""
    if saturation is None or saturation.value <= by:
        return None
    return Found(saturation.value - by, saturation.source)
