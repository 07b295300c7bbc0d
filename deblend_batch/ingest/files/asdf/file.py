"""An open ASDF file: which array is meant, and what the tree says of it, in the words of a FITS header."""

from __future__ import annotations

import re
from contextlib import ExitStack
from typing import Any, BinaryIO

import numpy as np
import yaml
from astropy.io import fits
from numpy.typing import NDArray

from deblend_batch.errors import FieldError
from deblend_batch.ingest.contents import FileContents
from deblend_batch.ingest.files.asdf import tree
from deblend_batch.ingest.files.asdf.arrays import Array, OpenArray, arrays_of, shape_of
from deblend_batch.ingest.files.asdf.blocks import Blocks
from deblend_batch.ingest.files.asdf.wcs import fits_cards
from deblend_batch.ingest.files.encoding import Encoding
from deblend_batch.ingest.files.hdus import PREFERRED_NAMES
from deblend_batch.ingest.header.mask_names import survey_bits
from deblend_batch.ingest.reference import ImageRef

_ROMAN = re.compile(r"asdf://stsci\.edu/datamodels/roman/tags/wfi_(?P<kind>mosaic|image)-[\d.]+")
_LISTED = 20
_RATE_UNIT = "DN/s"
_FLUX_UNIT = "MJy / sr"


class AsdfFile:
    """An open file.

    Parameters
    ----------
    file : file object
        Seekable.
    url : str
        Where it is.
    scratch : str
        Folder for what is unpacked.
    stack : ExitStack
        Closes what is opened here.
    check_sums : bool
        Refuse blocks that do not fit their MD5.
    """

    def __init__(
        self, file: BinaryIO, url: str, scratch: str, stack: ExitStack, *, check_sums: bool
    ) -> None:
        self._url = url
        top, end = tree.read_tree(file, url)
        self._blocks = Blocks(file, url, end, scratch, stack, check_sums=check_sums)
        self._top: yaml.Node = tree.at(top, "roman") or top
        self._arrays = arrays_of(self._top, url)

    def plane(self, ref: ImageRef) -> AsdfPlane:
        """Open an array as an image."""
        name = self._first_image() if ref.hdu is None else self._asked_for(ref)
        exact = ImageRef(ref.url, name)
        array = self._array(name, str(exact))
        if not array.is_image:
            raise FieldError(
                f"{exact}: is no 2-d image, it has shape {array.shape}; the file has {self._listing()}"
            )
        return AsdfPlane(exact, array.open(self._blocks), self)

    def contents(self, plane: AsdfPlane) -> FileContents:
        """Say which arrays beside an image belong to it: as Roman's and Webb's pipelines call them."""
        stem = plane.name.rpartition(".")[0]
        beside = {
            name: ImageRef(self._url, each)
            for name in ("err", "dq", "weight", "context")
            if (each := f"{stem}.{name}".lstrip(".")) in self._arrays
        }
        covers = "dq" not in beside and bool(beside.keys() & {"weight", "context"})
        return FileContents(
            noise=beside.get("err"),
            noise_kind="rms" if "err" in beside else None,
            mask=beside.get("dq") or beside.get("weight") or beside.get("context"),
            is_coverage=covers,
        )

    def header(self, array: Array, shape_yx: tuple[int, int], label: str) -> fits.Header:
        """Say in a FITS header what the tree does of an image."""
        node = tree.at(self._top, "meta", "wcs") or tree.at(self._top, "wcs")
        if node is None:
            raise FieldError(
                f"{label}: no celestial WCS in its tree (meta.wcs); solve its astrometry"
            )
        header = fits_cards(node, self._blocks, shape_yx, label)
        said = {
            "BUNIT": self._unit(array),
            "FILTER": self._text("instrument", "optical_element", "filter"),
            "TELESCOP": tree.text_at(self._top, "meta", "telescope"),
        }
        header.update({key: _ascii(text) for key, text in said.items() if text})
        return header

    def mask_header(self) -> fits.Header:
        """Name the bits of a mask, as far as they are known: Roman's."""
        if _ROMAN.fullmatch(self._top.tag) is None:
            return fits.Header()
        return fits.Header(
            [(f"HIERARCH MP_{name}", bit) for name, bit in survey_bits("roman-l3").items()]
        )

    def _unit(self, array: Array) -> str:
        """Return an image's unit; Roman's data models say in their schemas what their arrays hold."""
        roman = _ROMAN.fullmatch(self._top.tag)
        if array.unit or roman is None:
            return array.unit or tree.text_at(self._top, "meta", "bunit_data")
        is_calibrated = tree.text_at(self._top, "meta", "cal_step", "flux") == "COMPLETE"
        if roman["kind"] == "mosaic" or is_calibrated:
            return _FLUX_UNIT
        one = tree.number_at(self._top, "meta", "photometry", "conversion_megajanskys")
        return _RATE_UNIT if one is None or one <= 0 else f"{one:.9e} {_FLUX_UNIT}"

    def _text(self, part: str, *keys: str) -> str:
        texts = (tree.text_at(self._top, "meta", part, key) for key in keys)
        return next((text for text in texts if text), "")

    def _array(self, name: str, label: str) -> Array:
        node, unit = self._arrays[name]
        return Array.of(name, node, unit, label)

    def _first_image(self) -> str:
        preferred = [
            name for name in self._arrays if name.rpartition(".")[2].upper() in PREFERRED_NAMES
        ]
        if not self._arrays:
            raise FieldError(f"{self._url}: holds no array; give the file of an image")
        return next(iter([*preferred, *self._arrays]))

    def _asked_for(self, ref: ImageRef) -> str:
        wanted = str(ref.hdu).lower().removeprefix("roman.")
        same = [name for name in self._arrays if name.lower() == wanted]
        last = [name for name in self._arrays if name.lower().rpartition(".")[2] == wanted]
        if not same and len(last) != 1:
            raise FieldError(f"{ref.url}: has no array {ref.hdu!r}; it has {self._listing()}")
        return (same or last)[0]

    def _listing(self) -> str:
        """Name what the file has, for messages."""
        texts = [f"{name} {shape_of(node)}" for name, (node, _) in self._arrays.items()]
        more = f", and {len(texts) - _LISTED} more" if len(texts) > _LISTED else ""
        return (", ".join(texts[:_LISTED]) or "no arrays") + more


class AsdfPlane:
    """An array of an open file, as an image.

    Parameters
    ----------
    ref : ImageRef
        File and array.
    pixels : OpenArray
        Its pixels.
    file : AsdfFile
        Says what they are.
    """

    def __init__(self, ref: ImageRef, pixels: OpenArray, file: AsdfFile) -> None:
        self.url = ref.url
        self.label = str(ref)
        self.name = pixels.array.name
        self.encoding = Encoding()
        self.tile_rows = 1
        height, width = pixels.array.shape[-2:]
        self.shape_yx = height, width
        self._pixels = pixels
        self._file = file
        self._header: fits.Header | None = None

    @property
    def unsettled(self) -> fits.Header:
        """What the tree says, as cards; of a mask the names of its bits."""
        if self._header is None:
            is_mask = self._pixels.array.dtype.kind == "u"
            array = self._pixels.array
            self._header = (
                self._file.mask_header()
                if is_mask
                else self._file.header(array, self.shape_yx, self.label)
            )
        return self._header

    @property
    def headers(self) -> tuple[fits.Header, ...]:
        """What the tree says, as cards."""
        return (self.unsettled,)

    def read(self, rows: slice, columns: slice, factor: float = 1.0) -> NDArray[np.float32]:
        """Read a window, times a factor."""
        with np.errstate(over="ignore", invalid="ignore"):
            raw = self._pixels.window(rows, columns)
            if factor == 1:
                return np.ascontiguousarray(raw, np.float32)
            return np.asarray(raw.astype(np.float64) * factor, np.float32)

    def values(self, rows: slice, columns: slice) -> NDArray[np.float64]:
        """Read a window in double precision."""
        with np.errstate(invalid="ignore"):
            return self._pixels.window(rows, columns).astype(np.float64)

    def read_bits(
        self, rows: slice, columns: slice
    ) -> tuple[NDArray[np.uint64], NDArray[np.bool_]]:
        """Read a window of a mask."""
        if self._pixels.array.dtype.kind == "f":
            values = self.values(rows, columns)  # half precision has no room for the bound
            with np.errstate(invalid="ignore"):
                unknown = ~((values >= 0) & (values < 2.0**63) & (values == np.floor(values)))
            return np.where(unknown, 0, values).astype(np.uint64), unknown
        raw = self._pixels.window(rows, columns)
        return raw.astype(np.uint64), np.zeros(raw.shape, bool)

    def lost_step(self, rows: slice, columns: slice) -> NDArray[Any] | None:
        """Return None: nothing is quantised."""
        del rows, columns
        return None


def _ascii(text: str) -> str:
    """Return a text as a header may have it."""
    return "".join(char if " " <= char <= "~" else "?" for char in text)[:60]
