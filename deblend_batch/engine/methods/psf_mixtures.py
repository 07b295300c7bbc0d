"""The PSF of a field as sums of Gaussians, fitted to each cell, or width, once, when it is first met."""

from __future__ import annotations

import math
import threading
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from deblend_batch.field.layout import Field
from deblend_batch.models.profile_fit.light.psf import (
    COMPONENTS,
    DIFFRACTION_COMPONENTS,
    KernelKind,
    PsfMixture,
    PsfStack,
    psf_from_kernel,
    psf_of_width,
)
from deblend_batch.tiling.blends import Blends

_MOST_RESIDUAL = 0.03
_STEP = 0.004  # of the logarithm of a width: no flux changes by more than 0.2 %
_WIDTHS_PX = (0.5, 64.0)

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
    error : ndarray of float64, shape (n, band)
        Share of a point source's light that may be in the wrong place.
    fwhm_px : ndarray of float64, shape (n, band)
        Full width at half maximum.
    is_uncertain : ndarray of bool, shape (n, band)
        Whether the place has no kernel of its own, or one that the Gaussians do not describe well.
    """

    weight: NDArray[np.float64]
    covariance: NDArray[np.float64]
    error: NDArray[np.float64]
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
    _of_cells: dict[Cell, PsfMixture] = field(default_factory=dict)
    _of_widths: dict[tuple[KernelKind, float], PsfMixture] = field(default_factory=dict)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def at(self, blends: Blends) -> PsfAt:
        """Return the PSF of each blend: of its cell, or of the width that its central came with.

        A field's kernels say more than a width, and stand.
        """
        psf, yx, scale = self.of.psf, blends.centre_yx, self.of.pixel_scale_arcsec
        cells = psf.finest.cells(yx)
        fwhm_px = np.asarray(psf.fwhm_at(yx), np.float64) / scale
        own = np.zeros(fwhm_px.shape, bool)
        if psf.kernels is None:
            own = np.broadcast_to(np.isfinite(blends.psf_fwhm_arcsec), fwhm_px.shape)
            fwhm_px = np.where(own, blends.psf_fwhm_arcsec / scale, fwhm_px)
        mixtures = [
            [
                self._of_width(band, width) if is_own else self._of_cell((band, int(y), int(x)))
                for band, (width, is_own) in enumerate(zip(widths, owns, strict=True))
            ]
            for widths, owns, (y, x) in zip(fwhm_px.tolist(), own.tolist(), cells, strict=True)
        ]
        residual = np.array([[each.residual for each in row] for row in mixtures])
        uncertain = residual.reshape(fwhm_px.shape) > _MOST_RESIDUAL
        if psf.kernels is not None:
            uncertain |= ~psf.kernels.is_known[:, cells[:, 0], cells[:, 1]].T
        stack = PsfStack.of(mixtures, self._components)
        return PsfAt(
            stack.weight.numpy(),
            stack.covariance.numpy(),
            stack.error.numpy(),
            fwhm_px,
            uncertain,
        )

    @property
    def _components(self) -> int:
        """Gaussians of every place of the field: what is fitted together has as many."""
        some = any(self.of.is_from_space(band) for band in range(self.of.n_bands))
        return DIFFRACTION_COMPONENTS if some else COMPONENTS

    def _of_cell(self, cell: Cell) -> PsfMixture:
        with self._lock:  # of two threads that need a cell the second finds it done
            if cell not in self._of_cells:
                self._of_cells[cell] = self._fitted(cell)
            return self._of_cells[cell]

    def _of_width(self, band: int, fwhm_px: float) -> PsfMixture:
        """Return the mixture of the nearest of a series of widths: each source may have its own."""
        step = round(math.log(min(max(fwhm_px, _WIDTHS_PX[0]), _WIDTHS_PX[1])) / _STEP)
        width = math.exp(step * _STEP)
        known = (self._kind(band), width)
        with self._lock:
            if known not in self._of_widths:
                self._of_widths[known] = psf_of_width(width, known[0])
            return self._of_widths[known]

    def _kind(self, band: int) -> KernelKind:
        return "diffraction" if self.of.is_from_space(band) else "seeing"

    def _fitted(self, cell: Cell) -> PsfMixture:
        band, y, x = cell
        known = self.of.psf.of_cell(band, (y, x))
        if isinstance(known, float):
            return psf_of_width(known / self.of.pixel_scale_arcsec, self._kind(band))
        return psf_from_kernel(known, self._kind(band))
