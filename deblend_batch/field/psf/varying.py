"""The point spread function of a field, which may vary: by cells, as kernels or as widths."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import distance_transform_edt


@dataclass(frozen=True)
class CellGrid:
    """Cells that cover an image once.

    Parameters
    ----------
    counts_yx : tuple of int
        Number of cells along y and x.
    edge_yx : tuple of float
        Height and width of a cell, px; the last ones may reach over the image.
    """

    counts_yx: tuple[int, int]
    edge_yx: tuple[float, float]

    def bounds(self, cell_yx: tuple[int, int]) -> tuple[tuple[int, int], tuple[int, int]]:
        """Return the pixels of a cell: first row and column, and those after the last."""
        ends = [
            [int(np.ceil(number * edge - 1e-9)), int(np.ceil((number + 1) * edge - 1e-9))]
            for number, edge in zip(cell_yx, self.edge_yx, strict=True)
        ]
        (y0, y1), (x0, x1) = ends
        return (y0, x0), (y1, x1)

    def cells(self, yx: NDArray[np.float64]) -> NDArray[np.int64]:
        """Find the cell of each position.

        Parameters
        ----------
        yx : ndarray of float64, shape (n, 2)
            Pixel positions (y, x), finite; a pixel reaches half a pixel round its centre. Those outside
            the image belong to the nearest cell.

        Returns
        -------
        ndarray of int64, shape (n, 2)
            Cell (y, x).
        """
        cell = np.floor((yx + 0.5) / np.array(self.edge_yx))
        return np.asarray(np.clip(cell, 0, np.array(self.counts_yx) - 1), np.int64)


@dataclass(frozen=True)
class PsfKernels:
    """Images of the PSF, one a band and cell.

    Parameters
    ----------
    grid : CellGrid
        The cells.
    images : ndarray of float32, shape (band, cell_y, cell_x, y, x)
        Unit sum, the pixel included, the PSF's centre on the middle pixel. Where a cell has none, that of
        the nearest cell of its band; NaN in a band that has none at all.
    is_known : ndarray of bool, shape (band, cell_y, cell_x)
        Whether the cell has one of its own.
    """

    grid: CellGrid
    images: NDArray[np.float32]
    is_known: NDArray[np.bool_]

    @classmethod
    def of_cells(cls, grid: CellGrid, images: NDArray[np.float32]) -> PsfKernels:
        """Take the images of cells, NaN throughout where a cell has none."""
        is_known = np.isfinite(images[..., 0, 0])
        filled = images.copy()
        for band, known in enumerate(is_known):
            if known.any() and not known.all():
                y, x = distance_transform_edt(~known, return_distances=False, return_indices=True)
                filled[band] = images[band, y, x]
        return cls(grid, filled, is_known)

    def at(self, yx: NDArray[np.float64]) -> NDArray[np.float32]:
        """Return the kernels at positions.

        Parameters
        ----------
        yx : ndarray of float64, shape (n, 2)
            Pixel positions (y, x), finite.

        Returns
        -------
        ndarray of float32, shape (n, band, y, x)
            Kernels of the cells that hold them.
        """
        cell = self.grid.cells(yx)
        return np.moveaxis(self.images[:, cell[:, 0], cell[:, 1]], 0, 1)


@dataclass(frozen=True)
class FieldPsf:
    """What is known of a field's PSF.

    Parameters
    ----------
    grid : CellGrid
        Cells of ``fwhm_arcsec``.
    fwhm_arcsec : ndarray of float32, shape (band, cell_y, cell_x)
        Full width at half maximum, known everywhere.
    kernels : PsfKernels, optional
        None where the field has only widths.
    """

    grid: CellGrid
    fwhm_arcsec: NDArray[np.float32]
    kernels: PsfKernels | None = None

    @property
    def finest(self) -> CellGrid:
        """Cells of what says most of the PSF: of the kernels where there are any, else of the widths."""
        return self.grid if self.kernels is None else self.kernels.grid

    def of_cell(self, band: int, cell_yx: tuple[int, int]) -> NDArray[np.float32] | float:
        """Return what is known of the PSF in a cell of :attr:`finest`.

        A cell without a kernel has that of the nearest cell of its band (:meth:`PsfKernels.of_cells`). A
        band without any has widths alone, and the one at the cell's middle is taken: a PSF that varies is
        most like itself nearby, which neither a median nor another cell's width knows.

        Parameters
        ----------
        band : int
            Number of the band.
        cell_yx : tuple of int
            The cell.

        Returns
        -------
        ndarray of float32, shape (y, x), or float
            A kernel, of unit sum, the pixel included; or the full width at half maximum, arcsec.
        """
        if self.kernels is not None:
            kernel: NDArray[np.float32] = self.kernels.images[(band, *cell_yx)]
            if np.isfinite(kernel).all():
                return kernel
        first, stop = self.finest.bounds(cell_yx)
        middle = (np.array(first, np.float64) + np.array(stop) - 1) / 2
        y, x = self.grid.cells(middle[None])[0]
        return float(self.fwhm_arcsec[band, y, x])

    def digest(self) -> str:
        """Return the sha256, hexadecimal, of all that is known."""
        content = hashlib.sha256(repr(self.grid).encode())
        content.update(np.ascontiguousarray(self.fwhm_arcsec).data)
        if self.kernels is not None:
            content.update(repr(self.kernels.grid).encode())
            content.update(np.ascontiguousarray(self.kernels.images).data)
            content.update(np.ascontiguousarray(self.kernels.is_known).data)
        return content.hexdigest()

    def fwhm_at(self, yx: NDArray[np.float64]) -> NDArray[np.float32]:
        """Return the widths at positions.

        Parameters
        ----------
        yx : ndarray of float64, shape (n, 2)
            Pixel positions (y, x), finite.

        Returns
        -------
        ndarray of float32, shape (n, band)
            Full width at half maximum, arcsec.
        """
        cell = self.grid.cells(yx)
        return self.fwhm_arcsec[:, cell[:, 0], cell[:, 1]].T


def even_grid(counts_yx: tuple[int, int], shape_yx: tuple[int, int]) -> CellGrid:
    """Return cells of equal size that end where the image does."""
    height, width = (edge / n for edge, n in zip(shape_yx, counts_yx, strict=True))
    return CellGrid(counts_yx, (height, width))


def square_grid(cell_px: float, shape_yx: tuple[int, int]) -> CellGrid:
    """Return square cells from the first pixel on, as many as it takes."""
    height, width = (max(1, int(np.ceil(edge / cell_px))) for edge in shape_yx)
    return CellGrid((height, width), (cell_px, cell_px))
