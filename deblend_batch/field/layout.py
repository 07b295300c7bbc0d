"""The field: one patch of sky in one or more bands, with photometry, PSF and WCS, in Zarr."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from typing import Any, Literal

import numpy as np
import zarr
from numpy.typing import NDArray

from deblend_batch import storage
from deblend_batch.arrays import stores
from deblend_batch.arrays.bounds import bounded
from deblend_batch.errors import BadDataError, FieldError, UserError
from deblend_batch.field.create import CHUNK_PX, SHARD_PX, create_field, finish_field
from deblend_batch.field.mask_bits import bad_pixels
from deblend_batch.field.meta import FieldMeta
from deblend_batch.field.psf import members as psf_members
from deblend_batch.field.psf.profile import is_seeing
from deblend_batch.field.psf.varying import FieldPsf
from deblend_batch.field.references import Reference, open_member, references_of
from deblend_batch.field.sky.noise import clipped_median_sigma, sample_blocks
from deblend_batch.field.unstored import without_unstored
from deblend_batch.field.wcs.sky_grid import SkyGrid
from deblend_batch.storage import Options
from deblend_batch.text import cause

__all__ = ["CHUNK_PX", "SHARD_PX", "Field", "FieldMeta", "create_field", "finish_field"]

Member = Literal["image", "variance", "mask"]

_MAX_EDGE_PX = 10_000_000


class Field:
    """A field, checked; opened with :meth:`open`.

    Arrays are opened on first use in each process: a field pickles as its URL and attributes.

    Parameters
    ----------
    url : str
        Zarr group, local path or fsspec URL.
    options : mapping, optional
        fsspec storage options.
    meta : FieldMeta
        Checked attributes.
    shape_yx : tuple of int
        Rows and columns.
    members : frozenset of str
        Which of ``image``, ``variance``, ``mask`` exist.
    references : mapping, optional
        Those of them that lie elsewhere.
    """

    def __init__(
        self,
        url: str,
        options: Options | None,
        meta: FieldMeta,
        shape_yx: tuple[int, int],
        members: frozenset[str],
        references: Mapping[str, Reference] | None = None,
    ) -> None:
        self.url = url
        self.options = dict(options or {})
        self.meta = meta
        self.shape_yx = shape_yx
        self._members = members
        self._references = dict(references or {})

    @classmethod
    def open(cls, url: str, options: Options | None = None) -> Field:
        """Open a field and check everything that costs no pixel.

        Parameters
        ----------
        url : str
            Zarr group (format 3 or 2), local path or fsspec URL.
        options : mapping, optional
            fsspec storage options.

        Returns
        -------
        Field
            Ready to read.

        Raises
        ------
        NotFoundError
            If there is no Zarr group.
        FieldError
            If the group breaks the layout, or asks for more than :mod:`deblend_batch.arrays.bounds` allows;
            the message names what, and how to mend it.
        StorageError
            If the store refuses.
        """
        group = stores.open_group(url, options)
        opened = cls._of_group(group, url, options)
        opened._check_references()  # noqa: SLF001
        SkyGrid.from_cards(opened.meta.wcs_cards, opened.shape_yx, url)
        psf_members.open_kernels(group, url, opened.meta, opened.shape_yx)
        psf_members.open_fwhm_map(group, url, opened.meta)
        return opened

    @classmethod
    def reopen(cls, url: str, options: Options | None = None) -> Field:
        """Open a field that was opened before, as workers do: what :meth:`open` alone checks is known.

        Parameters
        ----------
        url : str
            As of :meth:`open`.
        options : mapping, optional
            fsspec storage options.

        Returns
        -------
        Field
            Ready to read.

        Raises
        ------
        NotFoundError
            If there is no Zarr group any more.
        FieldError
            If the members that are read break the layout.
        StorageError
            If the store refuses.
        """
        return cls._of_group(stores.open_group(url, options), url, options)

    @classmethod
    def _of_group(cls, group: zarr.Group, url: str, options: Options | None) -> Field:
        attributes = group.attrs.asdict()
        meta, places = FieldMeta.from_attributes(attributes, url), references_of(attributes, url)
        image = open_member(group, url, options, "image", places)
        if image is None:
            raise FieldError(f"{url}: array 'image' is missing; ingest the image again")
        shape_yx = _check_image(image, meta, url, is_own="image" not in places)
        bounded(image, url, "image")
        members = {"image"}
        for name in ("variance", "mask"):
            array = open_member(group, url, options, name, places)
            if array is not None:
                _check_companion(array, name, image, url, is_own=name not in places)
                bounded(array, url, name)
                members.add(name)
        return cls(url, options, meta, shape_yx, frozenset(members), places)

    def __repr__(self) -> str:
        return f"Field({self.url!r}, bands={self.meta.bands}, shape_yx={self.shape_yx})"

    def __getstate__(self) -> dict[str, Any]:
        kept = ("url", "options", "meta", "shape_yx", "_members", "_references")
        return {name: self.__dict__[name] for name in kept}

    @property
    def n_bands(self) -> int:
        """Number of bands."""
        return len(self.meta.bands)

    @cached_property
    def is_local(self) -> bool:
        """Whether all pixels lie on this machine."""
        return all(map(storage.is_local, self.places))

    @property
    def places(self) -> tuple[str, ...]:
        """Where the pixels may lie: URL of the field, and of each array to which it refers."""
        referred = (each.url(self.url, self.options) for each in self._references.values())
        return (self.url, *referred)

    def _check_references(self) -> None:
        for reference in self._references.values():
            reference.check(reference.url(self.url, self.options), self.url, self.options)

    @cached_property
    def pixel_scale_arcsec(self) -> float:
        """Edge of a pixel at the centre of the image, arcsec."""
        return self._sky.pixel_scale_arcsec()

    @cached_property
    def psf_fwhm_px(self) -> tuple[float, ...]:
        """Full width at half maximum of the PSF per band, px."""
        return tuple(width / self.pixel_scale_arcsec for width in self.meta.psf_fwhm_arcsec)

    @cached_property
    def image(self) -> zarr.Array[Any]:
        """Image units, float32, (band, y, x), or (y, x) where the store holds one band so."""
        return self._array("image")

    @cached_property
    def variance(self) -> zarr.Array[Any] | None:
        """Image units squared, float32, the image's shape; None where the field has none."""
        return self._array("variance") if "variance" in self._members else None

    @cached_property
    def mask(self) -> zarr.Array[Any] | None:
        """Unsigned int, (y, x) or (band, y, x); None where the field has none.

        Which pixels are bad :func:`deblend_batch.field.mask_bits.bad_pixels` tells.
        """
        return self._array("mask") if "mask" in self._members else None

    @cached_property
    def psf(self) -> FieldPsf:
        """The point spread function, by cells where it varies; read and checked on first use.

        Raises
        ------
        FieldError
            If a kernel or a width is none; the message names which, and how to mend it.
        BadDataError
            If a chunk cannot be decoded.
        """
        group = stores.open_group(self.url, self.options)
        return psf_members.read_psf(group, self.url, self.meta, self.shape_yx)

    def plane(
        self, band: int, rows: slice, columns: slice, member: Member = "image"
    ) -> NDArray[Any]:
        """Read a window of one band, whichever way the store holds it.

        Parameters
        ----------
        band : int
            Number of the band, 0 the first.
        rows, columns : slice
            The window, px.
        member : {"image", "variance", "mask"}
            Which array.

        Returns
        -------
        ndarray, shape (y, x)
            As stored; of the image NaN where a chunk was never stored.

        Raises
        ------
        FieldError
            If the field has no such member.
        BadDataError
            If a chunk cannot be decoded.
        StorageError
            If the store cannot be read.
        """
        if member not in self._members:
            raise FieldError(f"{self.url}: this field has no '{member}'; ingest it with one")
        array: zarr.Array[Any] = getattr(self, member)

        try:
            window = _of_band(array, band, rows, columns)
            if member == "image":
                window = without_unstored(
                    window[None],
                    (rows.start or 0, columns.start or 0),
                    array.fill_value,
                    (array.chunks[-2], array.chunks[-1]),
                    lambda *chunk: _of_band(array, band, *chunk)[None],
                )[0]
        except MemoryError:  # this machine's fault, not the chunk's, whose size has been checked
            raise
        except Exception as error:
            meaning = storage.translate(self.url, error)
            if isinstance(meaning, UserError):
                raise meaning from error
            raise BadDataError(
                f"{self.url}: '{member}' has a chunk that cannot be decoded ({cause(error)}); ingest again"
            ) from error
        return window

    def world_to_pixel(
        self, ra_deg: NDArray[np.float64], dec_deg: NDArray[np.float64]
    ) -> NDArray[np.float64]:
        """Return pixel positions; see :meth:`deblend_batch.field.wcs.sky_grid.SkyGrid.world_to_pixel`.

        Parameters
        ----------
        ra_deg, dec_deg : ndarray of float64, shape (n,)
            ICRS degrees.

        Returns
        -------
        ndarray of float64, shape (n, 2)
            (y, x), 0-based pixel centres; NaN for NaN, infinite off the projection.
        """
        return self._sky.world_to_pixel(ra_deg, dec_deg)

    def pixel_to_world(self, yx: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return sky positions; see :meth:`deblend_batch.field.wcs.sky_grid.SkyGrid.pixel_to_world`.

        Parameters
        ----------
        yx : ndarray of float64, shape (n, 2)
            (y, x), 0-based pixel centres.

        Returns
        -------
        ndarray of float64, shape (n, 2)
            (ra, dec), ICRS degrees; NaN for NaN.
        """
        return self._sky.pixel_to_world(yx)

    def is_from_space(self, band: int) -> bool:
        """Tell whether a band's PSF is that of a telescope in space: narrower than any seeing.

        Parameters
        ----------
        band : int
            Number of the band.

        Returns
        -------
        bool
            By the width that the field says.
        """
        return not is_seeing(self.psf_fwhm_px[band], self.pixel_scale_arcsec)

    def measure_noise(self) -> tuple[float, ...]:
        """Return the background rms per pixel of each band, measured unless the attributes give it.

        The median of the clipped rms (:func:`deblend_batch.field.sky.noise.clipped_median_sigma`) of
        at most 32 blocks of 512 px, spread evenly: the same in every run, never the whole image.

        Returns
        -------
        tuple of float
            Image units, per band.

        Raises
        ------
        FieldError
            If a band has no varying good pixels in the sample.
        StorageError
            If the store cannot be read.
        """
        if self.meta.noise_sigma is not None:
            return self.meta.noise_sigma
        return tuple(self._band_noise(band) for band in range(self.n_bands))

    def _band_noise(self, band: int) -> float:
        sigmas = []
        for rows, columns in sample_blocks(self.shape_yx):
            pixels = self.plane(band, rows, columns)
            if "mask" in self._members:
                mask = self.plane(band, rows, columns, "mask")
                pixels = pixels[~bad_pixels(mask, self.meta.mask_bits)]
            sigmas.append(clipped_median_sigma(pixels)[1])
        measured = [sigma for sigma in sigmas if sigma > 0]
        if not measured:
            raise FieldError(
                f"{self.url}: cannot measure the noise of band {self.meta.bands[band]!r} "
                "(no varying good pixels in the sample); set the attribute 'noise_sigma'"
            )
        return float(np.median(measured))

    def _array(self, name: str) -> zarr.Array[Any]:
        group = stores.open_group(self.url, self.options)
        array = open_member(group, self.url, self.options, name, self._references)
        if array is None:
            raise FieldError(f"{self.url}: array {name!r} has gone; ingest the image again")
        return bounded(array, self.url, name)

    @cached_property
    def _sky(self) -> SkyGrid:
        return SkyGrid.from_cards(self.meta.wcs_cards, self.shape_yx, self.url)


def _of_band(array: zarr.Array[Any], band: int, rows: slice, columns: slice) -> NDArray[Any]:
    """Read a window of one band, whichever way the store holds it."""
    key = (rows, columns) if array.ndim == 2 else (band, rows, columns)
    return np.asarray(array[key])


def _check_image(
    image: zarr.Array[Any], meta: FieldMeta, url: str, *, is_own: bool
) -> tuple[int, int]:
    shape, n_bands = image.shape, len(meta.bands)
    _check_float(image, "image", url, is_own=is_own)
    if image.ndim not in {2, 3}:
        raise FieldError(f"{url}: 'image' has shape {shape}; it must be (band, y, x) or (y, x)")
    planes = shape[0] if image.ndim == 3 else 1
    if planes != n_bands:
        raise FieldError(
            f"{url}: 'image' has {planes} planes (shape {shape}), but attribute 'bands' names "
            f"{n_bands}; make them agree"
        )
    if not all(0 < edge <= _MAX_EDGE_PX for edge in shape[-2:]):
        raise FieldError(
            f"{url}: 'image' has shape {shape}; rows and columns must be 1 to {_MAX_EDGE_PX}"
        )
    return int(shape[-2]), int(shape[-1])


def _check_float(array: zarr.Array[Any], name: str, url: str, *, is_own: bool) -> None:
    """Refuse other types than float32; of what others have written double precision is read, too."""
    sizes = (4,) if is_own else (4, 8)
    if array.dtype.kind != "f" or array.dtype.itemsize not in sizes:
        raise FieldError(f"{url}: '{name}' is {array.dtype}; it must be float32")


def _check_companion(
    array: zarr.Array[Any], name: str, image: zarr.Array[Any], url: str, *, is_own: bool
) -> None:
    allowed = {image.shape, image.shape[-2:]} if name == "mask" else {image.shape}
    if array.shape not in allowed:
        raise FieldError(
            f"{url}: '{name}' has shape {array.shape}, but 'image' has {image.shape}; "
            "make them agree"
        )
    if name == "mask" and array.dtype.kind not in "ub":
        raise FieldError(f"{url}: 'mask' is {array.dtype}; it must be an unsigned integer type")
    if name == "variance":
        _check_float(array, name, url, is_own=is_own)
