"""Sky and pixels: the celestial WCS of a field, from FITS header cards to vectorised transforms."""

from __future__ import annotations

import warnings
from collections.abc import Mapping

import astropy.units as u
import numpy as np
from astropy.coordinates import ICRS, BaseCoordinateFrame, SkyCoord
from astropy.io.fits import Header
from astropy.wcs import WCS, FITSFixedWarning, NoConvergence
from astropy.wcs.utils import wcs_to_celestial_frame
from numpy.typing import NDArray

from deblend_batch.errors import FieldError

Card = str | int | float | bool
Cards = Mapping[str, Card]

_LINEAR_MARGIN_PX = 4096


class SkyGrid:
    """Positions on the sky against positions in the image.

    Parameters
    ----------
    wcs : astropy.wcs.WCS
        Two celestial axes, in either order, in any frame that astropy knows.
    shape_yx : tuple of int
        Rows and columns of the image: the distortion is inverted only near it.
    """

    def __init__(self, wcs: WCS, shape_yx: tuple[int, int]) -> None:
        self._wcs = wcs
        self._shape_yx = shape_yx
        self._frame: BaseCoordinateFrame = wcs_to_celestial_frame(wcs)
        self._is_icrs = isinstance(self._frame, ICRS)

    @classmethod
    def from_cards(cls, cards: Cards, shape_yx: tuple[int, int], where: str) -> SkyGrid:
        """Build the transforms from FITS header cards.

        Parameters
        ----------
        cards : mapping
            FITS header cards of a celestial WCS, distortion (SIP, TPV) included.
        shape_yx : tuple of int
            Rows and columns of the image.
        where : str
            What the cards belong to, for messages.

        Returns
        -------
        SkyGrid
            The transforms.

        Raises
        ------
        FieldError
            If the cards hold no celestial WCS.
        """
        try:
            header = Header()
            header.update(dict(cards))
            return cls(celestial_wcs(header), shape_yx)
        except Exception as error:
            reason = str(error).strip().splitlines()[0] if str(error).strip() else repr(error)
            raise FieldError(
                f"{where}: 'wcs' holds no usable celestial WCS ({reason}); "
                "give the cards CTYPE, CRVAL, CRPIX and CD (or CDELT) of both axes"
            ) from error

    def world_to_pixel(
        self, ra_deg: NDArray[np.float64], dec_deg: NDArray[np.float64]
    ) -> NDArray[np.float64]:
        """Return the pixel positions of sky positions.

        Parameters
        ----------
        ra_deg, dec_deg : ndarray of float64, shape (n,)
            ICRS degrees.

        Returns
        -------
        ndarray of float64, shape (n, 2)
            (y, x), 0-based pixel centres. NaN where an input is no position; infinite where the
            projection does not show it. Further than 4096 px outside the image the
            distortion is left out.
        """
        ra, dec = np.asarray(ra_deg, np.float64), np.asarray(dec_deg, np.float64)
        yx = np.full((len(ra), 2), np.nan)
        good = np.isfinite(ra) & np.isfinite(dec) & (np.abs(dec) <= 90)
        if not good.any():
            return yx
        lon, lat = ra[good], dec[good]
        if not self._is_icrs:
            sky = SkyCoord(lon * u.deg, lat * u.deg, frame="icrs").transform_to(self._frame)
            lon, lat = sky.spherical.lon.deg, sky.spherical.lat.deg
        xy = self._inverted(self._world(lon, lat))
        yx[good] = np.where(np.isfinite(xy).all(axis=1, keepdims=True), xy[:, ::-1], np.inf)
        return yx

    def pixel_to_world(self, yx: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return the sky positions of pixel positions.

        Parameters
        ----------
        yx : ndarray of float64, shape (n, 2)
            (y, x), 0-based pixel centres.

        Returns
        -------
        ndarray of float64, shape (n, 2)
            (ra, dec), ICRS degrees, 0 <= ra < 360; NaN where an input is not finite or off the sky.
        """
        yx = np.asarray(yx, np.float64)
        radec = np.full(yx.shape, np.nan)
        good = np.isfinite(yx).all(axis=1)
        if not good.any():
            return radec
        world = self._wcs.all_pix2world(yx[good][:, ::-1], 0)
        lon, lat = world[:, self._wcs.wcs.lng], world[:, self._wcs.wcs.lat]
        if not self._is_icrs:
            sky = SkyCoord(lon * u.deg, lat * u.deg, frame=self._frame).icrs
            lon, lat = sky.ra.deg, sky.dec.deg
        radec[good] = np.stack([np.mod(lon, 360.0), lat], axis=1)
        return radec

    def pixel_scale_arcsec(self) -> float:
        """Return the edge of a square with the area of the image's central pixel, arcsec."""
        y, x = (self._shape_yx[0] - 1) / 2, (self._shape_yx[1] - 1) / 2
        radec = np.radians(self.pixel_to_world(np.array([(y, x), (y + 1, x), (y, x + 1)])))
        cos_dec = np.cos(radec[0, 1])
        step = np.mod(radec[1:] - radec[0] + np.pi, 2 * np.pi) - np.pi
        area = abs(step[0, 0] * step[1, 1] - step[0, 1] * step[1, 0]) * cos_dec
        return float(np.degrees(np.sqrt(area)) * 3600)

    def _world(self, lon: NDArray[np.float64], lat: NDArray[np.float64]) -> NDArray[np.float64]:
        world = np.empty((len(lon), 2))
        world[:, self._wcs.wcs.lng], world[:, self._wcs.wcs.lat] = lon, lat
        return world

    def _inverted(self, world: NDArray[np.float64]) -> NDArray[np.float64]:
        """Pixel positions (x, y); the iterative inverse of a distortion only where it converges."""
        xy: NDArray[np.float64] = self._wcs.wcs_world2pix(world, 0)
        if self._wcs.sip is None:
            return xy
        size_xy = np.array(self._shape_yx[::-1])
        near = ((xy > -_LINEAR_MARGIN_PX) & (xy < size_xy + _LINEAR_MARGIN_PX)).all(axis=1)
        if near.any():
            try:
                xy[near] = self._wcs.all_world2pix(world[near], 0, tolerance=1e-6)
            except NoConvergence as error:
                xy[near] = error.best_solution
        return xy


def celestial_wcs(header: Header) -> WCS:
    """Return the two celestial axes of a header's WCS.

    Parameters
    ----------
    header : astropy.io.fits.Header
        Header of an image.

    Returns
    -------
    astropy.wcs.WCS
        Two axes.

    Raises
    ------
    ValueError
        If the header has no celestial WCS, or one that astropy cannot read.
    """
    with warnings.catch_warnings():
        # Old headers are full of harmless slips (RADECSYS, MJD-OBS) that astropy repairs.
        warnings.simplefilter("ignore", FITSFixedWarning)
        wcs = WCS(header)
        if not wcs.has_celestial:
            raise ValueError("no celestial axes")
        return wcs.celestial
