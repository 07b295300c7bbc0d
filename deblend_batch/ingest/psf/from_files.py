"""A PSF by cells that files bring: kernels, or widths."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import map_coordinates

from deblend_batch.errors import FieldError
from deblend_batch.field.psf.varying import CellGrid, FieldPsf, PsfKernels, even_grid, square_grid

_HALF_RANGE = 127
_UNIT_SUM = 0.01
_FINE_PX = 200
_FINEST = 16


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
    source : str
        What they are made of, for the summary.
    notes : tuple of str
        What was done to them.
    """

    cell_px: int
    images: NDArray[np.float32]
    fwhm_px: NDArray[np.float64]
    source: str
    notes: tuple[str, ...] = ()

    @classmethod
    def of_cells(
        cls, images: NDArray[np.float64], cell_px: int, source: str, where: str
    ) -> FilePsf:
        """Take kernels of any positive sum; what is none counts as missing."""
        edge = images.shape[-1]
        if images.shape[-2] != edge or edge % 2 == 0:
            raise FieldError(
                f"{where}: has kernels of {images.shape[-2]} x {edge} px; they must be square, their edge "
                "odd, so that the PSF's centre is that of a pixel"
            )
        half = edge // 2
        cut = max(0, half - _HALF_RANGE)
        kernels = images[..., cut : edge - cut, cut : edge - cut]
        total = kernels.sum(axis=(-2, -1))
        known = np.isfinite(total) & (total > 0)
        if not known.any():
            raise FieldError(f"{where}: holds no kernel of a positive sum; give --psf-fwhm ARCSEC")
        with np.errstate(invalid="ignore", divide="ignore"):
            unit = np.where(known[..., None, None], kernels / total[..., None, None], np.nan)
        widths = np.full(known.shape, np.nan)
        for y, x in np.argwhere(known).tolist():
            widths[y, x] = kernel_fwhm(unit[y, x])
        height, width = known.shape
        source += f", {height} x {width} cells" if known.size > 1 else ""
        return cls(cell_px, unit.astype(np.float32), widths, source, _sums(total[known]))

    @property
    def typical_fwhm_px(self) -> float | None:
        """Median width; None where no cell has one."""
        return _median(self.fwhm_px)


def kernel_fwhm(image: NDArray[np.float64]) -> float:
    """Return the full width at half maximum of a kernel without noise: that of a disk of as large an area.

    Parameters
    ----------
    image : ndarray of float64, shape (y, x)
        The kernel.

    Returns
    -------
    float
        Pixels of the kernel.
    """
    high = np.argwhere(image > image.max() / 10)
    (top, left), (bottom, right) = high.min(axis=0), high.max(axis=0)
    rim = 2  # so that the spline's ends are in the wings
    core = image[max(top - rim, 0) : bottom + rim + 1, max(left - rim, 0) : right + rim + 1]
    finer = int(np.clip(_FINE_PX // max(core.shape), 1, _FINEST))
    steps = [np.arange(0, edge - 1 + 1e-9, 1 / finer) for edge in core.shape]
    fine = map_coordinates(core, np.meshgrid(*steps, indexing="ij"), order=3, mode="nearest")
    area = float((fine > fine.max() / 2).sum()) / finer**2
    return 2 * math.sqrt(area / math.pi)


@dataclass(frozen=True)
class WidthMap:
    """Widths of one band, in cells that divide the image evenly.

    Parameters
    ----------
    fwhm_px : ndarray of float64, shape (cell_y, cell_x)
        Full width at half maximum; NaN where it is not known.
    source : str
        Where they come from, for the summary.
    notes : tuple of str
        What is to be said of them.
    """

    fwhm_px: NDArray[np.float64]
    source: str
    notes: tuple[str, ...] = ()

    @property
    def typical_fwhm_px(self) -> float | None:
        """Median width; None where none is known."""
        return _median(self.fwhm_px)


def _median(widths: NDArray[np.float64]) -> float | None:
    known = widths[np.isfinite(widths)]
    return float(np.median(known)) if known.size else None


def _sums(totals: NDArray[np.float64]) -> tuple[str, ...]:
    """Say that kernels were made to sum to 1, where they did not."""
    worst = float(totals[np.abs(np.log(totals)).argmax()])
    if abs(worst - 1) <= _UNIT_SUM:
        return ()
    return (f"kernels of the PSF sum to as much as {worst:.4g}: scaled to 1",)


def field_psf(
    bands: Sequence[FilePsf | WidthMap | None],
    measured: FieldPsf | None,
    shape_yx: tuple[int, int],
    fwhm_arcsec: Sequence[float],
    pixel_scale_arcsec: float,
) -> FieldPsf | None:
    """Put together what the files of a field's bands bring, and what stars show.

    Parameters
    ----------
    bands : sequence of FilePsf, WidthMap or None
        Of each band.
    measured : FieldPsf, optional
        Made of stars; its kernels count where files bring widths alone.
    shape_yx : tuple of int
        Rows and columns of the image.
    fwhm_arcsec : sequence of float
        Width of each band where its file says nothing.
    pixel_scale_arcsec : float
        Edge of a pixel.

    Returns
    -------
    FieldPsf or None
        What was measured where no file brings any; a band of which none is known has its width alone.
    """
    kernels = _kernels(bands, shape_yx)
    maps = [psf for psf in bands if isinstance(psf, WidthMap)]
    if kernels is None and not maps:
        return measured
    grid = even_grid(maps[0].fwhm_px.shape, shape_yx) if maps else None
    if grid is None and kernels is not None:
        grid = even_grid(kernels.grid.counts_yx, shape_yx)
    assert grid is not None
    widths = np.empty((len(bands), *grid.counts_yx), np.float32)
    for number, (psf, fwhm) in enumerate(zip(bands, fwhm_arcsec, strict=True)):
        widths[number] = fwhm
        if psf is not None:
            known = _at_cells(psf, grid, shape_yx) * pixel_scale_arcsec
            widths[number] = np.where(np.isfinite(known), known, fwhm)
    if kernels is None and measured is not None:
        kernels = measured.kernels
    return FieldPsf(grid, widths, kernels)


def _kernels(
    bands: Sequence[FilePsf | WidthMap | None], shape_yx: tuple[int, int]
) -> PsfKernels | None:
    given = [psf for psf in bands if isinstance(psf, FilePsf)]
    if not given:
        return None
    if len({psf.cell_px for psf in given}) > 1:
        raise FieldError(
            "the bands' files have PSF cells of different sizes; ingest them as fields of their own"
        )
    grid = square_grid(given[0].cell_px, shape_yx)
    edge = max(psf.images.shape[-1] for psf in given)
    images = np.full((len(bands), *grid.counts_yx, edge, edge), np.nan, np.float32)
    for number, psf in enumerate(bands):
        if isinstance(psf, FilePsf):
            rim = (edge - psf.images.shape[-1]) // 2
            known = np.isfinite(psf.images[..., :1, :1])
            padded = np.pad(np.nan_to_num(psf.images), [(0, 0)] * 2 + [(rim, rim)] * 2)
            images[number] = np.where(known, padded, np.nan)
    return PsfKernels.of_cells(grid, images)


def _at_cells(
    psf: FilePsf | WidthMap, grid: CellGrid, shape_yx: tuple[int, int]
) -> NDArray[np.float64]:
    """Return a band's widths, px, at the middles of cells."""
    if psf.fwhm_px.shape == grid.counts_yx:
        return psf.fwhm_px
    own = (
        square_grid(psf.cell_px, shape_yx)
        if isinstance(psf, FilePsf)
        else even_grid(psf.fwhm_px.shape, shape_yx)
    )
    number = np.indices(grid.counts_yx, np.float64).reshape(2, -1).T
    y, x = own.cells((number + 0.5) * np.array(grid.edge_yx) - 0.5).T
    return np.asarray(psf.fwhm_px[y, x].reshape(grid.counts_yx))
