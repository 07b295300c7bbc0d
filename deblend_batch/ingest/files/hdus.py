"""An open FITS file: which HDU is meant, and that one opened alone."""

from __future__ import annotations

import math
import re
import warnings
from collections.abc import Iterator, Sequence
from typing import Any, BinaryIO

import numpy as np
from astropy.io import fits
from numpy.typing import NDArray

from deblend_batch import storage
from deblend_batch.errors import (
    DeblendError,
    FieldError,
    NotFoundError,
    StorageError,
    TooLargeError,
)
from deblend_batch.fits_structure import Cards, Unit, read_header, walk
from deblend_batch.ingest.files.checksum import check_datasum
from deblend_batch.ingest.files.tiles import TileLayout, TileStreams
from deblend_batch.ingest.files.view import HduView
from deblend_batch.ingest.reference import ImageRef

PREFERRED_NAMES = ("SCI", "SCIENCE", "IMAGE", "DATA", "FLUX")
"""Extension names that mean the image, where no HDU is asked for; else the primary one, or the only one."""
_OF_PLANES = re.compile(
    r"(\w+[_ -])?(WHT|WGT|WEIGHTS?|I(NV)?VAR|RMS|ERR(ORS?)?|SIGMA|STD(DEV)?|UNC(ERT)?|VAR(IANCE)?|NOISE"
    r"|MASKS?|MSK|BPM|DQ|FLAGS?|CTX|CON(TEXT)?|EXP(TIME|OSURE|MAP)?|NEXP|PSF|KERNEL|BKG|BACK(GROUND)?|SKY"
    r"|COV(ERAGE)?|SEG(M|MENTATION)?|MODELS?|RESID(UALS?)?)(([_ -]\w+)|\d+)?",
    re.IGNORECASE,
)
"""Names of what lies beside an image."""
MAX_PX = 1 << 42
"""Pixels of an image, as many as a field can have."""

_LISTED = 20


class FitsFile:
    """An open file, whose HDUs are found as far as they are asked for.

    Parameters
    ----------
    file : file object
        Seekable.
    url : str
        Where it is, for messages.
    """

    def __init__(self, file: BinaryIO, url: str) -> None:
        self._file = file
        self._url = url
        self._size = file.seek(0, 2)
        file.seek(0)
        self._walk = walk(file, url, self._size)
        self._known: list[Unit] = []
        self._damage: DeblendError | None = None

    def units(self) -> Iterator[Unit]:
        """Yield the HDUs; where the file is damaged each walk ends with that error."""
        number = 0
        while number < len(self._known) or self._finds_another():
            yield self._known[number]
            number += 1

    def _finds_another(self) -> bool:
        if self._damage is not None:
            raise self._damage
        try:
            unit = next(self._walk, None)
        except DeblendError as error:
            self._damage = error  # a generator that has raised is at its end
            raise
        if unit is not None:
            self._known.append(unit)
        return unit is not None

    def select(self, ref: ImageRef) -> Unit:
        """Return the image that is meant, checked against the file's size."""
        unit = self._first_image() if ref.hdu is None else self._asked_for(ref)
        pixels = math.prod(unit.shape or ())
        if pixels > MAX_PX:
            raise TooLargeError(
                f"{ref}: announces {pixels:,} pixels, and a field has {MAX_PX:,} at most; its header is "
                "damaged, or the image is too large: divide it"
            )
        if self._size < unit.data_stop:
            raise FieldError(
                f"{ref}: truncated: its data end at byte {unit.data_stop}, the file has {self._size}; "
                "fetch it again"
            )
        return unit

    def select_stack(self, ref: ImageRef) -> Unit:
        """Return the image of any number of axes that is meant; if none is, the first that has pixels."""
        images = [unit for unit in self.units() if unit.kind in {"image", "compressed"}]
        chosen = next(
            (
                unit
                for unit in images
                if (bool(unit.shape) if ref.hdu is None else _is_meant(unit, ref.hdu))
            ),
            None,
        )
        if chosen is None or not chosen.shape:
            raise FieldError(f"{ref}: holds no such image; it has {self.listing()}")
        return chosen

    def open(self, unit: Unit, label: str) -> tuple[Any, TileStreams | None]:
        """Open an image as astropy's HDU, whose pixels are as the file has them, without BSCALE and BZERO.

        Of a compressed one also what checks its tiles.
        """
        header = self._header(unit)
        layout = TileLayout.of(Cards.of(header, label)) if unit.kind == "compressed" else None
        view = HduView(header, self._file, unit.data_start, unit.data_stop)
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # a view ends where its data do, without fill
                hdu: Any = fits.open(
                    view, memmap=False, ignore_missing_simple=True, do_not_scale_image_data=True
                )[0]
                streams = None if layout is None else _streams(layout, view, hdu)
                agrees = hdu.is_image and tuple(hdu.shape) == unit.shape
        except DeblendError:
            raise
        except Exception as error:
            reason = f"{label}: its header cannot be understood ({first_line(error)}); mend it"
            raise meaning(label, error, reason) from error
        if not agrees:
            raise FieldError(f"{label}: its header contradicts itself; mend it")
        return hdu, streams

    def check_data(self, unit: Unit, label: str) -> None:
        """Refuse an HDU whose data do not fit the sum that its header states."""
        header = self._header(unit)
        if b"DATASUM" in header:
            stated = settled(fits.Header.fromstring(header)).get("DATASUM", "")
            check_datasum(self._file, unit, stated, label)

    def header(self, unit: Unit) -> fits.Header:
        """Return the header as it is in the file: of a compressed image that of its table."""
        return fits.Header.fromstring(self._header(unit))

    def celestial_header(self, hdu: str | int | None) -> fits.Header | None:
        """Return the header of an HDU, or of the first that has a celestial WCS; None where there is none."""
        for unit in self.units():
            header = settled(self.header(unit))
            if ("CTYPE1" in header) if hdu is None else _is_meant(unit, hdu):
                return header
        return None

    def primary_header(self) -> fits.Header:
        """Return the header of the primary HDU."""
        return self.header(next(self.units()))

    def _header(self, unit: Unit) -> bytes:
        self._file.seek(unit.start)
        return read_header(self._file, self._url, unit.number) or b""

    def find(self, name: str, kind: str) -> Unit | None:
        """Return the first HDU of a name and a kind (``table``, or ``image``, compressed or not)."""
        kinds = ("image", "compressed") if kind == "image" else (kind,)
        return next(
            (each for each in self.units() if each.is_called(name) and each.kind in kinds), None
        )

    def read_data(self, unit: Unit, label: str, most_bytes: int) -> bytes:
        """Return the bytes of an HDU's data, of a table with what its columns point to."""
        if not 0 < unit.data_bytes <= most_bytes or unit.data_stop > self._size:
            raise FieldError(
                f"{label}: has {unit.data_bytes:,} bytes of data, of {most_bytes:,} that are read, or is "
                "truncated; fetch it again"
            )
        self._file.seek(unit.data_start)
        return self._file.read(unit.data_bytes)

    def read_stack(self, unit: Unit, label: str, most_pixels: int) -> NDArray[np.float64]:
        """Return all pixels of an image of any number of axes."""
        if not 0 < math.prod(unit.shape or ()) <= most_pixels or unit.data_stop > self._size:
            raise FieldError(
                f"{label}: has more than {most_pixels:,} pixels, or none, or is truncated; fetch it again"
            )
        hdu, streams = self.open(unit, label)
        try:
            if streams is not None:
                streams.check_all()
            return np.asarray(hdu.data, np.float64)
        except DeblendError:
            raise
        except Exception as error:
            reason = f"{label}: cannot be decoded ({first_line(error)}); fetch it again"
            raise meaning(label, error, reason) from error

    def _first_image(self) -> Unit:
        images = [unit for unit in self.units() if unit.is_image_2d]
        if not images:
            raise FieldError(f"{self._url}: holds no 2-d image; it has {self.listing()}")
        chosen = _most_like_an_image(images)
        if len(chosen) > 1:
            names = ", ".join(map(str, chosen[:_LISTED]))
            raise FieldError(
                f"{self._url}: holds several images ({names}), and nothing tells which is meant; give --hdu, "
                "its name or number (one for each band, if they are bands)"
            )
        return chosen[0]

    def _asked_for(self, ref: ImageRef) -> Unit:
        unit = next((unit for unit in self.units() if _is_meant(unit, ref.hdu)), None)
        if unit is None:
            raise FieldError(f"{ref.url}: has no HDU {ref.hdu!r}; it has {self.listing()}")
        if not unit.is_image_2d:
            raise FieldError(f"{ref}: is not a 2-d image; the file has {self.listing()}")
        return unit

    def listing(self) -> str:
        """Name what the file has, for messages."""
        texts = [str(unit) for unit in self.units()]
        more = f", and {len(texts) - _LISTED} more" if len(texts) > _LISTED else ""
        return ", ".join(texts[:_LISTED]) + more


def _most_like_an_image(images: Sequence[Unit]) -> Sequence[Unit]:
    """Return the image that is meant where nobody says which; several where nothing tells."""
    preferred = [unit for unit in images if unit.name.upper() in PREFERRED_NAMES]
    if preferred:
        return [unit for unit in preferred if unit.is_called(preferred[0].name)]
    own = [unit for unit in images if not _OF_PLANES.fullmatch(unit.name)] or images
    is_told = own[0].number == 0 or {unit.name.upper() for unit in own} <= {"", "COMPRESSED_IMAGE"}
    return own[:1] if is_told else own


def settled(header: fits.Header) -> fits.Header:
    """Return the cards that can be parsed: one that cannot counts as absent, and none warns later."""
    kept = []
    for card in header.cards:
        try:
            _ = card.keyword, card.value, card.comment
        except (fits.VerifyError, ValueError):
            continue
        kept.append(card)
    return fits.Header(kept)


def meaning(label: str, error: Exception, reason: str) -> Exception:
    """Return the store's failure that an error is, else that the file is damaged, with the reason."""
    failure = storage.translate(label, error)
    if isinstance(failure, StorageError | NotFoundError) and getattr(error, "errno", None):
        return failure
    return FieldError(reason)


def first_line(error: Exception) -> str:
    """Return the first line of what an error says, or its kind."""
    return (str(error).strip() or type(error).__name__).splitlines()[0]


def _is_meant(unit: Unit, hdu: str | int | None) -> bool:
    """Tell whether ``NAME``, ``N`` or ``NAME,VERSION`` means an HDU."""
    if not isinstance(hdu, str):
        return unit.number == hdu
    name, comma, version = hdu.rpartition(",")
    if comma and version.strip().isdecimal():
        return unit.is_called(name, int(version))
    return unit.is_called(hdu)


def _streams(layout: TileLayout, view: HduView, hdu: Any) -> TileStreams:
    table = hdu.compressed_data
    pointers: dict[str, NDArray[np.int64]] = {
        name: np.asarray(table[name]).astype(np.int64).reshape(-1, 2) for name in layout.columns
    }
    return TileStreams(layout, view, pointers, _steps(layout, table))


def _steps(layout: TileLayout, table: Any) -> NDArray[np.float64] | None:
    """Return ``ZSCALE`` of each tile, where it is quantised."""
    if not layout.moves_zeros:
        return None
    if "ZSCALE" in table.names:
        return np.asarray(table["ZSCALE"]).astype(np.float64).reshape(-1)
    return None
