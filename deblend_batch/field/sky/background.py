"""The smooth background of an image: a coarse mesh of sky levels and the surface through it.

The mesh is measured once for the whole image, so that what is subtracted from a pixel does not depend on
the window it is read in. Method of SExtractor (Bertin & Arnouts 1996, doi:10.1051/aas:1996164), but that
sources are masked before a cell's level is taken.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import distance_transform_edt, median_filter

from deblend_batch.field.sky.level import OFFSET_ERRORS, OFFSET_SIGMA, measure_sky
from deblend_batch.field.sky.noise import MAD_TO_SIGMA

CELL_PX = 256
"""Edge of a mesh cell: far larger than a galaxy, so that no galaxy is taken for sky."""

_STRIP_ROWS = 256


class BackgroundMesh:
    """Sky level and rms in cells of about 256 px.

    Parameters
    ----------
    shape_yx : tuple of int
        Rows and columns of the image.
    cell_px : int
        Wished edge of a cell; cells are made equal, to within a pixel.
    """

    def __init__(self, shape_yx: tuple[int, int], cell_px: int = CELL_PX) -> None:
        self.edges_y, self.edges_x = (_edges(size, cell_px) for size in shape_yx)
        counts = len(self.edges_y) - 1, len(self.edges_x) - 1
        self.level: NDArray[np.float64] = np.full(counts, np.nan)
        self.sigma: NDArray[np.float64] = np.full(counts, np.nan)
        self.error: NDArray[np.float64] = np.full(counts, np.nan)

    def windows(self, most_px: int) -> Iterator[tuple[slice, slice]]:
        """Yield windows of whole cells, one cell high and at most ``most_px`` wide (or one cell)."""
        per_window = max(1, most_px // max(int(np.diff(self.edges_x).max()), 1))
        for y0, y1 in zip(self.edges_y[:-1], self.edges_y[1:], strict=True):
            for first in range(0, len(self.edges_x) - 1, per_window):
                last = min(first + per_window, len(self.edges_x) - 1)
                yield (
                    slice(int(y0), int(y1)),
                    slice(int(self.edges_x[first]), int(self.edges_x[last])),
                )

    def add(self, rows: slice, columns: slice, pixels: NDArray[np.floating]) -> None:
        """Measure the cells of a window.

        Parameters
        ----------
        rows, columns : slice
            As yielded by :meth:`windows`.
        pixels : ndarray of float, shape (y, x)
            Image units; bad pixels are NaN.
        """
        iy = int(np.searchsorted(self.edges_y, rows.start))
        first = int(np.searchsorted(self.edges_x, columns.start))
        last = int(np.searchsorted(self.edges_x, columns.stop))
        for ix in range(first, last):
            x0, x1 = self.edges_x[ix : ix + 2] - columns.start
            sky = measure_sky(pixels[:, x0:x1])
            self.level[iy, ix], self.sigma[iy, ix] = sky.level, sky.sigma
            self.error[iy, ix] = sky.error

    @property
    def noise_sigma(self) -> float:
        """Median rms of the cells, image units; NaN where no cell has varying good pixels."""
        measured = self.sigma[self.sigma > 0]
        return float(np.median(measured)) if measured.size else float("nan")

    @property
    def scatter(self) -> float:
        """Robust scatter of the cells' levels about their median, image units; NaN where none is measured."""
        good = self.level[np.isfinite(self.level)]
        if not good.size:
            return float("nan")
        return float(MAD_TO_SIGMA * np.median(np.abs(good - np.median(good))))

    @property
    def is_significant(self) -> bool:
        """Whether the typical cell is off zero by more than it may be: the sky is not subtracted yet."""
        good = np.isfinite(self.level)
        if not good.any() or not self.noise_sigma > 0:
            return False
        typical, error = np.median(np.abs(self.level[good])), np.median(self.error[good])
        return bool(typical > max(OFFSET_SIGMA * self.noise_sigma, OFFSET_ERRORS * error))

    def surface(self) -> BackgroundSurface:
        """Return the smooth surface through the mesh."""
        centres_y, centres_x = (
            (edges[:-1] + edges[1:] - 1) / 2 for edges in (self.edges_y, self.edges_x)
        )
        return BackgroundSurface(centres_y, centres_x, _smoothed(self.level))


class BackgroundSurface:
    """A bicubic spline through sky levels, carried on linearly to the image's edges.

    Parameters
    ----------
    centres_y, centres_x : ndarray of float64
        Pixel positions of the cells' centres.
    level : ndarray of float64, shape (len(centres_y), len(centres_x))
        Finite sky levels, image units.
    """

    def __init__(
        self,
        centres_y: NDArray[np.float64],
        centres_x: NDArray[np.float64],
        level: NDArray[np.float64],
    ) -> None:
        from scipy.interpolate import RectBivariateSpline  # it takes long, and few images need it

        axes = _with_rim(centres_y), _with_rim(centres_x)
        degree_y, degree_x = (min(3, len(axis) - 1) for axis in axes)
        self._spline = RectBivariateSpline(*axes, _extended(level), kx=degree_y, ky=degree_x)

    def window(self, rows: slice, columns: slice) -> NDArray[np.float32]:
        """Evaluate the surface.

        Parameters
        ----------
        rows, columns : slice
            The window, px.

        Returns
        -------
        ndarray of float32, shape (y, x)
            Image units.
        """
        y, x = (np.arange(part.start, part.stop) for part in (rows, columns))
        return np.asarray(self._spline(y, x), np.float32)

    def subtract_from(self, pixels: NDArray[np.float32], rows: slice, columns: slice) -> None:
        """Subtract the surface in place, strip by strip, so that it needs little memory.

        Parameters
        ----------
        pixels : ndarray of float32, shape (y, x)
            Image units; changed.
        rows, columns : slice
            Where they lie in the image.
        """
        for start in range(rows.start, rows.stop, _STRIP_ROWS):
            strip = slice(start, min(start + _STRIP_ROWS, rows.stop))
            pixels[strip.start - rows.start : strip.stop - rows.start] -= self.window(
                strip, columns
            )


def _edges(size: int, cell_px: int) -> NDArray[np.int64]:
    count = max(1, round(size / cell_px))
    return np.linspace(0, size, count + 1).round().astype(np.int64)


def _smoothed(level: NDArray[np.float64]) -> NDArray[np.float64]:
    """Fill unmeasured cells from the nearest measured one; a 3 x 3 median takes out bright galaxies."""
    missing = ~np.isfinite(level)
    if missing.all():
        return np.zeros_like(level)
    nearest = distance_transform_edt(missing, return_distances=False, return_indices=True)
    filled = level[tuple(nearest)]
    return np.asarray(median_filter(_extended(filled), size=3)[1:-1, 1:-1])


def _extended(level: NDArray[np.float64]) -> NDArray[np.float64]:
    """Add a rim of cells by linear extrapolation, so that a gradient goes on to the edges."""
    return np.pad(level, 1, mode="reflect", reflect_type="odd")


def _with_rim(centres: NDArray[np.float64]) -> NDArray[np.float64]:
    """Add the centres of the cells of the rim."""
    step = centres[1] - centres[0] if len(centres) > 1 else max(2 * centres[0] + 1, 1.0)
    return np.concatenate([[centres[0] - step], centres, [centres[-1] + step]])
