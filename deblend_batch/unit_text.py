"""Units of fluxes as people write them, read by astropy (pure)."""

from __future__ import annotations

import re
import warnings

import astropy.units as u

_LONG_INTEGER = re.compile(r"(?<![.\d])\d{4}")
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


def parsed(text: str) -> u.UnitBase | u.function.FunctionUnitBase | None:
    """Read a unit; None for what is none.

    Examples
    --------
    >>> parsed("microJanskys")
    Unit("uJy")
    """
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
