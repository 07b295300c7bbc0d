"""What the bits of a field's mask mean: which pixels are bad, saturated, or near a bright star."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from deblend_batch.errors import FieldError
from deblend_batch.text import shown

_MAX_BITS = 64
_MAX_NAME = 64
_SATURATED = re.compile(r"SAT(UR\w*)?", re.IGNORECASE)
_BRIGHT = re.compile(r"BRIGHT(_OBJECT|_STAR)?|MEDIUM", re.IGNORECASE)
_SOURCES = re.compile(
    r"DETECT(ED|ION)(_\w+)?|SOURCES?|OBJECTS?|SEG|SEGMENT\w*|DEBLEND\w*"
    r"|CONTAINS_\w*(DETECTION|SOURCE|OBJECT)\w*",
    re.IGNORECASE,
)


@dataclass(frozen=True)
class MaskBits:
    """The bits of a mask that have a name.

    Parameters
    ----------
    bits : mapping of str to int
        Name to number, 0 the lowest: pixels have it set in ``1 << number``.
    bad : tuple of str
        The names of those that make a pixel bad; the others are remarks.
    """

    bits: Mapping[str, int]
    bad: tuple[str, ...]

    @property
    def bad_value(self) -> int:
        """All bits that make a pixel bad, as one number."""
        return self._value(self.bad)

    @property
    def saturated_value(self) -> int:
        """All bits that say that a pixel is saturated: those called ``SAT``, ``SATUR`` or longer."""
        return self._value(tuple(name for name in self.bits if _SATURATED.fullmatch(name)))

    @property
    def bright_value(self) -> int:
        """All bits that say that a pixel is near a bright star: see ``docs/field.md``."""
        return self._value(tuple(name for name in self.bits if _BRIGHT.fullmatch(name)))

    @property
    def highest(self) -> int:
        """Largest number of a bit."""
        return max(self.bits.values())

    @property
    def dtype(self) -> np.dtype[np.unsignedinteger[Any]]:
        """Smallest unsigned type that has all bits."""
        width = next(width for width in (8, 16, 32, 64) if self.highest < width)
        return np.dtype(f"uint{width}")

    def to_attributes(self) -> dict[str, Any]:
        """Return the attributes of the Zarr group, JSON-able."""
        return {"mask_bits": dict(self.bits), "mask_bad": list(self.bad)}

    @classmethod
    def from_attributes(cls, attributes: Mapping[str, Any], url: str) -> MaskBits | None:
        """Check the attributes of a Zarr group; None where they name no bits."""
        bits, bad = attributes.get("mask_bits"), attributes.get("mask_bad")
        if bits is None and bad is None:
            return None
        if not isinstance(bits, Mapping) or not 0 < len(bits) <= _MAX_BITS:
            raise FieldError(
                f"{url}: attribute 'mask_bits' is {shown(bits)}; it must map the names of 1 to {_MAX_BITS} "
                "bits to their numbers"
            )
        for name, number in bits.items():
            if not _is_name(name) or not _is_bit(number):
                raise FieldError(
                    f"{url}: attribute 'mask_bits' holds {shown(name)}: {shown(number)}; each must be a name "
                    f"of at most {_MAX_NAME} characters and a number, 0 (the lowest bit) to {_MAX_BITS - 1}"
                )
        # As without names, what is set is bad unless somebody says which; but sources are not.
        names = [name for name in bits if not marks_sources(name)] if bad is None else bad
        if not isinstance(names, list | tuple) or not all(
            isinstance(name, str) and name in bits for name in names
        ):
            raise FieldError(
                f"{url}: attribute 'mask_bad' is {shown(bad)}; it must be a list of names in 'mask_bits'"
            )
        return cls(dict(bits), tuple(dict.fromkeys(names)))

    def _value(self, names: tuple[str, ...]) -> int:
        value = 0
        for name in names:
            value |= 1 << self.bits[name]
        return value


def marks_sources(name: str) -> bool:
    """Tell whether a bit of this name marks the light of sources: no such pixel is bad for that."""
    return _SOURCES.fullmatch(name) is not None


def bad_pixels(mask: NDArray[Any], bits: MaskBits | None) -> NDArray[np.bool_]:
    """Tell which pixels are bad.

    Parameters
    ----------
    mask : ndarray of unsigned int or bool, any shape
        The mask plane.
    bits : MaskBits, optional
        What its bits mean; without it every bit means bad.

    Returns
    -------
    ndarray of bool, the mask's shape
        True where bad.
    """
    if bits is None:
        return np.asarray(mask != 0)
    return _any_set(mask, bits.bad_value)


def saturated_pixels(
    image: NDArray[np.floating],
    level: float | None,
    mask: NDArray[Any] | None = None,
    bits: MaskBits | None = None,
) -> NDArray[np.bool_]:
    """Tell which pixels are saturated.

    Parameters
    ----------
    image : ndarray of float, any shape
        Image units of one band; NaN is not saturated.
    level : float, optional
        Pixel value from which they are; None if unknown.
    mask : ndarray of unsigned int or bool, the image's shape, optional
        The mask plane.
    bits : MaskBits, optional
        What its bits mean.

    Returns
    -------
    ndarray of bool, the image's shape
        True where a bit or the pixel's value says so.
    """
    found = np.zeros(image.shape, bool) if level is None else np.asarray(image >= level)
    if mask is not None and bits is not None:
        found |= _any_set(mask, bits.saturated_value)
    return found


def near_bright_star(mask: NDArray[Any], bits: MaskBits) -> NDArray[np.bool_]:
    """Tell which pixels a bit says to be near a bright star.

    Parameters
    ----------
    mask : ndarray of unsigned int or bool, any shape
        The mask plane.
    bits : MaskBits
        What its bits mean.
    """
    return _any_set(mask, bits.bright_value)


def _any_set(mask: NDArray[Any], value: int) -> NDArray[np.bool_]:
    # Bits above the mask's own type are set nowhere.
    width = 1 if mask.dtype.kind == "b" else 8 * mask.dtype.itemsize
    wanted = mask.dtype.type(value & ((1 << width) - 1))
    return np.asarray((mask & wanted) != 0)


def _is_name(value: object) -> bool:
    return isinstance(value, str) and 0 < len(value) <= _MAX_NAME


def _is_bit(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < _MAX_BITS
