"""A PSF as stamps on a canvas, with a table of where on the sky each belongs: Euclid's GRID-PSF files."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from astropy.io import fits
from numpy.typing import NDArray
from scipy.spatial import KDTree

from deblend_batch.errors import FieldError
from deblend_batch.ingest.header.headers import number

_MOST_STAMP_PX = 255
_COLUMNS = {
    "x": ("x", "x_center", "x_centre"),
    "y": ("y", "y_center", "y_centre"),
    "ra": ("ra", "right_ascension"),
    "dec": ("dec", "declination"),
}

ReadWindow = Callable[[slice, slice], NDArray[np.float64]]
"""Reads rows and columns of the canvas."""


@dataclass(frozen=True)
class StampGrid:
    """Where a canvas has stamps, and where on the image they belong.

    Parameters
    ----------
    canvas_yx : ndarray of float64, shape (n, 2)
        Centres (y, x) on the canvas, as FITS counts.
    image_yx : ndarray of float64, shape (n, 2)
        Pixel positions (y, x) on the image.
    edge : int
        Of a stamp, px.
    """

    canvas_yx: NDArray[np.float64]
    image_yx: NDArray[np.float64]
    edge: int

    def nearest(
        self, middles_yx: NDArray[np.float64], read: ReadWindow, where: str
    ) -> NDArray[np.float64]:
        """Return the stamps that are nearest to positions.

        Parameters
        ----------
        middles_yx : ndarray of float64, shape (m, 2)
            Pixel positions (y, x) on the image.
        read : callable
            Reads the canvas.
        where : str
            The file, for messages.

        Returns
        -------
        ndarray of float64, shape (m, edge, edge)
            Each with its peak on the middle pixel.
        """
        numbers = KDTree(self.image_yx).query(middles_yx)[1]
        found = {int(n): self._stamp(self.canvas_yx[n], read, where) for n in np.unique(numbers)}
        return np.stack([found[int(n)] for n in numbers])

    def _stamp(
        self, centre_yx: NDArray[np.float64], read: ReadWindow, where: str
    ) -> NDArray[np.float64]:
        """Cut a stamp; the peak says whether the table counts pixels from 1, as FITS does, or from 0."""
        half = self.edge // 2
        for origin in (1, 0):
            y, x = (int(np.floor(at - origin + 0.5)) for at in centre_yx)
            if min(y, x) < half:
                continue
            stamp = read(slice(y - half, y + half + 1), slice(x - half, x + half + 1))
            is_whole = stamp.shape == (self.edge, self.edge) and bool(np.isfinite(stamp).all())
            if is_whole and int(stamp.argmax()) == half * self.edge + half:
                return stamp
        raise FieldError(
            f"{where}: has no PSF with its peak at {centre_yx[1]:g}, {centre_yx[0]:g} of its canvas, where "
            "its table has one; give --psf-fwhm ARCSEC"
        )


def stamp_edge(header: fits.Header) -> int | None:
    """Return the edge of a canvas' stamps, made odd; None where its header tells none."""
    value = number([header], "STMPSIZE")
    if value is None or value != int(value) or not 3 <= value <= _MOST_STAMP_PX:
        return None
    return int(value) - 1 + int(value) % 2


def read_places(
    header: fits.Header, data: bytes, where: str
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Read the table of the stamps.

    Parameters
    ----------
    header : astropy.io.fits.Header
        Of the table.
    data : bytes
        Its rows.
    where : str
        The table, for messages.

    Returns
    -------
    canvas_yx : ndarray of float64, shape (n, 2)
        Centres (y, x) on the canvas, as the table counts.
    radec : ndarray of float64, shape (n, 2)
        Degrees, ICRS.
    """
    try:
        table = fits.BinTableHDU.fromstring(header.tostring().encode() + data).data
        names = {name.lower(): name for name in table.names}
        columns = {
            ours: np.asarray(table[next(names[each] for each in theirs if each in names)], float)
            for ours, theirs in _COLUMNS.items()
        }
    except Exception as error:
        raise FieldError(
            f"{where}: is no table of x, y, RA and DEC of the PSF's stamps; give --psf-fwhm"
        ) from error
    canvas = np.stack([columns["y"], columns["x"]], axis=1)
    radec = np.stack([columns["ra"], columns["dec"]], axis=1)
    good = np.isfinite(canvas).all(axis=1) & np.isfinite(radec).all(axis=1)
    if not good.any():
        raise FieldError(f"{where}: has no row with a place; give --psf-fwhm ARCSEC")
    return canvas[good], radec[good]
