"""One band on its way into a field: its open planes, what its header says, its windows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from deblend_batch import storage
from deblend_batch.errors import ConfigError, FieldError
from deblend_batch.field.wcs import SkyGrid
from deblend_batch.field.wcs_cards import Cards
from deblend_batch.ingest import headers
from deblend_batch.ingest.cards import celestial_cards
from deblend_batch.ingest.fits import FitsFiles, FitsPlane
from deblend_batch.ingest.headers import Found
from deblend_batch.ingest.padding import rim_blocks, zero_blocks, zero_is_missing
from deblend_batch.ingest.sources import BandSource, NoiseKind

_STRIP_ROWS = 512
_GRID_TOLERANCE_PX = 0.1


@dataclass(frozen=True)
class Window:
    """Pixels of one band.

    Parameters
    ----------
    image : ndarray of float32, shape (y, x)
        Image units; NaN where the file has no value.
    variance : ndarray of float32, shape (y, x), or None
        Image units squared; NaN where the noise plane calls the pixel bad.
    bad : ndarray of bool, shape (y, x), or None
        From the noise plane and the mask plane; None where there is neither.
    """

    image: NDArray[np.float32]
    variance: NDArray[np.float32] | None
    bad: NDArray[np.bool_] | None

    def good_pixels(self) -> NDArray[np.float32]:
        """Return the image with bad pixels as NaN."""
        return (
            self.image if self.bad is None else np.where(self.bad, np.float32(np.nan), self.image)
        )

    def count_bad(self) -> int:
        """Return the number of pixels that are not finite, or bad."""
        return int((~np.isfinite(self.good_pixels())).sum())


@dataclass(frozen=True)
class Band:
    """An open band.

    Parameters
    ----------
    name : str
        Name of the band.
    image : FitsPlane
        The pixels.
    noise : FitsPlane, optional
        Plane of rms, weight or variance.
    noise_kind : {"rms", "weight", "variance"}, optional
        What it holds.
    mask : FitsPlane, optional
        Bad pixels.
    wcs_cards : mapping
        Celestial WCS.
    zero_point : Found
        AB magnitude of one image unit.
    psf_fwhm_arcsec : Found, optional
        None where it must be measured.
    zero_is_missing : bool
        Whether blocks of zeros are pixels that were not observed.
    """

    name: str
    image: FitsPlane
    noise: FitsPlane | None
    noise_kind: NoiseKind | None
    mask: FitsPlane | None
    wcs_cards: Cards
    zero_point: Found
    psf_fwhm_arcsec: Found | None
    zero_is_missing: bool = False

    @property
    def shape_yx(self) -> tuple[int, int]:
        """Rows and columns."""
        return self.image.shape_yx

    def read(self, rows: slice, columns: slice) -> Window:
        """Read a window, strip by strip, so that conversions need little memory.

        A strip is no lower than a compressed tile: what is decoded for one is not decoded for the next.

        Parameters
        ----------
        rows, columns : slice
            The window, px.

        Returns
        -------
        Window
            Its pixels.
        """
        shape = rows.stop - rows.start, columns.stop - columns.start
        image = np.empty(shape, np.float32)
        variance = np.empty(shape, np.float32) if self.noise else None
        bad = np.zeros(shape, bool) if self.has_mask else None
        step = max(_STRIP_ROWS, *(plane.tile_rows for plane in self._planes()))
        for start in range(rows.start, rows.stop, step):
            strip = slice(start, min(start + step, rows.stop))
            here = slice(strip.start - rows.start, strip.stop - rows.start)
            image[here] = self.image.read(strip, columns)
            if self.noise is not None and variance is not None and bad is not None:
                plane = self.noise.read(strip, columns)
                variance[here], bad[here] = variance_of(plane, self.noise_kind or "variance")
            if self.mask is not None and bad is not None:
                # NaN is not zero: a mask without a value is bad.
                bad[here] |= self.mask.read(strip, columns) != 0
            if self.zero_is_missing and bad is not None:
                bad[here] |= zero_blocks(image[here])
        return Window(image, variance, bad)

    def _planes(self) -> list[FitsPlane]:
        return [plane for plane in (self.image, self.noise, self.mask) if plane is not None]

    @property
    def has_mask(self) -> bool:
        """Whether anything but NaN can make a pixel bad."""
        return self.noise is not None or self.mask is not None or self.zero_is_missing

    def with_padding_found(self) -> Band:
        """Return the band with :attr:`zero_is_missing` decided from a sample of its pixels."""
        sample = (self.image.read(*window) for window in rim_blocks(self.shape_yx))
        return replace(self, zero_is_missing=zero_is_missing(sample))


def variance_of(
    plane: NDArray[np.float32], kind: NoiseKind
) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    """Turn a noise plane into variances.

    Parameters
    ----------
    plane : ndarray of float32, any shape
        As the file has it.
    kind : {"rms", "weight", "variance"}
        What it holds; a weight is an inverse variance.

    Returns
    -------
    variance : ndarray of float32
        NaN where bad.
    bad : ndarray of bool
        Where the plane is not finite and positive: an rms or weight of 0 marks a pixel without data.
    """
    bad = ~(np.isfinite(plane) & (plane > 0))
    values = np.where(bad, np.float32(np.nan), plane)
    if kind == "rms":
        values *= values
    elif kind == "weight":
        values = np.float32(1) / values
    return values, bad


def open_bands(
    files: FitsFiles,
    sources: Sequence[BandSource],
    names: Sequence[str | None],
    zero_points: Sequence[float | None],
    psf_fwhm_arcsec: Sequence[float | None],
) -> list[Band]:
    """Open the planes of all bands and read their headers.

    Parameters
    ----------
    files : FitsFiles
        Opens files.
    sources : sequence of BandSource
        What makes each band.
    names, zero_points, psf_fwhm_arcsec : sequence
        Options, one per band, None where the header is to say.

    Returns
    -------
    list of Band
        On one grid of pixels, with names of their own.
    """
    bands = [
        _open_band(files, source, name, zero_point, fwhm)
        for source, name, zero_point, fwhm in zip(
            sources, names, zero_points, psf_fwhm_arcsec, strict=True
        )
    ]
    found = [band.name for band in bands]
    if len(set(found)) < len(found):
        raise ConfigError(
            f"--band: the images' headers call their bands {', '.join(found)}; name each with --band"
        )
    for band in bands[1:]:
        _check_same_grid(bands[0], band)
    return bands


def _open_band(
    files: FitsFiles,
    source: BandSource,
    name: str | None,
    zero_point: float | None,
    fwhm_arcsec: float | None,
) -> Band:
    image = files.plane(source.image)
    cards = celestial_cards(image.header, image.shape_yx, image.label)
    scale = SkyGrid.from_cards(cards, image.shape_yx, image.label).pixel_scale_arcsec()
    if zero_point is None:
        found_zero_point = headers.zero_point(image.headers)
        if found_zero_point is None:
            raise FieldError(
                f"{image.label}: no zero point of -60 to 60 in its header (MAGZERO, ZEROPNT, MAGZPT, PHOTZP, "
                "FLUXMAG0, PHOTFLAM, BUNIT in Jy); give --zero-point, the AB magnitude of one image unit"
            )
    else:
        found_zero_point = Found(zero_point, "option")
    if fwhm_arcsec is None:
        fwhm = headers.psf_fwhm_arcsec(image.headers, scale)
    else:
        fwhm = Found(fwhm_arcsec, "option")
    stem = storage.name_of(source.image.url).split(".")[0]
    band = Band(
        name=name or headers.band_name(image.headers) or headers.word_of(stem) or "image",
        image=image,
        noise=files.plane(source.noise) if source.noise else None,
        noise_kind=source.noise_kind,
        mask=files.plane(source.mask) if source.mask else None,
        wcs_cards=cards,
        zero_point=found_zero_point,
        psf_fwhm_arcsec=fwhm,
    )
    for plane in (band.noise, band.mask):
        if plane is not None and plane.shape_yx != image.shape_yx:
            raise FieldError(
                f"{plane.label}: has {plane.shape_yx} rows and columns, its image {image.label} has "
                f"{image.shape_yx}; give the plane that belongs to the image"
            )
    return band


def _check_same_grid(first: Band, other: Band) -> None:
    remedy = "resample the bands to one grid first (SWarp, reproject)"
    if other.shape_yx != first.shape_yx:
        raise FieldError(
            f"{other.image.label}: has {other.shape_yx} rows and columns, {first.image.label} has "
            f"{first.shape_yx}; {remedy}"
        )
    yx = np.array(
        [(fy * (n - 1), fx * (m - 1)) for n, m in [first.shape_yx] for fy, fx in _CORNERS]
    )
    radec = SkyGrid.from_cards(first.wcs_cards, first.shape_yx, "").pixel_to_world(yx)
    back = SkyGrid.from_cards(other.wcs_cards, other.shape_yx, "").world_to_pixel(*radec.T)
    offset = float(np.abs(back - yx).max())
    if not offset < _GRID_TOLERANCE_PX:
        raise FieldError(
            f"{other.image.label}: its WCS is {offset:.3g} px off that of {first.image.label}; {remedy}"
        )


_CORNERS = ((0.0, 0.0), (0.0, 1.0), (1.0, 0.0), (1.0, 1.0), (0.5, 0.5))
