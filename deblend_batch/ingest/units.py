"""What one image unit is, from the text of ``BUNIT``: a flux, counts, or counts per second."""

from __future__ import annotations

import math
import re
import warnings
from dataclasses import dataclass
from typing import Literal

import astropy.units as u

AB_JANSKY = 10 ** (8.9 / 2.5)
"""Jansky of AB magnitude 0, with the constant that the zero points of this package use."""

_MAX_TEXT = 64
_LONG_INTEGER = re.compile(r"(?<![.\d])\d{4}")
_COUNT = r"(?:electrons?|e-?|counts?|cts?|adu|dn|photons?|ph)"
_PER_PIXEL = r"(?:\s*/\s*pix(?:els?)?)?"
_PER_SECOND = r"(?:\s*/\s*s(?:ec(?:onds?)?)?|[\s*.]\s*s(?:\*\*|\^)?\(?-1\)?)"
_COUNTS = re.compile(_COUNT + _PER_PIXEL, re.IGNORECASE)
_RATE = re.compile(
    rf"{_COUNT}(?:{_PER_SECOND}{_PER_PIXEL}|{_PER_PIXEL}{_PER_SECOND})|cps|c/s", re.IGNORECASE
)
_ENCLOSED = re.compile(r"[\[({'\"]\s*(?P<unit>[^\[\](){}'\"]*?)\s*[\])}'\"]")
_PER = re.compile(r"\s*\bper\b\s*", re.IGNORECASE)
_MAGNITUDES = re.compile(
    r"(?:(?:ab|st|vega)[ _-]?)?mag(?:nitude)?s?(?:\s*/.*)?|dex|log.*", re.IGNORECASE
)
_SPELLINGS = (
    (re.compile(r"\b(nano|micro|milli)?maggies\b", re.IGNORECASE), r"\1maggy"),
    (re.compile(r"\bnano-?maggy\b|\bnmaggy\b", re.IGNORECASE), "nmgy"),
    (re.compile(r"\bmicromaggy\b", re.IGNORECASE), "1e-6 mgy"),
    (re.compile(r"\bmicro[- ]?(?:jy|janskys?)\b|\bmu-?jy\b", re.IGNORECASE), "uJy"),
    (re.compile(r"\bnano[- ]?(?:jy|janskys?)\b", re.IGNORECASE), "nJy"),
    (re.compile(r"\bmilli[- ]?(?:jy|janskys?)\b", re.IGNORECASE), "mJy"),
    (re.compile(r"\bmega[- ]?(?:jy|janskys?)\b", re.IGNORECASE), "MJy"),
    (re.compile(r"\b([numkM]?)(?:[Jj]anskys?|JANSKYS?)\b"), r"\1Jy"),
    (re.compile(r"\bergs\b", re.IGNORECASE), "erg"),
    (re.compile(r"\bhz\b", re.IGNORECASE), "Hz"),
    (re.compile(r"\b(?:pixels?|px)\b", re.IGNORECASE), "pix"),
)
_OF_WAVELENGTH = re.compile(r"\berg.*\bA(?=\b|-1|\^-1|\*\*)")
"""An A in what has ergs is Angstrom, as everybody writes, and no Ampere."""
# Written in one case these are still one thing; MJY and mjy are a million or a thousandth.
_ONE_CASE = {"jy": "Jy", "njy": "nJy", "ujy": "uJy", "maggy": "mgy", "nmgy": "nmgy", "sr": "sr"}
_WORD = re.compile(r"[A-Za-z]+")


@dataclass(frozen=True)
class PixelUnit:
    """One image unit.

    Parameters
    ----------
    kind : {"flux", "counts", "rate", "logarithmic", "unknown"}
        What it is: a flux density, counts, counts per second, a magnitude, or nothing that is known.
    jansky : float, optional
        Of a flux: Jy of a pixel that holds one unit; None where a card is missing that it takes.
    is_maggy : bool
        Whether it is defined by a magnitude of 0, which need not be AB.
    """

    kind: Literal["flux", "counts", "rate", "logarithmic", "unknown"]
    jansky: float | None = None
    is_maggy: bool = False


def read_unit(text: str, pixel_area_sr: float, pivot_angstrom: float | None = None) -> PixelUnit:
    """Read a unit as astropy does, and what surveys write beside the standard.

    Parameters
    ----------
    text : str
        As ``BUNIT`` has it: upper and lower case differ, ``mJy`` is no ``MJy``.
    pixel_area_sr : float
        Area of a pixel on the sky, for fluxes per angle.
    pivot_angstrom : float, optional
        Pivot wavelength, for fluxes per wavelength.
    """
    text = text.strip()
    if len(text) > _MAX_TEXT:
        return PixelUnit("unknown")
    enclosed = _ENCLOSED.fullmatch(text)
    text = _PER.sub("/", text if enclosed is None else enclosed["unit"])
    if _RATE.fullmatch(text):
        return PixelUnit("rate")
    if _COUNTS.fullmatch(text):
        return PixelUnit("counts")
    if _MAGNITUDES.fullmatch(text):
        return PixelUnit("logarithmic")
    unit = _parsed(text)
    if unit is None:
        return PixelUnit("unknown")
    if isinstance(unit, u.function.FunctionUnitBase) or u.mag in unit.bases or u.dB == unit:
        return PixelUnit("logarithmic")
    flux = _flux(unit, pixel_area_sr, pivot_angstrom)
    is_one = flux.jansky is None or (math.isfinite(flux.jansky) and flux.jansky > 0)
    return flux if is_one else PixelUnit("unknown")


def _parsed(text: str) -> u.UnitBase | u.function.FunctionUnitBase | None:
    for pattern, spelling in _SPELLINGS:
        text = pattern.sub(spelling, text)
    text = _WORD.sub(lambda word: _ONE_CASE.get(word[0].lower(), word[0]), text)
    if _OF_WAVELENGTH.search(text):
        text = re.sub(r"\bA(?=\b|-1)", "Angstrom", text)
    # As a power a long integer would keep astropy busy for hours.
    if not text or _LONG_INTEGER.search(text.replace("3631", "1")):
        return None
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return u.Unit(text)
    except (ValueError, TypeError, ArithmeticError, RecursionError):
        return None


def _flux(unit: u.UnitBase, pixel_area_sr: float, pivot_angstrom: float | None) -> PixelUnit:
    """Flux of a pixel, whether the unit is per pixel, per angle, or says neither."""
    plain, is_maggy = _plain(unit)
    per_wavelength = u.erg / u.s / u.cm**2 / u.AA
    for each, area in ((plain, 1.0), (plain * u.sr, pixel_area_sr)):
        if each.is_equivalent(u.Jy):
            return PixelUnit("flux", float(each.to(u.Jy)) * area, is_maggy)
        if each.is_equivalent(per_wavelength):
            if pivot_angstrom is None:
                return PixelUnit("flux")
            at_pivot = u.spectral_density(pivot_angstrom * u.AA)
            return PixelUnit("flux", float(each.to(u.Jy, equivalencies=at_pivot)) * area)
    return PixelUnit("unknown")


def _plain(unit: u.UnitBase) -> tuple[u.UnitBase, bool]:
    """Write maggies as Jansky, and leave out "per pixel", which an image is anyway."""
    plain, is_maggy = u.CompositeUnit(unit.scale, [], []), False
    for base, power in zip(unit.bases, unit.powers, strict=True):
        if base.is_equivalent(u.mgy):
            plain *= u.CompositeUnit(base.to(u.mgy) * AB_JANSKY, [u.Jy], [1]) ** power
            is_maggy = True
        elif base != u.pix or power not in (-1, -2):
            plain *= base**power
    return plain, is_maggy
