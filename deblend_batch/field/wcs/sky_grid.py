"""Sky and pixels: the celestial WCS of a field, from FITS header cards to vectorised transforms."""

from __future__ import annotations

import warnings

import astropy.units as u
import numpy as np
from astropy.coordinates import ICRS, BaseCoordinateFrame, SkyCoord
from astropy.io.fits import Header
from astropy.wcs import WCS, NoConvergence
from astropy.wcs.utils import wcs_to_celestial_frame
from numpy.typing import NDArray

from deblend_batch.errors import FieldError
from deblend_batch.field.wcs.cards import Cards, celestial_cards

_LINEAR_MARGIN_PX = 4096
_SCALE_ARCSEC = (1e-4, 600.0)
_MOST_OBLONG = 10.0
"""No image has pixels so much longer than wide: their matrix is damaged, or a card of it is missing."""
_TOLERANCE_PX = 1e-3
_PROOF_EDGE = 9
_REASON = 200


class SkyGrid:
    """Positions on the sky against positions in the image.

    Parameters
    ----------
    cards : mapping
        As :func:`deblend_batch.field.wcs.cards.celestial_cards` returns them.
    shape_yx : tuple of int
        Rows and columns of the image: the distortion is inverted only near it.

    Raises
    ------
    ValueError
        In one line, if they are no celestial WCS, have pixels of no telescope, or positions that do not come
        back: to 1e-3 px, on a grid over the image.
    """

    def __init__(self, cards: Cards, shape_yx: tuple[int, int]) -> None:
        self._shape_yx = shape_yx
        try:
            with warnings.catch_warnings(), np.errstate(all="ignore"):
                # Astropy tells of what it repairs and numpy of what overflows; both are checked below.
                warnings.simplefilter("ignore")
                self._wcs = WCS(Header(cards.items()))
                self._frame: BaseCoordinateFrame = wcs_to_celestial_frame(self._wcs)
                self._is_icrs = isinstance(self._frame, ICRS)
                scale, offset = self.pixel_scale_arcsec(), self._largest_offset_px()
        except Exception as error:
            raise ValueError(_reason(error)) from error
        if not _SCALE_ARCSEC[0] < scale < _SCALE_ARCSEC[1]:
            raise ValueError(f"its pixels are {scale:.3g} arcsec; mend CD or CDELT")
        narrow, wide = self._edges_arcsec()
        if not _SCALE_ARCSEC[0] < narrow <= wide < min(_SCALE_ARCSEC[1], _MOST_OBLONG * narrow):
            raise ValueError(
                f"its pixels are {narrow:.3g} by {wide:.3g} arcsec; mend CD, or PC and CDELT"
            )
        if not offset < _TOLERANCE_PX:
            raise ValueError(
                f"its positions come back {offset:.3g} px off; mend its distortion, or resample the "
                "image to a plain projection first (SWarp, drizzle)"
            )

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
        """
        try:
            return cls(celestial_cards(cards), shape_yx)
        except ValueError as error:
            raise FieldError(
                f"{where}: 'wcs' holds no usable celestial WCS ({error}); "
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
        ra, dec = np.radians(self.pixel_to_world(np.array([(y, x), (y + 1, x), (y, x + 1)]))).T
        # On the unit sphere, where no pole is in the way.
        centre, down, right = np.stack(
            [np.cos(dec) * np.cos(ra), np.cos(dec) * np.sin(ra), np.sin(dec)], axis=1
        )
        area = float(np.linalg.norm(np.cross(down - centre, right - centre)))
        return float(np.degrees(np.sqrt(area)) * 3600)

    def _edges_arcsec(self) -> tuple[float, float]:
        """Return the least and largest size of a pixel at the reference point, however it is turned."""
        sizes = np.linalg.svd(self._wcs.pixel_scale_matrix, compute_uv=False) * 3600
        return float(sizes.min()), float(sizes.max())

    def _largest_offset_px(self) -> float:
        """How far positions on a grid over the image are off when they come back; NaN if none is shown.

        Infinite where a distortion takes a pixel off the sky that is on it without.
        """
        rows, columns = (np.linspace(-0.5, edge - 0.5, _PROOF_EDGE) for edge in self._shape_yx)
        yx = np.stack(np.meshgrid(rows, columns, indexing="ij"), axis=-1).reshape(-1, 2)
        radec = self.pixel_to_world(yx)
        shown = np.isfinite(radec).all(axis=1)
        if not shown.any():
            return np.nan
        if self._wcs.sip is not None:
            plain = np.isfinite(self._wcs.wcs_pix2world(yx[:, ::-1], 0)).all(axis=1)
            if (plain & ~shown).any():
                return np.inf
        back = self.world_to_pixel(*radec[shown].T)
        return float(np.abs(back - yx[shown]).max())

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
            xy[near] = self._undistorted(world[near])
        return xy

    def _undistorted(self, world: NDArray[np.float64]) -> NDArray[np.float64]:
        """Pixel positions after at most 20 iterations, where they are then."""
        with warnings.catch_warnings(), np.errstate(all="ignore"):
            warnings.simplefilter(
                "ignore", RuntimeWarning
            )  # of numpy, where nothing is left to follow
            try:
                xy: NDArray[np.float64] = self._wcs.all_world2pix(world, 0, tolerance=1e-6)
            except NoConvergence as error:
                xy = error.best_solution
        return xy


def _reason(error: Exception) -> str:
    """Take what astropy says last: the first line of wcslib's errors is a place in its source."""
    lines = str(error).strip().splitlines() or [type(error).__name__]
    return lines[-1].strip()[:_REASON]
