"""The first pass over a band: its sky, its noise and, where nobody says, its PSF."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from deblend_batch.errors import FieldError
from deblend_batch.field.noise import sample_blocks
from deblend_batch.field.wcs import SkyGrid
from deblend_batch.ingest import headers
from deblend_batch.ingest.background import BackgroundMesh, BackgroundSurface
from deblend_batch.ingest.bands import Band
from deblend_batch.ingest.headers import Found
from deblend_batch.ingest.psf import MIN_STARS, measure_fwhm

Background = Literal["auto", "keep", "subtract"]

_WINDOW_PX = 8192
_PSF_BLOCK_PX = 1024
_PSF_BLOCKS = 16


@dataclass(frozen=True)
class MeasuredBand:
    """A band after the first pass.

    Parameters
    ----------
    band : Band
        The open band, its padding found.
    level : float
        Median sky level, image units.
    surface : BackgroundSurface, optional
        What to subtract; None where the background is kept.
    noise_sigma : float
        Background rms per pixel, image units; 0 for an image without noise.
    plane_sigma : float, optional
        Median of the noise plane as an rms; None without one.
    psf_fwhm_arcsec : Found
        From an option, the header, or stars.
    """

    band: Band
    level: float
    surface: BackgroundSurface | None
    noise_sigma: float
    plane_sigma: float | None
    psf_fwhm_arcsec: Found


def measure_band(band: Band, background: Background, step: Callable[[], None]) -> MeasuredBand:
    """Read a band once, window by window, and measure it."""
    band = band.with_padding_found()
    mesh = BackgroundMesh(band.shape_yx)
    plane_levels = []
    for rows, columns in mesh.windows(_WINDOW_PX):
        window = band.read(rows, columns)
        mesh.add(rows, columns, window.good_pixels())
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
    return MeasuredBand(
        band=band,
        level=float(np.median(mesh.level[good])),
        surface=mesh.surface() if subtract else None,
        noise_sigma=float(np.nan_to_num(mesh.noise_sigma)),
        plane_sigma=float(np.nanmedian(plane_levels)) ** 0.5 if plane_levels else None,
        psf_fwhm_arcsec=band.psf_fwhm_arcsec or _measured_psf(band),
    )


def measure_steps(band: Band) -> int:
    """Return how often :func:`measure_band` will call ``step``."""
    return sum(1 for _ in BackgroundMesh(band.shape_yx).windows(_WINDOW_PX))


def _measured_psf(band: Band) -> Found:
    saturation = headers.saturation(band.image.headers)
    width = measure_fwhm(_sample(band), saturation)
    if width is None:
        raise FieldError(
            f"{band.image.label}: no PSF width in its header, and fewer than {MIN_STARS} stars of one "
            "size to measure it from; give --psf-fwhm ARCSEC"
        )
    grid = SkyGrid.from_cards(band.wcs_cards, band.shape_yx, band.image.label)
    arcsec = width.fwhm_px * grid.pixel_scale_arcsec()
    return Found(arcsec, f"measured from {width.stars} stars")


def _sample(band: Band) -> Iterator[NDArray[np.float32]]:
    height, width = band.shape_yx
    for rows, columns in sample_blocks(band.shape_yx, _PSF_BLOCK_PX, _PSF_BLOCKS):
        inside = (
            slice(rows.start, min(rows.stop, height)),
            slice(columns.start, min(columns.stop, width)),
        )
        yield band.read(*inside).good_pixels()
