"""What an image's header says of its PSF, its band and its saturation, and how its cards are read."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass

from astropy.io.fits import Header
from astropy.io.fits.verify import VerifyError

Headers = Sequence[Header]
"""Where to look, in order: the image's own header, then the file's primary header."""

_PSF_KEYS = ("PSF_FWHM", "PSFFWHM", "SEEING", "FWHM")
_SATURATION_KEYS = ("SATURATE", "SATLEVEL", "SATURAT")
_BAND_KEYS = ("FILTER", "BAND", "FILTNAM", "FILTER1", "FILTER2", "ESO INS FILT1 NAME")
_MAX_BAND_NAME = 64
_FAR_PX = 1e9
_MAX_PIXEL = 3.4e38  # what a float32 can be


@dataclass(frozen=True)
class Found:
    """A number and where it was found.

    Parameters
    ----------
    value : float
        The number.
    source : str
        Header keyword, ``option``, or how it was measured.
    """

    value: float
    source: str


def psf_fwhm_arcsec(headers: Headers, pixel_scale_arcsec: float) -> Found | None:
    """Find the full width at half maximum of the point spread function.

    ``PSF_FWHM``, ``PSFFWHM``, ``SEEING`` or ``FWHM``, in pixels where the card's comment says so, in
    arcsec where it says so; without a unit all but ``FWHM`` are arcsec (``FWHM`` is then ambiguous).

    Parameters
    ----------
    headers : sequence of astropy.io.fits.Header
        The image's, then the primary.
    pixel_scale_arcsec : float
        Edge of a pixel.

    Returns
    -------
    Found or None
        Arcsec and keyword; None where no card gives a plausible value (0.01 to 30 arcsec).
    """
    for key in _PSF_KEYS:
        value = number(headers, key)
        if value is None:
            continue
        said = comment(headers, key).lower()
        in_pixels = "pix" in said
        if key == "FWHM" and not in_pixels and "arcsec" not in said:
            continue
        arcsec = value * pixel_scale_arcsec if in_pixels else value
        if 0.01 < arcsec < 30:
            return Found(arcsec, key)
    return None


def band_name(headers: Headers) -> str | None:
    """Find the name of the band, as one word.

    Returns
    -------
    str or None
        The first word of ``FILTER`` or a like card; None where there is none, or only ``CLEAR``.
    """
    for key in _BAND_KEYS:
        words = text(headers, key).split(maxsplit=1)
        word = word_of(words[0]) if words else ""
        if 0 < len(word) <= _MAX_BAND_NAME and not word.upper().startswith("CLEAR"):
            return word
    return None


def word_of(text: str) -> str:
    """Return ``text`` with all but letters, digits, ``_``, ``+``, ``-`` and ``.`` as ``_``."""
    return re.sub(r"[^\w+.-]+", "_", text).strip("_")


def saturation(headers: Headers) -> Found | None:
    """Find the pixel value from which an image is saturated: ``SATURATE``, ``SATLEVEL`` or ``SATURAT``.

    Returns
    -------
    Found or None
        Image units and keyword; None where no card gives a positive value.
    """
    for key in _SATURATION_KEYS:
        value = number(headers, key)
        if value is not None and 0 < value <= _MAX_PIXEL:
            return Found(value, key)
    return None


def parent_yx(headers: Headers) -> tuple[float, float] | None:
    """Find where the first pixel lies in the larger frame that an image was cut from.

    ``LTV1`` and ``LTV2`` (IRAF: what is added to a position in the parent), or a second, linear description
    of the axes, ``CRVAL1A`` at ``CRPIX1A`` (afw's XY0).

    Returns
    -------
    tuple of float or None
        (y, x), px from 0; None where the header tells none, or a scale beside the shift.
    """
    found = [_parent_origin(headers, axis) for axis in (2, 1)]
    y, x = found
    return None if y is None or x is None or max(abs(y), abs(x)) > _FAR_PX else (y, x)


def _parent_origin(headers: Headers, axis: int) -> float | None:
    shift, scale = number(headers, f"LTV{axis}"), number(headers, f"LTM{axis}_{axis}")
    if shift is not None and scale in (None, 1.0):
        return -shift
    if text(headers, f"CTYPE{axis}A") != "LINEAR" or shift is not None:
        return None
    value, pixel = number(headers, f"CRVAL{axis}A"), number(headers, f"CRPIX{axis}A")
    steps = {number(headers, f"{key}A") for key in (f"CD{axis}_{axis}", f"CDELT{axis}")}
    if value is None or not steps <= {None, 1.0}:
        return None
    return value + 1 - (1.0 if pixel is None else pixel)


def number(headers: Headers, key: str) -> float | None:
    """Return a card's value as a finite number.

    Returns
    -------
    float or None
        None where no header has the card, or it is damaged, or not a finite number.
    """
    value = _first(headers, key)
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        return None
    try:
        converted = float(value)
    except (ValueError, OverflowError):
        return None
    return converted if math.isfinite(converted) else None


def _first(headers: Headers, key: str) -> object:
    """Value in the first header that has the card; None where it is damaged."""
    header = next((each for each in headers if key in each), None)
    try:
        return None if header is None else header[key]
    except VerifyError:
        return None


def text(headers: Headers, key: str) -> str:
    """Return a card's value as text, empty where it is none."""
    value = _first(headers, key)
    return value.strip() if isinstance(value, str) else ""


def comment(headers: Headers, key: str) -> str:
    """Return a card's comment, empty where there is none."""
    return next((str(header.comments[key]) for header in headers if key in header), "")
