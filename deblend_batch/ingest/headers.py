"""What an image's header says of its photometry, its PSF and its band."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass

from astropy.io.fits import Header
from astropy.io.fits.verify import VerifyError

from deblend_batch.field.photometry import ZERO_POINT_RANGE

Headers = Sequence[Header]
"""Where to look, in order: the image's own header, then the file's primary header."""

_ZERO_POINT_KEYS = ("MAGZERO", "ZEROPNT", "MAGZPT", "PHOTZP", "MAGZP", "ABMAGZP")
_ESO_ZERO_POINT = re.compile(r"^ESO .*(MAGZERO|ZEROPNT|MAGZPT|PHOTZP|ZEROPOINT)$")
_ZERO_POINT_OF_UNIT = {"njy": 31.4, "ujy": 23.9, "nanomaggy": 22.5, "jy": 8.9, "maggy": 0.0}
_COUNTS = re.compile(r"^(electrons?|counts?|e-?|adu|dn)$", re.IGNORECASE)
_PSF_KEYS = ("PSF_FWHM", "PSFFWHM", "SEEING", "FWHM")
_SATURATION_KEYS = ("SATURATE", "SATLEVEL", "SATURAT")
_BAND_KEYS = ("FILTER", "BAND", "FILTNAM", "FILTER1", "FILTER2", "ESO INS FILT1 NAME")
_MAX_BAND_NAME = 64
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


def zero_point(headers: Headers) -> Found | None:
    """Find the AB magnitude of one image unit.

    In this order: ``MAGZERO``, ``ZEROPNT``, ``MAGZPT``, ``PHOTZP``, ``MAGZP``, ``ABMAGZP``;
    ``2.5 log10(FLUXMAG0)`` (Rubin, HSC: counts of magnitude 0); ``-2.5 log10(PHOTFLAM) - 5
    log10(PHOTPLAM) - 2.408`` (HST; for images in counts ``EXPTIME`` is divided out); a ``BUNIT`` that is
    itself a flux (nJy, uJy, Jy, MJy/sr with ``PIXAR_SR``, nanomaggy); ESO's HIERARCH variants.

    Returns
    -------
    Found or None
        Magnitude and keyword; None where no rule gives a plausible value (-60 to 60).
    """
    for rule in (_from_cards, _from_fluxmag0, _from_photflam, _from_unit, _from_eso):
        found = rule(headers)
        if found is not None:
            return found
    return None


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
        comment = _comment(headers, key).lower()
        in_pixels = "pix" in comment
        if key == "FWHM" and not in_pixels and "arcsec" not in comment:
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
        words = _text(headers, key).split(maxsplit=1)
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


def _text(headers: Headers, key: str) -> str:
    value = _first(headers, key)
    return value.strip() if isinstance(value, str) else ""


def _comment(headers: Headers, key: str) -> str:
    return next((str(header.comments[key]) for header in headers if key in header), "")


def _plausible(value: float, source: str) -> Found | None:
    low, high = ZERO_POINT_RANGE
    return Found(value, source) if low <= value <= high else None


def _from_cards(headers: Headers) -> Found | None:
    for key in _ZERO_POINT_KEYS:
        value = number(headers, key)
        found = None if value is None else _plausible(value, key)
        if found is not None:
            return found
    return None


def _from_fluxmag0(headers: Headers) -> Found | None:
    counts = number(headers, "FLUXMAG0")
    if not counts or counts <= 0:
        return None
    return _plausible(2.5 * math.log10(counts), "FLUXMAG0")


def _from_photflam(headers: Headers) -> Found | None:
    flam, pivot = number(headers, "PHOTFLAM"), number(headers, "PHOTPLAM")
    if not flam or not pivot or flam <= 0 or pivot <= 0:
        return None
    value = -2.5 * math.log10(flam) - 5 * math.log10(pivot) - 2.408
    seconds = number(headers, "EXPTIME")
    if _COUNTS.match(_text(headers, "BUNIT")) and seconds and seconds > 0:
        value += 2.5 * math.log10(seconds)
    return _plausible(value, "PHOTFLAM")


def _from_unit(headers: Headers) -> Found | None:
    unit = _text(headers, "BUNIT").lower()
    unit = unit.removesuffix("s").replace("nanomaggie", "nanomaggy").replace("microjy", "ujy")
    if unit in _ZERO_POINT_OF_UNIT:
        return Found(_ZERO_POINT_OF_UNIT[unit], "BUNIT")
    steradian = number(headers, "PIXAR_SR")
    if unit == "mjy/sr" and steradian and steradian > 0:
        return _plausible(8.9 - 15 - 2.5 * math.log10(steradian), "BUNIT, PIXAR_SR")
    return None


def _from_eso(headers: Headers) -> Found | None:
    for header in headers:
        for key in header:
            value = number([header], key) if _ESO_ZERO_POINT.match(key) else None
            found = None if value is None else _plausible(value, key)
            if found is not None:
                return found
    return None
