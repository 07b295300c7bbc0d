"""One band on its way into a field: its open planes, what its header says, its windows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from deblend_batch import storage
from deblend_batch.errors import ConfigError, FieldError
from deblend_batch.field.mask_bits import MaskBits
from deblend_batch.field.photometry import ZERO_POINT_RANGE
from deblend_batch.field.sky.noise import clipped_median_sigma
from deblend_batch.field.wcs.cards import Cards
from deblend_batch.field.wcs.sky_grid import SkyGrid
from deblend_batch.ingest.contents import FileContents
from deblend_batch.ingest.files.opening import ImageFiles
from deblend_batch.ingest.files.plane import Plane
from deblend_batch.ingest.given import GivenBand
from deblend_batch.ingest.header import headers
from deblend_batch.ingest.header.cards import celestial_cards, remarks
from deblend_batch.ingest.header.headers import Found
from deblend_batch.ingest.header.mask_names import BitChoice, choose_bits, named_bits
from deblend_batch.ingest.header.zero_point import AGREE_MAG, zero_point
from deblend_batch.ingest.planes.mask_plane import UNOBSERVED, MaskPlane, common_bits
from deblend_batch.ingest.planes.missing_numbers import NO_NUMBERS, MissingNumbers
from deblend_batch.ingest.planes.noise_plane import NoisePlane
from deblend_batch.ingest.planes.padding import is_noisy, rim_blocks, zero_blocks, zero_is_missing
from deblend_batch.ingest.planes.psf_plane import read_psf
from deblend_batch.ingest.psf.from_files import FilePsf, WidthMap
from deblend_batch.ingest.sources import BandSource
from deblend_batch.text import shown

_STRIP_ROWS = 512
_LEAST = 1e-200
_PLAIN_RANGE = (1e-15, 1e15)
"""Noise, file units, whose square float32 holds, with room for that of a pixel of little weight."""
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
    mask : ndarray of unsigned int, shape (y, x), or None
        The mask's bits and :data:`UNOBSERVED`; None where bits have no names.
    """

    image: NDArray[np.float32]
    variance: NDArray[np.float32] | None
    bad: NDArray[np.bool_] | None
    mask: NDArray[np.unsignedinteger] | None = None

    def good_pixels(self) -> NDArray[np.float32]:
        """Return the image with bad pixels as NaN."""
        return (
            self.image if self.bad is None else np.where(self.bad, np.float32(np.nan), self.image)
        )

    def observed_pixels(self) -> NDArray[np.float32]:
        """Return the image with NaN where there are no data, whatever the mask says of the others."""
        if self.variance is None:
            return self.image
        return np.where(np.isnan(self.variance), np.float32(np.nan), self.image)

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
    image : Plane
        The pixels.
    noise : NoisePlane, optional
        Plane of rms, weight or variance.
    mask : MaskPlane, optional
        Bad pixels.
    wcs_cards : mapping
        Celestial WCS.
    zero_point : Found
        AB magnitude of one image unit.
    psf_fwhm_arcsec : Found, optional
        None where it must be measured.
    zero_is_missing : bool
        Whether blocks of zeros are pixels that were not observed.
    missing : MissingNumbers
        Numbers of the file that stand for "no data", such as -999.
    factor : float
        What the file's values are multiplied by: 1, or a power of 2 where float32 has no room for them.
    mask_bits : MaskBits, optional
        What the bits of the field's mask mean.
    psf : FilePsf or WidthMap, optional
        What files bring.
    parent_yx : tuple of float, optional
        Where the first pixel lies in the frame that the image was cut from, px (y, x), from 0.
    notes : tuple of str
        What the summary has to say of its header.
    """

    name: str
    image: Plane
    noise: NoisePlane | None
    mask: MaskPlane | None
    wcs_cards: Cards
    zero_point: Found
    psf_fwhm_arcsec: Found | None
    zero_is_missing: bool = False
    missing: MissingNumbers = NO_NUMBERS
    factor: float = 1.0
    mask_bits: MaskBits | None = None
    psf: FilePsf | WidthMap | None = None
    parent_yx: tuple[float, float] | None = None
    notes: tuple[str, ...] = ()

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
        window = Window(
            image=np.empty(shape, np.float32),
            variance=None if self.noise is None else np.empty(shape, np.float32),
            bad=np.zeros(shape, bool) if self.has_mask else None,
            mask=None if self.mask_bits is None else np.zeros(shape, self.mask_bits.dtype),
        )
        step = max(_STRIP_ROWS, *(plane.tile_rows for plane in self._planes()))
        for start in range(rows.start, rows.stop, step):
            strip = slice(start, min(start + step, rows.stop))
            here = slice(strip.start - rows.start, strip.stop - rows.start)
            self._read_strip(window, here, strip, columns)
        return window

    def _read_strip(self, window: Window, here: slice, strip: slice, columns: slice) -> None:
        """Fill some rows of a window."""
        window.image[here] = self.image.read(strip, columns, self.factor)
        if self.missing.numbers:
            window.image[here][self.missing.where(window.image[here], self.factor)] = np.nan
        if window.bad is None:
            return
        bad = window.bad[here]
        if self.noise is not None and window.variance is not None:
            window.variance[here], unweighted = self.noise.read(strip, columns)
            bad |= unweighted
        if self.zero_is_missing:
            step = self.image.lost_step(strip, columns)
            bad |= zero_blocks(window.image[here], 0.0 if step is None else step * self.factor / 2)
        bits = None
        if self.mask is not None:
            bits, named, unknown = self.mask.read(strip, columns)
            bad |= unknown
            if window.mask is None:
                bad |= named
        if window.mask is not None and self.mask_bits is not None:
            mask = window.mask[here]
            mask[bad] = mask.dtype.type(1 << self.mask_bits.bits[UNOBSERVED])
            if bits is not None:
                mask |= bits.astype(mask.dtype)
                bad |= named

    def _planes(self) -> list[Plane]:
        others = [each.plane for each in (self.noise, self.mask) if each is not None]
        return [self.image, *others]

    @property
    def has_mask(self) -> bool:
        """Whether anything but NaN can make a pixel bad."""
        return (
            self.noise is not None
            or self.mask is not None
            or self.zero_is_missing
            or self.mask_bits is not None
        )

    def with_pixels_sampled(self) -> Band:
        """Return the band with what a sample of its pixels says of all.

        That is :attr:`zero_is_missing`, :attr:`missing`, :attr:`factor`, and which numbers of the noise plane
        mean no data.
        """
        windows = rim_blocks(self.shape_yx)
        sample = [_sampled(self.image, *window) for window in windows]
        steps = (self.image.lost_step(*window) for window in windows)
        missing = MissingNumbers.find(
            sample, max((float(np.max(step)) for step in steps if step is not None), default=0.0)
        )
        sample = [np.where(missing.where(each), np.nan, each) for each in sample]
        factor = factor_of(sample)
        noise = self.noise
        if noise is not None:
            noise = replace(noise, factor=factor).with_limit(windows)
        notes = self.notes
        if missing.numbers:
            notes += (f"pixels of {missing} are no data",)
        if factor != 1:
            power = round(np.log2(factor))
            notes += (f"pixel values are multiplied by 2^{power}; the zero point is of these",)
        return replace(
            self,
            zero_is_missing=zero_is_missing(sample),
            missing=missing,
            factor=factor,
            noise=noise,
            zero_point=self._zero_point_of(factor),
            notes=notes,
        )

    def _zero_point_of(self, factor: float) -> Found:
        """Return the zero point of pixels that are multiplied by a factor."""
        said = self.zero_point
        value = said.value + 2.5 * float(np.log10(factor))
        low, high = ZERO_POINT_RANGE
        if not low <= value <= high:
            raise FieldError(
                f"{self.image.label}: a zero point of {said.value:g} ({said.source}) cannot be that of "
                f"pixels whose noise is near {1 / factor:.0e}; give --zero-point, the AB magnitude of one "
                "image unit"
            )
        return Found(value, said.source)


def _sampled(plane: Plane, rows: slice, columns: slice) -> NDArray[np.float64]:
    """Pixel values of a window, with zeros where quantisation has moved them."""
    values = plane.values(rows, columns)
    step = plane.lost_step(rows, columns)
    return values if step is None else np.where(zero_blocks(values, step / 2), 0.0, values)


def factor_of(windows: Sequence[NDArray[np.float64]]) -> float:
    """Choose what to multiply pixel values by, so that float32 has room for them and their squares.

    Parameters
    ----------
    windows : sequence of ndarray of float64, shape (y, x)
        A sample of pixels, file units.

    Returns
    -------
    float
        1 for most; else the power of 2 that brings their noise near 1: it loses no bit.
    """
    pixels = np.concatenate([window.ravel() for window in windows])
    pixels = pixels[np.isfinite(pixels) & (pixels != 0)]
    if pixels.size == 0:
        return 1.0
    near_one = 2.0 ** np.floor(np.log2(np.median(np.abs(pixels))))
    level, sigma = clipped_median_sigma(pixels / near_one)
    is_noise = is_noisy(pixels / near_one, level, sigma)
    typical = sigma * near_one if is_noise else float(np.abs(pixels).max())
    if _PLAIN_RANGE[0] <= typical <= _PLAIN_RANGE[1] or not _LEAST <= typical <= 1 / _LEAST:
        return 1.0  # beyond the range of any unit it is damage
    return float(2.0 ** -np.round(np.log2(typical)))


def open_bands(files: ImageFiles, given: Sequence[GivenBand]) -> list[Band]:
    """Open the planes of all bands and read their headers.

    Parameters
    ----------
    files : ImageFiles
        Opens files.
    given : sequence of GivenBand
        What is given of each band.

    Returns
    -------
    list of Band
        On one grid of pixels, with names of their own.
    """
    bands = [_open_band(files, each) for each in given]
    found = [band.name for band in bands]
    if len(set(found)) < len(found):
        raise ConfigError(
            f"--band: the images' headers call their bands {shown(', '.join(found))}; name each with "
            "--band"
        )
    for band in bands[1:]:
        _check_same_grid(bands[0], band)
    bits = common_bits([band.mask for band in bands])
    return [replace(band, mask_bits=bits) for band in bands]


def _open_band(files: ImageFiles, given: GivenBand) -> Band:
    image = files.plane(given.source.image, given.source.number)
    contents = files.contents(image)
    source = _completed(given.source, contents)
    cards = celestial_cards(image.unsettled, image.shape_yx, image.label)
    grid = SkyGrid.from_cards(cards, image.shape_yx, image.label)
    scale = grid.pixel_scale_arcsec()
    found, said = _zero_point(image, given, scale)
    psf = _psf(files, given, image, grid, contents)
    name = given.name or headers.band_name(image.headers) or contents.band
    name = name or headers.word_of(storage.name_of(source.image.url).split(".")[0]) or "image"
    noise = files.plane(source.noise, source.number) if source.noise else None
    mask = files.plane(source.mask, source.number) if source.mask else None
    covers = contents.is_coverage and source.mask == contents.mask
    for plane in (noise, mask):
        if plane is not None and plane.shape_yx != image.shape_yx:
            raise FieldError(
                f"{plane.label}: has {plane.shape_yx} rows and columns, its image {image.label} has "
                f"{image.shape_yx}; give the plane that belongs to the image"
            )
    return Band(
        name=name,
        image=image,
        noise=NoisePlane(noise, source.noise_kind or "variance") if noise else None,
        mask=_mask(mask, given.bits, name, covers=covers) if mask else None,
        wcs_cards=cards,
        zero_point=found,
        psf_fwhm_arcsec=_width(image, given.psf_fwhm_arcsec, psf, scale),
        psf=psf,
        parent_yx=headers.parent_yx(image.headers) or contents.parent_yx,
        notes=(
            *remarks(image.unsettled),
            *said,
            *_encoding_notes(image),
            *(() if psf is None else psf.notes),
        ),
    )


def _completed(source: BandSource, contents: FileContents) -> BandSource:
    """Add the planes that belong to the image by what its file says, where the user names none."""
    if source.noise is None and "noise" not in source.left_out:
        source = replace(source, noise=contents.noise, noise_kind=contents.noise_kind)
    if source.mask is None and "mask" not in source.left_out:
        source = replace(source, mask=contents.mask)
    return source


def _psf(
    files: ImageFiles, given: GivenBand, image: Plane, grid: SkyGrid, contents: FileContents
) -> FilePsf | WidthMap | None:
    """Return the PSF that files bring, unless the user says its width."""
    if given.psf_fwhm_arcsec is not None:
        return None
    if given.source.psf is not None:
        return read_psf(files, given.source.psf, image, grid)
    return None if "psf" in given.source.left_out else contents.psf


def _width(
    image: Plane, given: float | None, psf: FilePsf | WidthMap | None, scale_arcsec: float
) -> Found | None:
    if given is not None:
        return Found(given, "option")
    if psf is not None and psf.typical_fwhm_px is not None:
        return Found(psf.typical_fwhm_px * scale_arcsec, psf.source)
    return headers.psf_fwhm_arcsec(image.headers, scale_arcsec)


def _zero_point(
    image: Plane, given: GivenBand, scale_arcsec: float
) -> tuple[Found, tuple[str, ...]]:
    """Return the zero point, and what speaks against it."""
    if given.zero_point is not None:
        return Found(given.zero_point, "option"), ()
    said = zero_point(image.headers, float(np.radians(scale_arcsec / 3600)) ** 2)
    usual = given.usual_zero_point
    if said.found is None and usual is not None and not said.problem:
        return Found(usual.value, usual.survey), ()
    if said.found is None:
        why = said.problem or (
            "no zero point of -60 to 60 in its header (MAGZERO, ZEROPNT, MAGZPT, PHOTZP, FLUXMAG0, PHOTFLAM, "
            f"BUNIT in Jy{_unit_said(image)})"
        )
        raise FieldError(
            f"{image.label}: {why}; give --zero-point, the AB magnitude of one image unit"
        )
    if usual is not None and abs(said.found.value - usual.value) > AGREE_MAG:
        raise FieldError(
            f"{image.label}: its zero point is {said.found.value:.3f} by {said.found.source}, and that of "
            f"{usual.survey} is {usual.value:g}: give the right --survey, or --zero-point"
        )
    return said.found, said.notes


def _unit_said(image: Plane) -> str:
    """Say what stands where a flux could stand."""
    unit = headers.text(image.headers, "BUNIT")
    return f", where {shown(unit)} stands" if unit else ""


def _mask(plane: Plane, choice: BitChoice, band: str, *, covers: bool) -> MaskPlane:
    if covers:
        return MaskPlane(plane, None, covers=True)
    named = named_bits(plane.headers, plane.url)
    return MaskPlane(plane, choose_bits(named, choice, band, plane.label))


def _encoding_notes(image: Plane) -> tuple[str, ...]:
    if image.encoding.asinh is None:
        return ()
    return ("its pixels are asinh magnitudes (BSOFTEN, BOFFSET): made linear",)


def _check_same_grid(first: Band, other: Band) -> None:
    remedy = "resample the bands to one grid first (SWarp, reproject)"
    if other.shape_yx != first.shape_yx:
        raise FieldError(
            f"{other.image.label}: has {other.shape_yx} rows and columns, {first.image.label} has "
            f"{first.shape_yx}; {remedy}"
        )
    offset = _offset_px(first, other.wcs_cards)
    if not offset < _GRID_TOLERANCE_PX:
        raise FieldError(
            f"{other.image.label}: its WCS is {offset:.3g} px off that of {first.image.label}; {remedy}"
        )


def plane_offset_px(band: Band, plane: Plane) -> float | None:
    """Return how far a plane is off its image by the WCS of both; None where it has none."""
    if "CTYPE1" not in plane.headers[0]:
        return None
    try:
        cards = celestial_cards(plane.unsettled, plane.shape_yx, plane.label)
    except FieldError:
        return None
    return _offset_px(band, cards)


def _offset_px(band: Band, cards: Cards) -> float:
    """Return how far positions of a band's corners are off by other cards; infinite beyond their sky."""
    yx = np.array([(fy * (n - 1), fx * (m - 1)) for n, m in [band.shape_yx] for fy, fx in _CORNERS])
    radec = SkyGrid.from_cards(band.wcs_cards, band.shape_yx, "").pixel_to_world(yx)
    back = SkyGrid.from_cards(cards, band.shape_yx, "").world_to_pixel(*radec.T)
    return float(np.abs(back - yx).max())


_CORNERS = ((0.0, 0.0), (0.0, 1.0), (1.0, 0.0), (1.0, 1.0), (0.5, 0.5))
