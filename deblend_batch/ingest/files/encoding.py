"""From the numbers of a FITS file to pixel values: BSCALE and BZERO, BLANK, and asinh magnitudes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from astropy.io.fits import Header
from numpy.typing import NDArray

from deblend_batch.errors import FieldError
from deblend_batch.ingest.header.headers import number

_POGSON = 2.5 / np.log(10)


@dataclass(frozen=True)
class Encoding:
    """How an HDU's raw numbers mean pixel values.

    Parameters
    ----------
    scale, zero : float
        ``BSCALE`` and ``BZERO``: a value is ``zero + scale * raw``.
    blank : int, optional
        The raw integer of pixels that have no value.
    asinh : tuple of float, optional
        ``BSOFTEN`` and ``BOFFSET`` of Pan-STARRS, whose values are asinh magnitudes (Waters et al. 2020,
        doi:10.3847/1538-4365/abb82b).
    """

    scale: float = 1.0
    zero: float = 0.0
    blank: int | None = None
    asinh: tuple[float, float] | None = None

    @classmethod
    def of(cls, header: Header, raw_header: Header, where: str) -> Encoding:
        """Read it.

        Parameters
        ----------
        header : astropy.io.fits.Header
            Of the image.
        raw_header : astropy.io.fits.Header
            As the file has it: of a compressed image that of its table.
        where : str
            The image, for messages.
        """
        scale, zero = _card(header, "BSCALE", 1.0, where), _card(header, "BZERO", 0.0, where)
        if scale == 0:
            raise FieldError(f"{where}: BSCALE is 0, which leaves no pixel values; mend it")
        return cls(scale, zero, _blank(header, raw_header, zero), _asinh(header, where))

    @property
    def is_plain(self) -> bool:
        """Whether raw floats are the values."""
        return self.scale == 1 and self.zero == 0 and self.asinh is None

    def missing(self, raw: NDArray[Any]) -> NDArray[np.bool_]:
        """Tell which raw numbers stand for no value."""
        if raw.dtype.kind == "f":
            return np.asarray(np.isnan(raw))
        return np.zeros(raw.shape, bool) if self.blank is None else np.asarray(raw == self.blank)

    def values(self, raw: NDArray[Any]) -> NDArray[np.float64]:
        """Return pixel values; NaN where there is none."""
        with np.errstate(invalid="ignore"):  # signalling NaNs of damaged files
            values = raw.astype(np.float64)
        if self.blank is not None and raw.dtype.kind != "f":
            values[raw == self.blank] = np.nan
        if self.scale != 1:
            values *= self.scale
        if self.zero != 0:
            values += self.zero
        if self.asinh is not None:
            soften, offset = self.asinh
            with np.errstate(over="ignore"):
                values = offset + 2 * soften * np.sinh(values / _POGSON)
        return values

    def bits(self, raw: NDArray[Any]) -> NDArray[np.uint64]:
        """Return the bits of a mask, whether its integers are signed or not; floats are whole numbers."""
        if raw.dtype.kind == "f":
            return self.values(raw).astype(np.uint64)
        width = 8 * raw.dtype.itemsize
        bits = raw.astype(raw.dtype.newbyteorder("=")).view(f"u{raw.dtype.itemsize}")
        if abs(self.zero) == 2.0 ** (width - 1):  # how FITS writes unsigned integers
            bits = bits ^ bits.dtype.type(1 << (width - 1))
        return bits.astype(np.uint64)


def _card(header: Header, key: str, default: float, where: str) -> float:
    if key not in header:
        return default
    value = number([header], key)
    if value is None:
        raise FieldError(f"{where}: {key} is no number, so that its pixels have no values; mend it")
    return value


def _blank(header: Header, raw_header: Header, zero: float) -> int | None:
    """Return the raw integer of ``BLANK``: also where a program wrote the value that it stands for."""
    bitpix = int(number([raw_header], "ZBITPIX") or number([raw_header], "BITPIX") or -32)
    if bitpix < 0:
        return None
    cards = ((header, "BLANK"), (raw_header, "ZBLANK"), (raw_header, "BLANK"))
    value = next((found for each, key in cards if (found := _whole(each, key)) is not None), None)
    if value is None:
        return None
    low, high = (0, 255) if bitpix == 8 else (-(1 << (bitpix - 1)), (1 << (bitpix - 1)) - 1)
    return next((each for each in (value, value - int(zero)) if low <= each <= high), None)


def _whole(header: Header, key: str) -> int | None:
    """Return a card's integer, of which a float would lose digits."""
    value = header.get(key)
    if isinstance(value, int) and not isinstance(value, bool):
        return value
    given = number([header], key)
    return int(given) if given is not None and given == int(given) else None


def _asinh(header: Header, where: str) -> tuple[float, float] | None:
    if "BSOFTEN" not in header:
        return None
    soften, offset = number([header], "BSOFTEN"), number([header], "BOFFSET")
    if soften is None or soften <= 0 or offset is None:
        raise FieldError(
            f"{where}: BSOFTEN says that its pixels are asinh magnitudes, and it or BOFFSET is no number; "
            "mend them, or make a linear image of it first"
        )
    return soften, offset
