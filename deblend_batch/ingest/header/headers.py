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
_NUMBER_AND_UNIT = re.compile(r"\s*(?P<number>[-+.\deE]+)\s*(?P<unit>[^\d\s].*)")
_ENCLOSED = re.compile(r"[\[(](?P<unit>[^\[\]()]*)[\])]")
_WIDTH_UNITS = (
    ("px", re.compile(r"\b(px|pix(els?)?)\b")),
    ("mas", re.compile(r"\b(mas|(milli|m)[ -]?arc[ -]?(secs?|seconds?))\b")),
    ("arcmin", re.compile(r"\barc[ -]?min(ute)?s?\b")),
    ("arcsec", re.compile(r"\b(arc[ -]?(secs?|seconds?)|asec)\b|''|\"")),
    ("deg", re.compile(r"\b(deg(ree)?s?)\b")),
    ("rad", re.compile(r"\b(rad(ian)?s?)\b")),
)
"""Units of a width, as comments write them; the one that stands first is meant."""
_ARCSEC = {"mas": 1e-3, "arcmin": 60.0, "arcsec": 1.0, "deg": 3600.0, "rad": math.degrees(3600.0)}
_PER_PIXEL = re.compile(r"(/|\bper\b) ?(px|pix(els?)?)\b")
_NO_FWHM = (
    (re.compile(r"\bsigma\b|\bst(an)?d\.?[ -]dev|\bgaussian width\b"), 2.3548),
    (re.compile(r"\bhwhm\b|\bhalf[ -]width\b"), 2.0),
)
"""What a comment says that a width is, and the FWHM of a Gaussian over it."""
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

    ``PSF_FWHM``, ``PSFFWHM``, ``SEEING`` or ``FWHM``, in the unit that the value or the card's comment says:
    pixels, arcsec, arcmin, mas, degrees or radians; without a unit all but ``FWHM`` are arcsec (``FWHM`` is
    then ambiguous). A ``SEEING`` that is said to be a sigma or half a width is made a FWHM; a FWHM that is
    said to be one says nothing.

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
        value, said = _number_and_unit(headers, key)
        if value is None:
            continue
        unit = _width_unit(said) or ("" if key == "FWHM" else "arcsec")
        factor = _fwhm_of_one(said)
        if not unit or ("FWHM" in key and factor != 1):
            continue
        arcsec = value * factor * (pixel_scale_arcsec if unit == "px" else _ARCSEC[unit])
        if 0.01 < arcsec < 30:
            return Found(arcsec, key)
    return None


def _number_and_unit(headers: Headers, key: str) -> tuple[float | None, str]:
    """Return a card's number, and what its text and its comment say of the unit, in lower case."""
    match = _NUMBER_AND_UNIT.fullmatch(text(headers, key))
    said = comment(headers, key).lower()
    if match is None:
        return number(headers, key), said
    return _finite(match["number"]), f"{match['unit'].lower()} {said}"


def _width_unit(said: str) -> str | None:
    """Return the unit of a width: one that stands in brackets, else the one that stands first."""
    enclosed = (match["unit"].strip() for match in _ENCLOSED.finditer(said))
    for part in enclosed:
        for unit, words in _WIDTH_UNITS:
            if words.fullmatch(part):
                return unit
    # Of "arcsec, at 0.2 arcsec/pixel" the pixel is no unit of the width.
    plain = _PER_PIXEL.sub(" ", said)
    found = [
        (match.start(), unit) for unit, words in _WIDTH_UNITS if (match := words.search(plain))
    ]
    return min(found)[1] if found else None


def _fwhm_of_one(said: str) -> float:
    """Return the FWHM of a width of 1, by what a comment says that it is."""
    if "fwhm" in said:
        return 1.0
    return next((factor for words, factor in _NO_FWHM if words.search(said)), 1.0)


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
    return _finite(value)


def _finite(value: str | float) -> float | None:
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
