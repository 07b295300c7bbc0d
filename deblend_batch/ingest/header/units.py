"""What one image unit is, from the text of ``BUNIT``: a flux, counts, or counts per second."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from typing import Literal

import astropy.units as u

from deblend_batch.unit_text import parsed

AB_JANSKY = 10 ** (8.9 / 2.5)
"""Jansky of AB magnitude 0, with the constant that the zero points of this package use."""

_MAX_TEXT = 64
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
    unit = parsed(text)
    if unit is None:
        return PixelUnit("unknown")
    if isinstance(unit, u.function.FunctionUnitBase) or u.mag in unit.bases or u.dB == unit:
        return PixelUnit("logarithmic")
    flux = _flux(unit, pixel_area_sr, pivot_angstrom)
    is_one = flux.jansky is None or (math.isfinite(flux.jansky) and flux.jansky > 0)
    return flux if is_one else PixelUnit("unknown")


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
