"""The PSF of a field as sums of Gaussians, fitted to each cell once, when it is first met."""

from __future__ import annotations

import threading
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from deblend_batch.field.layout import Field
from deblend_batch.models.profile_fit.psf import PsfMixture, psf_from_kernel, psf_of_width

_MOST_RESIDUAL = 0.03

Cell = tuple[int, int, int]


@dataclass(frozen=True)
class PsfAt:
    """The PSF at n places, in every band.

    Parameters
    ----------
    weight : ndarray of float64, shape (n, band, component)
        Of each Gaussian.
    covariance : ndarray of float64, shape (n, band, component, 3)
        xx, xy, yy, square pixels, the pixel included.
    fwhm_px : ndarray of float64, shape (n, band)
        Full width at half maximum.
    is_uncertain : ndarray of bool, shape (n, band)
        Whether the place has no kernel of its own, or one that the Gaussians do not describe well.
    """

    weight: NDArray[np.float64]
    covariance: NDArray[np.float64]
    fwhm_px: NDArray[np.float64]
    is_uncertain: NDArray[np.bool_]


@dataclass
class PsfMixtures:
    """The mixtures of a field.

    Parameters
    ----------
    of : Field
        The field.
    """

    of: Field
    _known: dict[Cell, PsfMixture] = field(default_factory=dict)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def at(self, yx: NDArray[np.float64]) -> PsfAt:
        """Return the PSF at positions (n, 2) in the field, px."""
        psf, bands = self.of.psf, self.of.n_bands
        grid = psf.grid if psf.kernels is None else psf.kernels.grid
        cells = grid.cells(yx)
        mixtures = [
            [self._mixture((band, int(y), int(x))) for band in range(bands)] for y, x in cells
        ]
        shape = (len(yx), bands)
        residual = np.array([[each.residual for each in row] for row in mixtures]).reshape(shape)
        uncertain = residual > _MOST_RESIDUAL
        if psf.kernels is not None:
            uncertain |= ~psf.kernels.is_known[:, cells[:, 0], cells[:, 1]].T
        return PsfAt(
            np.array([[each.weight for each in row] for row in mixtures]),
            np.array([[each.covariance for each in row] for row in mixtures]),
            np.asarray(psf.fwhm_at(yx), np.float64) / self.of.pixel_scale_arcsec,
            uncertain,
        )

    def _mixture(self, cell: Cell) -> PsfMixture:
        with self._lock:  # of two threads that need a cell the second finds it done
            if cell not in self._known:
                self._known[cell] = self._fitted(cell)
            return self._known[cell]

    def _fitted(self, cell: Cell) -> PsfMixture:
        psf = self.of.psf
        if psf.kernels is not None and np.isfinite(psf.kernels.images[cell]).all():
            return psf_from_kernel(psf.kernels.images[cell])
        band, y, x = cell if psf.kernels is None else (cell[0], 0, 0)
        scale = self.of.pixel_scale_arcsec
        return psf_of_width(float(psf.fwhm_arcsec[band, y, x]) / scale, scale)
