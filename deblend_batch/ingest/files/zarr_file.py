"""Images that lie in Zarr already: an array of others, or a group of them, as planes to ingest.

What such an image is no standard says: cards of a FITS header are looked for in the attributes of the array
and of its group, or are those of a FITS file that the user names.
"""

from __future__ import annotations

import base64
import re
import struct
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import zarr
from astropy.io import fits
from numpy.typing import NDArray

from deblend_batch import storage
from deblend_batch.arrays import stores
from deblend_batch.arrays.bounds import bounded
from deblend_batch.errors import FieldError, NotFoundError, UserError
from deblend_batch.field.unstored import without_unstored
from deblend_batch.ingest.files.encoding import Encoding
from deblend_batch.ingest.files.hdus import PREFERRED_NAMES
from deblend_batch.ingest.files.zarr_axes import Axes, without_numbers
from deblend_batch.ingest.reference import ImageRef
from deblend_batch.storage import Options
from deblend_batch.text import cause, shown

_KEYWORD = re.compile(r"[A-Z0-9_-]{1,8}")
_PACKED = frozenset({"scale_factor", "add_offset"})
_MOST_CARDS = 10_000
_BASE64_DOUBLE = 12
_REMEDY = "store it again in chunks of 512 px"


def is_zarr(url: str, options: Options | None) -> bool:
    """Tell whether a URL is a node of Zarr."""
    seems = ".zarr" in url or storage.is_local(url)
    return seems and stores.is_zarr(storage.list_names(url, options))


class ZarrFile:
    """An array, or a group of arrays.

    Parameters
    ----------
    url : str
        Where it is.
    options : mapping, optional
        fsspec storage options.
    header : astropy.io.fits.Header, optional
        Counts instead of the attributes.
    """

    def __init__(self, url: str, options: Options | None, header: fits.Header | None) -> None:
        self._url = url.rstrip("/")
        self._options = options
        self._header = header
        self._is_array = not _is_group(self._url, options)
        self._arrays: dict[str, zarr.Array[Any]] = {}

    def place(self, name: str | int | None) -> str:
        """Return the URL of the array that is meant: this one, one beside it, or one of the group."""
        if not isinstance(name, str):
            return self._url if self._is_array else self._main()
        group = storage.parent(self._url) if self._is_array else self._url
        return storage.join(group, *(name.split("/")))

    def n_bands(self, name: str | int | None) -> int:
        """Return the number of planes of an array."""
        array = self._array(self.place(name))
        return axes_of(array).n_bands(array.shape)

    def plane(self, ref: ImageRef, band: int) -> ZarrPlane:
        """Open a plane of an array."""
        place = self.place(ref.hdu)
        array = self._array(place)
        header = self._header if self._header is not None else _header(array, self._above(place))
        return ZarrPlane(self._url, place, array, band, header)

    def _main(self) -> str:
        names = storage.list_names(self._url, self._options)
        meant = [name for name in names if name.upper() in PREFERRED_NAMES]
        if len(meant) != 1:
            raise FieldError(
                f"{self._url}: is a Zarr group; name the array: {self._url}/NAME (it has "
                f"{', '.join(name for name in names if not name.startswith('.'))})"
            )
        return storage.join(self._url, meant[0])

    def _array(self, place: str) -> zarr.Array[Any]:
        if place not in self._arrays:
            array = bounded(stores.open_array(place, self._options), place, "array", _REMEDY)
            _check(array, place)
            self._arrays[place] = array
        return self._arrays[place]

    def _above(self, place: str) -> Mapping[str, Any]:
        try:
            return stores.open_group(storage.parent(place), self._options).attrs.asdict()
        except (NotFoundError, FieldError):
            return {}


class ZarrPlane:
    """A plane of an array of Zarr, as an image.

    Parameters
    ----------
    url : str
        As the user gave it.
    place : str
        Of the array.
    array : zarr.Array
        Of the axes y and x, and of one for bands; others have one element.
    band : int
        Number of the plane.
    header : astropy.io.fits.Header
        What is known of it.
    """

    def __init__(
        self, url: str, place: str, array: zarr.Array[Any], band: int, header: fits.Header
    ) -> None:
        self.url = url
        self.place = place
        self._axes = axes = axes_of(array)
        self._chunk_yx = int(array.chunks[axes.y]), int(array.chunks[axes.x])
        self._missing = _missing_numbers(array)
        self.label = place if axes.band is None else f"{place}[{band}]"
        self.encoding = Encoding()
        self.shape_yx = int(array.shape[axes.y]), int(array.shape[axes.x])
        self.tile_rows = self._chunk_yx[0]
        self.unsettled = header
        self.headers = (header,)
        self._array = array
        self._band = min(band, axes.n_bands(array.shape) - 1)

    def unlike_a_field_s(self, *, is_mask: bool) -> str:
        """Say why a field cannot use the array as it stands; nothing where it can."""
        dtype = self._array.dtype
        if is_mask and dtype.kind not in "ub":
            return f"it holds {dtype}, and a mask unsigned integers"
        if not is_mask and (dtype.kind != "f" or dtype.itemsize < 4):
            return "its pixels are no float32 or float64"
        if not self._axes.is_field_s:
            return "its axes are not (y, x) or (band, y, x)"
        if self._missing and not is_mask:
            return f"its pixels of {shown(self._missing[0])} are no data"
        return ""

    def read(self, rows: slice, columns: slice, factor: float = 1.0) -> NDArray[np.float32]:
        """Read a window, times a factor."""
        with np.errstate(over="ignore", invalid="ignore"):
            window = self._window(rows, columns)
            return np.ascontiguousarray(window if factor == 1 else window * factor, np.float32)

    def values(self, rows: slice, columns: slice) -> NDArray[np.float64]:
        """Read a window in double precision."""
        return self._window(rows, columns).astype(np.float64)

    def read_bits(
        self, rows: slice, columns: slice
    ) -> tuple[NDArray[np.uint64], NDArray[np.bool_]]:
        """Read a window of a mask."""
        raw = self._raw(rows, columns)
        if raw.dtype.kind == "f":
            raise FieldError(f"{self.label}: is {raw.dtype}; a mask must be of integers")
        bits = raw if raw.dtype.kind in "ub" else raw.astype(f"u{raw.dtype.itemsize}")
        return bits.astype(np.uint64), np.zeros(raw.shape, bool)

    def lost_step(self, rows: slice, columns: slice) -> None:
        """Return None: nothing is quantised."""
        del rows, columns

    def _window(self, rows: slice, columns: slice) -> NDArray[Any]:
        """Read a window, with NaN where nothing was ever stored."""

        def read(rows: slice, columns: slice) -> NDArray[Any]:
            raw = self._raw(rows, columns)
            return (raw if raw.dtype.kind == "f" else raw.astype(np.float64))[None]

        planes = without_unstored(
            read(rows, columns),
            (rows.start, columns.start),
            self._array.fill_value,
            self._chunk_yx,
            read,
        )
        return without_numbers(planes[0], self._missing)

    def _raw(self, rows: slice, columns: slice) -> NDArray[Any]:
        key = self._axes.key(self._band, rows, columns)
        try:
            window = np.ascontiguousarray(self._axes.as_image(np.asarray(self._array[key])))
        except MemoryError:
            raise
        except Exception as error:
            meaning = storage.translate(self.label, error)
            if isinstance(meaning, UserError):
                raise meaning from error
            raise FieldError(
                f"{self.label}: has a chunk that cannot be decoded ({cause(error)}); store it again"
            ) from error
        return window


def _is_group(url: str, options: Options | None) -> bool:
    if ".zarray" in storage.list_names(url, options):
        return False
    try:
        stores.open_group(url, options)
    except FieldError:  # it is an array of format 3
        return False
    return True


def _check(array: zarr.Array[Any], place: str) -> None:
    """Refuse what is no image, or holds other numbers than it stores."""
    try:
        axes_of(array)
    except ValueError as error:
        raise FieldError(f"{place}: {error}") from error
    if array.dtype.kind not in "fiub":
        raise FieldError(f"{place}: holds {array.dtype}; it must hold numbers")
    packed = _PACKED & set(array.attrs)
    if packed:
        raise FieldError(
            f"{place}: has the attribute {min(packed)}, by which its numbers are no pixel values; unpack them"
        )


def axes_of(array: zarr.Array[Any]) -> Axes:
    """Find an array's axes, by the names that format 3 or xarray give them."""
    names = getattr(array.metadata, "dimension_names", None) or array.attrs.get("_ARRAY_DIMENSIONS")
    texts = names if isinstance(names, list | tuple) else ()
    return Axes.of(array.shape, [each if isinstance(each, str) else None for each in texts])


def _missing_numbers(array: zarr.Array[Any]) -> tuple[float, ...]:
    """Return the numbers that the conventions of netCDF and xarray call "no data", but for NaN.

    Of format 2 xarray takes the fill value for one; with zero it is what nobody thought of.
    """
    said = [array.attrs.get(key) for key in ("_FillValue", "missing_value")]
    if array.metadata.zarr_format == 2 and "_ARRAY_DIMENSIONS" in array.attrs and array.fill_value:
        said.append(array.fill_value)
    values = [each for one in said for each in (one if isinstance(one, list) else [one])]
    numbers = [_as_number(each) for each in values]
    return tuple(dict.fromkeys(each for each in numbers if each is not None))


def _as_number(value: object) -> float | None:
    """Read a number of an attribute; of format 3 xarray writes floats as base64."""
    if isinstance(value, str) and len(value) == _BASE64_DOUBLE:
        try:
            (value,) = struct.unpack("<d", base64.b64decode(value, validate=True))
        except (ValueError, struct.error):
            return None
    if isinstance(value, bool) or not isinstance(value, int | float | np.number):
        return None
    return float(value) if np.isfinite(value) else None


def _header(array: zarr.Array[Any], above: Mapping[str, Any]) -> fits.Header:
    """Find the cards of a FITS header in attributes: of the array, else of its group."""
    for cards in _mappings(array.attrs.asdict(), above):
        if "CTYPE1" in cards:
            unit = array.attrs.get("units", array.attrs.get("unit"))
            return _as_header({"BUNIT": unit, **cards} if isinstance(unit, str) else cards)
    return fits.Header()


def _mappings(*attributes: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    for each in attributes:
        yield each
        yield from (value for value in each.values() if isinstance(value, Mapping))


def _as_header(cards: Mapping[str, Any]) -> fits.Header:
    header = fits.Header()
    for key, value in list(cards.items())[:_MOST_CARDS]:
        plain = (
            isinstance(value, str) and len(value) <= 60 and value.isascii() and value.isprintable()
        )
        number = isinstance(value, int | float) and abs(value) < 1e300
        if _KEYWORD.fullmatch(key) and (plain or number):
            header[key] = value
    return header
