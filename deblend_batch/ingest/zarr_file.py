"""Images that lie in Zarr already: an array of others, or a group of them, as planes to ingest.

What such an image is no standard says: cards of a FITS header are looked for in the attributes of the array
and of its group, or are those of a FITS file that the user names.
"""

from __future__ import annotations

import re
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
from deblend_batch.ingest.encoding import Encoding
from deblend_batch.ingest.hdus import PREFERRED_NAMES
from deblend_batch.ingest.reference import ImageRef
from deblend_batch.storage import Options
from deblend_batch.text import cause

_KEYWORD = re.compile(r"[A-Z0-9_-]{1,8}")
_PACKED = frozenset({"scale_factor", "add_offset"})
_MOST_CARDS = 10_000
_MOST_BANDS = 1000
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
        return int(array.shape[0]) if array.ndim == 3 else 1

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
        Of two axes, or of three: band, y, x.
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
        self.label = place if array.ndim == 2 else f"{place}[{band}]"
        self.encoding = Encoding()
        self.shape_yx = int(array.shape[-2]), int(array.shape[-1])
        self.tile_rows = int(array.chunks[-2])
        self.unsettled = header
        self.headers = (header,)
        self.is_stored_as_fields_are = array.dtype.kind == "f" and array.dtype.itemsize >= 4
        self._array = array
        self._band = min(band, array.shape[0] - 1) if array.ndim == 3 else None

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
        if raw.dtype.kind not in "ub":
            raise FieldError(
                f"{self.label}: is {raw.dtype}; a mask must be an unsigned integer type"
            )
        return raw.astype(np.uint64), np.zeros(raw.shape, bool)

    def lost_step(self, rows: slice, columns: slice) -> None:
        """Return None: nothing is quantised."""
        del rows, columns

    def _window(self, rows: slice, columns: slice) -> NDArray[Any]:
        """Read a window, with NaN where nothing was ever stored."""
        raw = self._raw(rows, columns)
        if raw.dtype.kind != "f":
            return raw
        chunk_yx = self._array.chunks[-2], self._array.chunks[-1]
        planes = without_unstored(
            raw[None],
            (rows.start, columns.start),
            self._array.fill_value,
            chunk_yx,
            lambda *chunk: self._raw(*chunk)[None],
        )
        window: NDArray[Any] = planes[0]
        return window

    def _raw(self, rows: slice, columns: slice) -> NDArray[Any]:
        key = (rows, columns) if self._band is None else (self._band, rows, columns)
        try:
            window: NDArray[Any] = np.asarray(self._array[key])
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
    if (
        array.ndim not in {2, 3}
        or 0 in array.shape
        or (array.ndim == 3 and array.shape[0] > _MOST_BANDS)
    ):
        raise FieldError(f"{place}: has shape {array.shape}; it must be (y, x) or (band, y, x)")
    if array.dtype.kind not in "fiub":
        raise FieldError(f"{place}: holds {array.dtype}; it must hold numbers")
    packed = _PACKED & set(array.attrs)
    if packed:
        raise FieldError(
            f"{place}: has the attribute {min(packed)}, by which its numbers are no pixel values; unpack them"
        )


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
