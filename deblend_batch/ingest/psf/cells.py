"""How a PSF varies over an image: kernels stacked from the stars of each cell, or their widths alone."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import map_coordinates, uniform_filter

from deblend_batch.field.psf.varying import CellGrid, FieldPsf, PsfKernels, even_grid, square_grid
from deblend_batch.field.sky.noise import MAD_TO_SIGMA, clipped_median_sigma
from deblend_batch.ingest.psf.moffat import FittedStar, Moffat
from deblend_batch.ingest.psf.stars import MIN_STARS

_FINEST = 4
_MIN_CELL_PX = 256
_MIN_COVERED = 0.75
"""Share of the cells of a grid that must have stars; the others have no pixels, or bad luck."""
_KERNEL_SNR = 200.0
"""Of all stars of a cell together: with less the wings are noise, and a width says as much."""
_OUTLIER_SIGMA = 3.0
_NOISE_MARGIN = 1.5
"""Nine pixels' power scatters by half of it, so that this leaves little of noise alone."""
_MIN_SPREAD = 0.02
_HALF_WIDTHS = 4.0
_HALF_RANGE = (5, 25)

Stars = Sequence[FittedStar]


@dataclass(frozen=True)
class MeasuredPsf:
    """The PSF of a field, measured.

    Parameters
    ----------
    psf : FieldPsf
        Kernels and widths; a band without stars has its stated width, and no kernels.
    n_stars : tuple of int
        How many stars of each band it is made of.
    """

    psf: FieldPsf
    n_stars: tuple[int, ...]

    def width_range_arcsec(self, band: int) -> tuple[float, float]:
        """Return the least and the largest width of a band."""
        widths = self.psf.fwhm_arcsec[band]
        return float(widths.min()), float(widths.max())


def measure_cells(
    bands: Sequence[Stars],
    shape_yx: tuple[int, int],
    fwhm_arcsec: Sequence[float],
    pixel_scale_arcsec: float,
) -> MeasuredPsf | None:
    """Measure the PSF in cells.

    The cells are the finest of 4, 3, 2 or 1 along the longer axis of the image of which nearly all hold five
    stars, in every band that has stars at all; kernels ask for stars that are bright enough together.

    Parameters
    ----------
    bands : sequence of sequence of FittedStar
        Stars of each band; a band whose PSF is known otherwise has none.
    shape_yx : tuple of int
        Rows and columns of the image.
    fwhm_arcsec : sequence of float
        Width of each band where stars say nothing.
    pixel_scale_arcsec : float
        Edge of a pixel.

    Returns
    -------
    MeasuredPsf or None
        None where no band has stars enough for one cell.
    """
    kept = [_of_one_size(stars) for stars in bands]
    starry = [stars for stars in kept if len(stars) >= MIN_STARS]
    if not starry:
        return None
    kernel_grid = next(
        (grid for grid in _square_grids(shape_yx) if _covers(grid, starry, _KERNEL_SNR)), None
    )
    width_grid = next(
        (grid for grid in _even_grids(shape_yx) if _covers(grid, starry, 0.0)),
        even_grid((1, 1), shape_yx),
    )
    stated = np.array(fwhm_arcsec, np.float32)[:, None, None]
    widths = np.stack([_widths(stars, width_grid) for stars in kept]) * pixel_scale_arcsec
    known: NDArray[np.float32] = np.where(np.isnan(widths), stated, widths).astype(np.float32)
    kernels = None if kernel_grid is None else _kernels(kept, kernel_grid)
    n_stars = tuple(len(stars) if len(stars) >= MIN_STARS else 0 for stars in kept)
    return MeasuredPsf(FieldPsf(width_grid, known, kernels), n_stars)


def _of_one_size(stars: Stars) -> Stars:
    """Leave out what is no star: its width is not that of others, but for a variation linear in position."""
    if len(stars) < MIN_STARS:
        return ()
    log_width = np.log([star.shape.fwhm_px for star in stars])
    place = np.array([star.yx for star in stars])
    offset = (place - place.mean(axis=0)) / (np.ptp(place, axis=0) + 1)
    terms = np.column_stack([np.ones(len(stars)), offset])
    inside = np.ones(len(stars), bool)
    for _ in range(5):
        if inside.sum() < MIN_STARS:
            return ()
        trend = np.linalg.lstsq(terms[inside], log_width[inside], rcond=None)[0]
        left = log_width - terms @ trend
        spread = max(clipped_median_sigma(left[inside])[1], _MIN_SPREAD)
        inside = np.abs(left) <= _OUTLIER_SIGMA * spread
    return [star for star, good in zip(stars, inside, strict=True) if good]


def _square_grids(shape_yx: tuple[int, int]) -> list[CellGrid]:
    edges = [math.ceil(max(shape_yx) / n) for n in range(_FINEST, 0, -1)]
    return [
        square_grid(edge, shape_yx) for edge in edges if edge >= _MIN_CELL_PX or edge == edges[-1]
    ]


def _even_grids(shape_yx: tuple[int, int]) -> list[CellGrid]:
    return [even_grid(grid.counts_yx, shape_yx) for grid in _square_grids(shape_yx)]


def _covers(grid: CellGrid, bands: Sequence[Stars], min_snr: float) -> bool:
    """Whether nearly all cells of each band hold five stars that are bright enough together."""
    return all(
        np.mean([_enough(stars, min_snr) for stars in _by_cell(band, grid).values()])
        >= _MIN_COVERED
        for band in bands
    )


def _enough(stars: Stars, min_snr: float) -> bool:
    return len(stars) >= MIN_STARS and math.hypot(*(star.snr for star in stars)) >= min_snr


def _by_cell(stars: Stars, grid: CellGrid) -> dict[tuple[int, int], list[FittedStar]]:
    found: dict[tuple[int, int], list[FittedStar]] = {
        (y, x): [] for y in range(grid.counts_yx[0]) for x in range(grid.counts_yx[1])
    }
    cells = grid.cells(np.array([star.yx for star in stars]).reshape(-1, 2))
    for star, (y, x) in zip(stars, cells.tolist(), strict=True):
        found[y, x].append(star)
    return found


def _widths(stars: Stars, grid: CellGrid) -> NDArray[np.float64]:
    """Median width of the stars of each cell, px; NaN where there are too few."""
    widths = np.full(grid.counts_yx, np.nan)
    for cell, here in _by_cell(stars, grid).items():
        if len(here) >= MIN_STARS:
            widths[cell] = _typical(here).fwhm_px
    return widths


def _kernels(bands: Sequence[Stars], grid: CellGrid) -> PsfKernels:
    widest = max(star.shape.fwhm_px for stars in bands for star in stars)
    half = int(np.clip(math.ceil(_HALF_WIDTHS * widest), *_HALF_RANGE))
    size = 2 * half + 1
    images = np.full((len(bands), *grid.counts_yx, size, size), np.nan, np.float32)
    for band, stars in enumerate(bands):
        for cell, here in _by_cell(stars, grid).items():
            if _enough(here, _KERNEL_SNR):
                images[band, *cell] = stack(here, half)
    return PsfKernels.of_cells(grid, images)


def stack(stars: Stars, half: int) -> NDArray[np.float64]:
    """Make one image of several stars of one PSF.

    It is the profile that is typical of them, and what it leaves of them in the median: the mean along each
    ring, and of the rest what stands out of its noise. No pixel of a star is moved by more than a smooth,
    small residual can bear.

    Parameters
    ----------
    stars : sequence of FittedStar
        At least five.
    half : int
        The image reaches so far from its middle pixel, px.

    Returns
    -------
    ndarray of float64, shape (2 half + 1, 2 half + 1)
        Unit sum, centred on the middle pixel.
    """
    shape = _typical(stars)
    dy, dx = np.indices((2 * half + 1, 2 * half + 1), np.float64) - half
    left = np.stack([_residual(star, shape, dy, dx) for star in stars])
    n_known = np.isfinite(left).sum(axis=0)
    left[:, n_known == 0] = 0.0
    median = np.nanmedian(left, axis=0)
    spread = MAD_TO_SIGMA * np.nanmedian(np.abs(left - median), axis=0)
    error = 1.25 * spread / np.sqrt(np.maximum(n_known, 1))
    # All pixels of a ring together have next to no noise; what differs along it has to stand out of its own.
    ring = np.round(np.hypot(dy, dx)).astype(int)
    even = (np.bincount(ring.ravel(), median.ravel()) / np.bincount(ring.ravel()))[ring]
    uneven = median - even
    # A running sum leaves rounding where there is nothing.
    power, noise = (np.maximum(uniform_filter(each**2, 3), 1e-20) for each in (uneven, error))
    trust = np.maximum(0, 1 - _NOISE_MARGIN * noise / power)
    image = shape.at(dy, dx) + even + trust * uneven
    return np.asarray(image / image.sum())


def _typical(stars: Stars) -> Moffat:
    """Return the profile with the median of each parameter; scale and slope would not be independent."""
    parameters = [
        (star.shape.fwhm_px, star.shape.beta, star.shape.g1, star.shape.g2) for star in stars
    ]
    return Moffat(*np.median(parameters, axis=0).tolist())


def _residual(
    star: FittedStar, shape: Moffat, dy: NDArray[np.float64], dx: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Return what a profile leaves of a star of flux 1, at offsets from its centre; 0 beyond its stamp.

    NaN where the star's pixels say nothing.
    """
    grid = np.indices(star.stamp.shape, np.float64)
    model = shape.at(grid[0] - star.centre_yx[0], grid[1] - star.centre_yx[1])
    pixels = star.stamp.astype(np.float64)
    known = np.isfinite(pixels)
    flux = (model * pixels)[known].sum() / (model[known] ** 2).sum()
    left = pixels / flux - model
    at = np.stack([dy + star.centre_yx[0], dx + star.centre_yx[1]])
    return np.asarray(map_coordinates(left, at, order=1, mode="constant"))
