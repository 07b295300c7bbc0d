"""A PSF by cells that a file brings with it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from deblend_batch.errors import FieldError
from deblend_batch.field.psf import FieldPsf, PsfKernels, even_grid, square_grid
from deblend_batch.ingest.moffat import fit_moffat

_HALF_RANGE = 127


@dataclass(frozen=True)
class FilePsf:
    """Kernels of one band.

    Parameters
    ----------
    cell_px : int
        Edge of a cell; the first begins at the image's first pixel.
    images : ndarray of float32, shape (cell_y, cell_x, y, x)
        Unit sum, odd size, the centre on the middle pixel; NaN throughout where a cell has none.
    fwhm_px : ndarray of float64, shape (cell_y, cell_x)
        Full width at half maximum; NaN where a cell has no kernel.
    """

    cell_px: int
    images: NDArray[np.float32]
    fwhm_px: NDArray[np.float64]

    @classmethod
    def of_cells(cls, images: NDArray[np.float64], cell_px: int) -> FilePsf:
        """Take kernels of any positive sum; what is none counts as missing."""
        edge = images.shape[-1]
        if images.shape[-2] != edge or edge % 2 == 0:
            raise FieldError(
                f"the file's PSF has kernels of {images.shape[-2]} x {edge} px; they must be square and odd"
            )
        half = edge // 2
        cut = max(0, half - _HALF_RANGE)
        kernels = images[..., cut : edge - cut, cut : edge - cut]
        total = kernels.sum(axis=(-2, -1))
        known = np.isfinite(total) & (total > 0)
        with np.errstate(invalid="ignore", divide="ignore"):
            unit = np.where(known[..., None, None], kernels / total[..., None, None], np.nan)
        widths = np.full(known.shape, np.nan)
        for y, x in np.argwhere(known).tolist():
            fit = fit_moffat(unit[y, x])
            widths[y, x] = np.nan if fit is None else fit[0].fwhm_px
        return cls(cell_px, unit.astype(np.float32), widths)

    @property
    def typical_fwhm_px(self) -> float | None:
        """Median width; None where no cell has one."""
        known = self.fwhm_px[np.isfinite(self.fwhm_px)]
        return float(np.median(known)) if known.size else None


def field_psf(
    bands: Sequence[FilePsf | None],
    shape_yx: tuple[int, int],
    fwhm_arcsec: Sequence[float],
    pixel_scale_arcsec: float,
) -> FieldPsf | None:
    """Put together what the files of a field's bands bring.

    Parameters
    ----------
    bands : sequence of FilePsf or None
        Of each band.
    shape_yx : tuple of int
        Rows and columns of the image.
    fwhm_arcsec : sequence of float
        Width of each band where its file says nothing.
    pixel_scale_arcsec : float
        Edge of a pixel.

    Returns
    -------
    FieldPsf or None
        None where no file brings any; a band of which none is known has its width alone.
    """
    given = [psf for psf in bands if psf is not None]
    if not given:
        return None
    if len({psf.cell_px for psf in given}) > 1:
        raise FieldError(
            "the bands' files have PSF cells of different sizes; ingest them as fields of their own"
        )
    grid = square_grid(given[0].cell_px, shape_yx)
    edge = max(psf.images.shape[-1] for psf in given)
    images = np.full((len(bands), *grid.counts_yx, edge, edge), np.nan, np.float32)
    widths = np.empty((len(bands), *grid.counts_yx), np.float32)
    for number, (psf, fwhm) in enumerate(zip(bands, fwhm_arcsec, strict=True)):
        widths[number] = fwhm
        if psf is not None:
            rim = (edge - psf.images.shape[-1]) // 2
            known = np.isfinite(psf.images[..., :1, :1])
            padded = np.pad(np.nan_to_num(psf.images), [(0, 0)] * 2 + [(rim, rim)] * 2)
            images[number] = np.where(known, padded, np.nan)
            measured = psf.fwhm_px * pixel_scale_arcsec
            widths[number] = np.where(np.isfinite(measured), measured, fwhm)
    kernels = PsfKernels.of_cells(grid, images)
    return FieldPsf(even_grid(grid.counts_yx, shape_yx), widths, kernels)
