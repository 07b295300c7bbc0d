"""The AB magnitude of one image unit, as a header says it, and what speaks against it.

Where two cards disagree the order of the rules decides, and the summary says so. Where a magnitude is known
not to be AB, or counts have no exposure time, there is no zero point: the user is asked.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from itertools import chain

from deblend_batch.field.photometry import ZERO_POINT_RANGE
from deblend_batch.ingest.header.headers import Found, Headers, band_name, comment, number, text
from deblend_batch.ingest.header.units import PixelUnit, read_unit
from deblend_batch.text import shown

CARDS = ("MAGZERO", "ZEROPNT", "MAGZPT", "PHOTZP", "MAGZP", "ABMAGZP")
"""Cards that hold a zero point, in the order in which they count."""

_ESO = re.compile(r"^ESO .*(MAGZERO|ZEROPNT|MAGZPT|PHOTZP|ZEROPOINT)$")
_SYSTEM_CARDS = ("PHOTSYS", "MAGSYS", "ZPSYS")
_LIKE_SYSTEM = re.compile(r".*(PHOT|MAG|ZP).*(SYS|TYP).*", re.IGNORECASE)
_SYSTEM = re.compile(r"(AB|ST|VEGA)[ _-]?(MAG\w*)?|.*VEGA.*", re.IGNORECASE)
"""What cards of other such names (ZP_SYS, PHOTSYST, MAGTYPE) hold, if it is a system of magnitudes."""
AGREE_MAG = 0.02
"""What differs by more contradicts."""
_PLACE_AGREE = 0.01
_PS1_ZERO_POINT = "FPA.ZP"
_PER_SECOND = re.compile(
    r"\b(1|one) ?s(ec|econd)?\b|(?<!mag)(?<!mags)(?<!magnitude)(?<!magnitudes)/ ?s(ec)?\b|per ?sec"
    r"|\bs(ec)?(\*\*|\^)?-1|\b(count|electron|photon|adu|dn)s?[ -]?rates?\b|/ ?exp(time|osure)?\b"
    r"|exp(time|osure)[ -]?(time )?(normali[sz]ed|=? ?1(\.0*)?\b)",
    re.IGNORECASE,
)
"""In a comment; DES writes ``magnitudes/s`` of magnitudes of one image unit."""
_SAYS_NOTHING = ("", "unknown", "none", "n/a")
_CASU_ZERO_POINT, _CASU_CARDS = "MAGZPT", ("MAGZRR", "CIRMED")
"""What Cambridge's survey unit writes: of Vega magnitudes, and of counts per second."""
_VEGA_INSTRUMENTS = re.compile(r"WISE|2MASS|VISTA|VIRCAM|WFCAM|UKIRT", re.IGNORECASE)
_VEGA_TO_AB = {"W1": 2.699, "W2": 3.339, "W3": 5.174, "W4": 6.620}


@dataclass(frozen=True)
class ZeroPoint:
    """What a header says of its zero point.

    Parameters
    ----------
    found : Found, optional
        AB magnitude of one image unit, and the card; None where none can be used.
    problem : str
        Why there is none.
    notes : tuple of str
        What contradicts it, and what was assumed.
    """

    found: Found | None
    problem: str = ""
    notes: tuple[str, ...] = ()


class _NotABError(ValueError):
    """A card says a zero point that cannot be used; the message says why."""


@dataclass(frozen=True)
class _Image:
    """What the rules read."""

    headers: Headers
    unit: PixelUnit
    unit_text: str
    pixel_area_sr: float

    @property
    def says_nothing(self) -> bool:
        """Whether there is no unit."""
        return self.unit_text.lower() in _SAYS_NOTHING


def zero_point(headers: Headers, pixel_area_sr: float) -> ZeroPoint:
    """Find the AB magnitude of one image unit.

    In this order: ``MAGZERO``, ``ZEROPNT``, ``MAGZPT``, ``PHOTZP``, ``MAGZP``, ``ABMAGZP``;
    ``2.5 log10(FLUXMAG0)`` (Rubin, HSC: counts of magnitude 0); ``FPA.ZP`` (Pan-STARRS: of counts per
    second); a ``BUNIT`` that is itself a flux, of a pixel or per angle; ``-2.5 log10(PHOTFLAM) - 5
    log10(PHOTPLAM) - 2.408`` (HST, of counts per second); ESO's HIERARCH variants.

    Parameters
    ----------
    headers : sequence of astropy.io.fits.Header
        The image's, then the primary.
    pixel_area_sr : float
        Area of a pixel on the sky, from the WCS: ``PIXAR_SR`` is stale in many a resampled image.
    """
    written = text(headers, "BUNIT")
    unit = read_unit(written, pixel_area_sr, number(headers, "PHOTPLAM"))
    image = _Image(headers, unit, written, pixel_area_sr)
    if unit.kind == "logarithmic":
        return ZeroPoint(
            None, f"BUNIT is {written}, and magnitudes cannot be added; make a linear image of it"
        )
    try:
        answers = list(_all_found(image))
    except _NotABError as error:
        return ZeroPoint(None, str(error))
    if not answers:
        return ZeroPoint(None)
    first = answers[0]
    return ZeroPoint(first, notes=(*_contradictions(answers), *_unit_notes(image, first)))


def _all_found(image: _Image) -> Iterator[Found]:
    """Yield what each rule gives; one that comes too late to count may be none."""
    nothing = True
    for rule in _RULES:
        try:
            found = rule(image)
        except _NotABError:
            if nothing:
                raise
            continue
        if found is not None:
            nothing = False
            yield found


def _plausible(value: float, source: str) -> Found | None:
    low, high = ZERO_POINT_RANGE
    return Found(value, source) if low <= value <= high else None


def _from_card(image: _Image, key: str) -> Found | None:
    value = number(image.headers, key)
    # Zero is what programs write where they know none; it is true of maggies alone.
    if value is None or (value == 0 and not image.unit.is_maggy):
        return None
    found = _plausible(value, key)
    if found is None:
        return None
    _check_system(image, key, value)
    if not _is_of_rate(image.headers, key) or not _has_counts(image, key):
        return found
    seconds = _exposure(image, f"{key} is of counts per second")
    return _plausible(value + 2.5 * math.log10(seconds), f"{key}, EXPTIME")


def _is_of_rate(headers: Headers, key: str) -> bool:
    """Tell whether a zero point is of counts per second, by its comment or by who wrote it."""
    return _is_of_casu(headers, key) or bool(_PER_SECOND.search(comment(headers, key)))


def _is_of_casu(headers: Headers, key: str) -> bool:
    return key.endswith(_CASU_ZERO_POINT) and any(
        number(headers, card) is not None for card in _CASU_CARDS
    )


def _has_counts(image: _Image, key: str) -> bool:
    """Tell whether the image has counts, where a card is of counts per second; ask where nothing says so."""
    if image.unit.kind == "unknown" and not image.says_nothing:
        raise _NotABError(
            f"{key} is of counts per second, and BUNIT is {shown(image.unit_text)}, which is neither those "
            "nor counts nor a flux"
        )
    by_default = image.says_nothing and _is_of_casu(image.headers, key)
    return image.unit.kind == "counts" or by_default


def _check_system(image: _Image, key: str, value: float) -> None:
    """Refuse a magnitude that is not AB, by what the header or the instrument says."""
    band = (band_name(image.headers) or "").upper()
    if "vega" in comment(image.headers, key).lower():
        raise _not_ab(key, "its comment says Vega", band, value)
    for card, said in _systems(image.headers):
        if said.upper().startswith("AB"):
            return
        raise _not_ab(key, f"{card} is {said}", band, value)
    if key == "ABMAGZP":
        return
    telescope = " ".join(text(image.headers, card) for card in ("TELESCOP", "INSTRUME", "ORIGIN"))
    known = _VEGA_INSTRUMENTS.search(telescope)
    if known:
        raise _not_ab(key, f"{known[0].upper()} gives Vega magnitudes", band, value)
    if _is_of_casu(image.headers, key):
        raise _not_ab(
            key, "CASU, whose MAGZRR stands beside it, gives Vega magnitudes", band, value
        )
    if band in _VEGA_TO_AB:
        raise _not_ab(key, "WISE gives Vega magnitudes", band, value)


def _systems(headers: Headers) -> Iterator[tuple[str, str]]:
    """Yield the cards that name a system of magnitudes, and what they say."""
    for card in _SYSTEM_CARDS:
        if said := text(headers, card):
            yield card, said
    for card in filter(_LIKE_SYSTEM.fullmatch, chain.from_iterable(headers)):
        if _SYSTEM.fullmatch(said := text(headers, card)):
            yield card, said


def _not_ab(key: str, why: str, band: str, value: float) -> _NotABError:
    offset = _VEGA_TO_AB.get(band)
    hint = f"; in {band} it is {value + offset:.3f}" if offset else ""
    return _NotABError(f"{key} is no AB zero point ({why}){hint}")


def _exposure(image: _Image, why: str) -> float:
    seconds = number(image.headers, "EXPTIME")
    if seconds is None or seconds <= 0:
        raise _NotABError(
            f"{why}, the image has counts ({image.unit_text}), and EXPTIME is "
            f"{'missing or no number' if seconds is None else f'{seconds:g}'}"
        )
    return seconds


def _from_fluxmag0(image: _Image) -> Found | None:
    counts = number(image.headers, "FLUXMAG0")
    if not counts or counts <= 0:
        return None
    return _plausible(2.5 * math.log10(counts), "FLUXMAG0")


def _from_panstarrs(image: _Image) -> Found | None:
    value = number(image.headers, _PS1_ZERO_POINT)
    if value is None or not value:
        return None
    seconds = _exposure(image, f"{_PS1_ZERO_POINT} is of counts per second")
    return _plausible(value + 2.5 * math.log10(seconds), f"{_PS1_ZERO_POINT}, EXPTIME")


def _from_unit(image: _Image) -> Found | None:
    if image.unit.jansky is None:
        return None
    found = _plausible(8.9 - 2.5 * math.log10(image.unit.jansky), "BUNIT")
    if found is not None and image.unit.is_maggy:
        _check_system(image, "BUNIT", found.value)
    return found


def _from_photflam(image: _Image) -> Found | None:
    flam, pivot = number(image.headers, "PHOTFLAM"), number(image.headers, "PHOTPLAM")
    if not flam or not pivot or flam <= 0 or pivot <= 0:
        return None
    value = -2.5 * math.log10(flam) - 5 * math.log10(pivot) - 2.408
    if _has_counts(image, "PHOTFLAM"):
        value += 2.5 * math.log10(_exposure(image, "PHOTFLAM is of counts per second"))
    return _plausible(value, "PHOTFLAM")


def _from_eso(image: _Image) -> Found | None:
    for header in image.headers:
        for key in header:
            if _ESO.match(key):
                found = _from_card(_Image([header], image.unit, image.unit_text, 0.0), key)
                if found is not None:
                    return found
    return None


_RULES: tuple[Callable[[_Image], Found | None], ...] = (
    *(partial(_from_card, key=key) for key in CARDS),
    _from_fluxmag0,
    _from_panstarrs,
    _from_unit,
    _from_photflam,
    _from_eso,
)


def _contradictions(answers: list[Found]) -> Iterator[str]:
    first, *others = answers
    for other in others:
        if abs(other.value - first.value) > AGREE_MAG:
            yield (
                f"zero point {first.value:.3f} of {first.source} counts; {other.source} says "
                f"{other.value:.3f}"
            )


def _unit_notes(image: _Image, found: Found) -> Iterator[str]:
    of_rate = found.source == "PHOTFLAM" or _is_of_rate(image.headers, found.source)
    seconds = number(image.headers, "EXPTIME")
    if found.source in CARDS and image.unit.kind == "counts" and seconds not in (None, 1.0):
        yield (
            f"{found.source} is taken as the magnitude of one of {image.unit_text}, not of one a second "
            f"(EXPTIME is {seconds:g})"
        )
    if of_rate and image.unit.kind == "unknown":
        unit = image.unit_text or "missing"
        yield f"BUNIT is {unit}: taken as counts per second, as {found.source} is meant"
    area = number(image.headers, "PIXAR_SR")
    if found.source == "BUNIT" and area and abs(area / image.pixel_area_sr - 1) > _PLACE_AGREE:
        yield (
            f"PIXAR_SR is {area:.4g}, a pixel of the WCS {image.pixel_area_sr:.4g} sr: the WCS counts"
        )
