"""The cards of a celestial WCS: which count, and what they may hold before a library sees them (pure).

A card is eighty bytes that anyone can write, and it can announce a million axes or a polynomial of order
25,000. So no library is given a stranger's header, or the mapping in a field's attributes, but only what
:func:`celestial_cards` picks of it: the cards of two axes, in bounds that no real image passes.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from deblend_batch.text import shown

Card = str | int | float | bool
Cards = Mapping[str, Card]

# Of what is not read, a part of a plate's cards (AMDX1, PLTRAH) makes wcslib write outside its memory.
_KEYWORD = re.compile(
    r"(?P<axes>NAXIS|WCSAXES)|(?P<type>CTYPE[12])|(?P<unit>CUNIT[12])|(?P<frame>RADESYS|RADECSYS)"
    r"|(?P<year>EQUINOX|EPOCH)|(?P<pixel>CRPIX[12])|(?P<angle>CRVAL[12]|CROTA[12]|LONPOLE|LATPOLE)"
    r"|(?P<step>CDELT[12]|(?:CD|PC)[12]_[12]|PC00[12]00[12])|(?P<term>PV[12]_(?:\d|[1-3]\d)|PROJP\d)"
    r"|(?P<order>[AB]P?_ORDER)|(?P<sip>[AB]P?_\d_\d)"
    r"|(?P<mixed>(?:CD|PC)(?:[12]_\d+|\d+_[12])|PC00[12]00\d|PC00\d00[12])"
    r"|(?P<unread>PV[12]_[1-9]\d*|C[PQ]DIS[12]|AMD[XY]\d+|WAT[12]_001)"
)
_BOUNDS = {
    "axes": (0.0, 9.0),
    "order": (0.0, 9.0),  # the convention's own
    "year": (1000.0, 3000.0),
    "pixel": (-1e9, 1e9),
    "angle": (-1e10, 1e10),  # a turn is 1.3e9 mas, the smallest unit that is read
    "step": (-1e6, 1e6),
    "term": (-1e20, 1e20),  # of order 7 in degrees, where an image has arcminutes
    "sip": (-1e9, 1e9),
}
_WHOLE = ("axes", "order")
_LEFT_OUT = ("axes", "mixed", "unread")
_TYPE = re.compile(
    r"(?P<axis>RA--|DEC-|GLON|GLAT)-(?P<projection>AZP|SZP|TAN|STG|SIN|ARC|ZPN|ZEA|AIR|CYP|CEA|CAR|MER|CO[DEOP]"
    r"|SFL|PAR|MOL|AIT|BON|PCO|TSC|CSC|QSC|HPX|XPH|TPV|GLS|NCP)(?:-SIP)?"
)
_WORD = re.compile(r"[A-Za-z0-9-]{1,20}")
_SURFACE = re.compile(r"wtype\s*=\s*(tnx|zpx)", re.IGNORECASE)
_SCAMP_TERM = re.compile(r"PV[12]_([5-9]|\d\d)")


def is_wcs_keyword(keyword: str) -> bool:
    """Tell whether :func:`celestial_cards` looks at cards of this name."""
    return _KEYWORD.fullmatch(keyword) is not None


def celestial_cards(cards: Mapping[str, object]) -> dict[str, Card]:
    """Pick and check the cards of an image's celestial WCS.

    Those of its first two axes: other axes, other descriptions (``CTYPE1A``) and dates are left out, since no
    position depends on them; what positions would depend on and nobody reads is refused.
    """
    found = {key: _stripped(cards[key]) for key in cards if is_wcs_keyword(key)}
    found = _with_its_frame({key: value for key, value in found.items() if value is not None})
    projection = _projection(found)
    for key, value in found.items():
        _check(key, value)
    kept = {key: value for key, value in found.items() if _kind(key) not in _LEFT_OUT}
    return _with_one_distortion(kept, projection)


def _kind(key: str) -> str:
    match = _KEYWORD.fullmatch(key)
    return str(match.lastgroup) if match else ""


def _stripped(value: object) -> Any:
    """Text without the blanks about it; None where nothing is left."""
    return value.strip() or None if isinstance(value, str) else value


def _with_its_frame(found: dict[str, Any]) -> dict[str, Any]:
    """Leave out what the frame has no use for: other programs write anything there."""
    frame = found.pop("RADECSYS", None)
    if frame is not None:
        found.setdefault("RADESYS", frame)
    unused = {key for key in ("EQUINOX", "EPOCH") if isinstance(found.get(key), str)}
    if shown(found.get("CTYPE1")).startswith(("'GLON", "'GLAT")):
        unused |= {"RADESYS", "EQUINOX", "EPOCH"}
    elif found.get("RADESYS") == "ICRS":
        unused |= {"EQUINOX", "EPOCH"}
    elif "EQUINOX" in found.keys() - unused:
        unused |= {"EPOCH"}
    return {key: value for key, value in found.items() if key not in unused}


def _check(key: str, value: Any) -> None:
    """Refuse a card that is none of its kind."""
    kind = _kind(key)
    if kind in _BOUNDS:
        _check_number(key, value, _BOUNDS[kind], whole=kind in _WHOLE)
    elif kind == "mixed" and value != 0:
        raise ValueError(
            f"{shown(key)} is {shown(value)}: the sky's axes must not depend on others"
        )
    elif kind in {"type", "unit", "frame"} and not (
        isinstance(value, str) and _WORD.fullmatch(value)
    ):
        raise ValueError(f"{key} is {shown(value)}; it must be a word")
    elif kind == "unread" and (not key.startswith("WAT") or _SURFACE.match(str(value))):
        raise ValueError(
            f"{shown(key)} belongs to a distortion that is not read (lookup tables, TNX, plates, more "
            "than 40 terms); resample the image to a plain projection first (SWarp, drizzle)"
        )


def _check_number(key: str, value: Any, bounds: tuple[float, float], *, whole: bool) -> None:
    low, high = bounds
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    if not is_number or not low <= value <= high or (whole and value != int(value)):
        kind = "a whole number" if whole else "a number"
        raise ValueError(f"{key} is {shown(value)}; it must be {kind} from {low:g} to {high:g}")


def _projection(found: dict[str, Any]) -> str:
    """Return the projection of both axes, whose types must be a pair that is read."""
    types = [found.get(f"CTYPE{axis}", "missing") for axis in (1, 2)]
    matches = [
        match for each in types if isinstance(each, str) and (match := _TYPE.fullmatch(each))
    ]
    axes = {match["axis"] for match in matches}
    projections = {match["projection"] for match in matches}
    if axes not in ({"RA--", "DEC-"}, {"GLON", "GLAT"}) or len(projections) != 1:
        raise ValueError(
            f"CTYPE1 is {shown(types[0])} and CTYPE2 {shown(types[1])}; they must be RA and DEC, or "
            "GLON and GLAT, in one of the standard's projections, or TPV"
        )
    return projections.pop()


def _with_one_distortion(kept: dict[str, Card], projection: str) -> dict[str, Card]:
    """Choose as astropy does, without what it says of it; leave out SIP's terms beyond their order."""
    types = {key: str(kept[key]) for key in ("CTYPE1", "CTYPE2")}
    named = any(each.endswith("-SIP") for each in types.values())
    scamp = any(_SCAMP_TERM.fullmatch(key) for key in kept)
    if projection == "TPV" or (projection == "TAN" and scamp and not named):
        return {key: value for key, value in kept.items() if _kind(key) not in {"order", "sip"}}
    if float(kept.get("A_ORDER", 0)) > 1:
        kept |= {key: each.removesuffix("-SIP") + "-SIP" for key, each in types.items()}
    return {key: value for key, value in kept.items() if not _is_beyond_order(key, kept)}


def _is_beyond_order(key: str, kept: dict[str, Card]) -> bool:
    if _kind(key) != "sip":
        return False
    family, p, q = key.split("_")
    return int(p) + int(q) > float(kept.get(f"{family}_ORDER", 0))
