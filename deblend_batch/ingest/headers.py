"""What an image's header says of its photometry, its PSF and its band."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass

from astropy.io.fits import Header

Headers = Sequence[Header]
"""Where to look, in order: the image's own header, then the file's primary header."""

_ZERO_POINT_KEYS = ("MAGZERO", "ZEROPNT", "MAGZPT", "PHOTZP", "MAGZP", "ABMAGZP")
_ESO_ZERO_POINT = re.compile(r"^ESO .*(MAGZERO|ZEROPNT|MAGZPT|PHOTZP|ZEROPOINT)$")
_ZERO_POINT_OF_UNIT = {"njy": 31.4, "ujy": 23.9, "nanomaggy": 22.5, "jy": 8.9, "maggy": 0.0}
_COUNTS = re.compile(r"^(electrons?|counts?|e-?|adu|dn)$", re.IGNORECASE)
_PSF_KEYS = ("PSF_FWHM", "PSFFWHM", "SEEING", "FWHM")
_BAND_KEYS = ("FILTER", "BAND", "FILTNAM", "FILTER1", "FILTER2", "ESO INS FILT1 NAME")


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

    Parameters
    ----------
    headers : sequence of astropy.io.fits.Header
        The image's, then the primary.

    Returns
    -------
    Found or None
        Magnitude and keyword; None where no rule applies.
    """
    for key in _ZERO_POINT_KEYS:
        value = number(headers, key)
        if value is not None:
            return Found(value, key)
    for rule in (_from_fluxmag0, _from_photflam, _from_unit, _from_eso):
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

    Parameters
    ----------
    headers : sequence of astropy.io.fits.Header
        The image's, then the primary.

    Returns
    -------
    str or None
        The first word of ``FILTER`` or a like card; None where there is none, or only ``CLEAR``.
    """
    for key in _BAND_KEYS:
        text = _first(headers, key)
        word = word_of(str(text).split()[0]) if isinstance(text, str) and text.split() else ""
        if word and not word.upper().startswith("CLEAR"):
            return word
    return None


def word_of(text: str) -> str:
    """Return ``text`` with all but letters, digits, ``_``, ``+``, ``-`` and ``.`` as ``_``."""
    return re.sub(r"[^\w+.-]+", "_", text).strip("_")


def saturation(headers: Headers) -> float:
    """Return ``SATURATE``, image units; infinite where the header does not say."""
    value = number(headers, "SATURATE")
    return value if value is not None and value > 0 else math.inf


def number(headers: Headers, key: str) -> float | None:
    """Return a card's value as a finite number.

    Parameters
    ----------
    headers : sequence of astropy.io.fits.Header
        The image's, then the primary.
    key : str
        Keyword.

    Returns
    -------
    float or None
        None where no header has the card, or it is not a finite number.
    """
    value = _first(headers, key)
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        return None
    try:
        converted = float(value)
    except ValueError:
        return None
    return converted if math.isfinite(converted) else None


def _first(headers: Headers, key: str) -> object:
    return next((header[key] for header in headers if key in header), None)


def _comment(headers: Headers, key: str) -> str:
    return next((str(header.comments[key]) for header in headers if key in header), "")


def _from_fluxmag0(headers: Headers) -> Found | None:
    counts = number(headers, "FLUXMAG0")
    return Found(2.5 * math.log10(counts), "FLUXMAG0") if counts and counts > 0 else None


def _from_photflam(headers: Headers) -> Found | None:
    flam, pivot = number(headers, "PHOTFLAM"), number(headers, "PHOTPLAM")
    if not flam or not pivot or flam <= 0 or pivot <= 0:
        return None
    value = -2.5 * math.log10(flam) - 5 * math.log10(pivot) - 2.408
    seconds = number(headers, "EXPTIME")
    if _COUNTS.match(str(_first(headers, "BUNIT") or "").strip()) and seconds and seconds > 0:
        value += 2.5 * math.log10(seconds)
    return Found(value, "PHOTFLAM")


def _from_unit(headers: Headers) -> Found | None:
    unit = str(_first(headers, "BUNIT") or "").strip().lower()
    unit = unit.removesuffix("s").replace("nanomaggie", "nanomaggy").replace("microjy", "ujy")
    if unit in _ZERO_POINT_OF_UNIT:
        return Found(_ZERO_POINT_OF_UNIT[unit], "BUNIT")
    steradian = number(headers, "PIXAR_SR")
    if unit == "mjy/sr" and steradian and steradian > 0:
        return Found(8.9 - 2.5 * math.log10(1e6 * steradian), "BUNIT, PIXAR_SR")
    return None


def _from_eso(headers: Headers) -> Found | None:
    for header in headers:
        for key in header:
            value = number([header], key) if _ESO_ZERO_POINT.match(key) else None
            if value is not None:
                return Found(value, key)
    return None
