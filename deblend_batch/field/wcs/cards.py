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
    r"|(?P<unread>PV[12]_[1-9]\d*|C[PQ]DIS[12]|D2IMDIS[12]|AMD[XY]\d+|WAT[12]_001)"
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
_SAME_MATRIX = 1e-6
_SURFACE = re.compile(r"wtype\s*=\s*(tnx|zpx)", re.IGNORECASE)
_MATRIX = re.compile(r"(?:CD|PC)[12]_[12]|PC00[12]00[12]")
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
    _check_complete(found)
    kept = {key: value for key, value in found.items() if _kind(key) not in _LEFT_OUT}
    return _with_one_distortion(_with_one_matrix(kept), projection)


def remarks(cards: Mapping[str, object]) -> tuple[str, ...]:
    """Say what :func:`celestial_cards` decided between cards that other programs read in another way."""
    found = {key: _stripped(cards[key]) for key in cards if is_wcs_keyword(key)}
    types = [str(found.get(f"CTYPE{axis}")) for axis in (1, 2)]
    said = []
    if _has_terms(found) and not any(each.endswith("-SIP") for each in types):
        said.append(
            f"WCS: A_ORDER and B_ORDER are left out, since CTYPE is {types[0]} without -SIP; astropy would "
            "apply them"
        )
    rest = [key for key in ("CROTA1", "CROTA2") if found.get(key)]
    if rest and any(_MATRIX.fullmatch(key) for key in found):
        said.append(f"WCS: the CD or PC matrix counts, {rest[0]} is left out")
    if found.get("RADESYS") == "ICRS" and found.get("EQUINOX") not in (None, 2000, 2000.0):
        said.append(f"WCS: RADESYS is ICRS, EQUINOX {shown(found['EQUINOX'])} is left out")
    return tuple(said)


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


def _check_complete(found: Mapping[str, Any]) -> None:
    """Refuse a description that leaves out what has no sensible default."""
    for key in ("CRPIX1", "CRPIX2", "CRVAL1", "CRVAL2"):
        if key not in found:
            raise ValueError(f"{key} is missing")
    steps = [axis for axis in (1, 2) if f"CDELT{axis}" in found]
    if len(steps) == 1 and not any(key.startswith("CD") and "_" in key for key in found):
        raise ValueError(f"CDELT{3 - steps[0]} is missing")
    latitude = _latitude_axis(found)
    value, unit = found[f"CRVAL{latitude}"], found.get(f"CUNIT{latitude}", "deg")
    if str(unit).lower().startswith("deg") and abs(value) > 90:
        raise ValueError(f"CRVAL{latitude} is {value:g}; a latitude is -90 to 90 deg")


def _latitude_axis(found: Mapping[str, Any]) -> int:
    return 1 if str(found["CTYPE1"]).startswith(("DEC", "GLAT")) else 2


def _with_one_matrix(kept: dict[str, Card]) -> dict[str, Card]:
    """Keep one way to say scale and rotation: CD, else PC with CDELT, else CDELT with CROTA."""
    has_cd = any(re.fullmatch(r"CD[12]_[12]", key) for key in kept)
    has_pc = any(key.startswith("PC") for key in kept)
    if has_cd and has_pc:
        _check_same_matrix(kept)
        kept, has_pc = {key: value for key, value in kept.items() if key[:2] != "PC"}, False
    latitude = _latitude_axis(kept)
    turned, other = kept.get(f"CROTA{latitude}"), kept.get(f"CROTA{3 - latitude}")
    if not has_cd and not has_pc and other and other != turned:
        raise ValueError(
            f"CROTA{3 - latitude} is {shown(other)} and CROTA{latitude} {shown(turned)}; the rotation stands "
            f"in CROTA{latitude} alone"
        )
    unused = {f"CROTA{3 - latitude}"} if not has_cd and not has_pc else {"CROTA1", "CROTA2"}
    if has_cd:
        unused |= {"CDELT1", "CDELT2"}
    return {key: value for key, value in kept.items() if key not in unused}


def _check_same_matrix(kept: Mapping[str, Card]) -> None:
    """Refuse CD and PC cards that contradict each other: programs take either."""
    for i in (1, 2):
        for j in (1, 2):
            given = kept.get(f"PC{i}_{j}", kept.get(f"PC00{i}00{j}", float(i == j)))
            product = float(given) * float(kept.get(f"CDELT{i}", 1.0))
            cd = float(kept.get(f"CD{i}_{j}", 0.0))
            if abs(product - cd) > _SAME_MATRIX * max(
                abs(float(kept.get(f"CD{i}_{i}", 0.0))), abs(cd)
            ):
                raise ValueError(
                    f"CD{i}_{j} is {cd:g}, PC and CDELT say {product:g}; remove one kind"
                )


def _has_terms(found: Mapping[str, Any]) -> bool:
    """Tell whether there is a SIP polynomial of an order that moves pixels."""
    orders = [found.get(f"{family}_ORDER") for family in "AB"]
    return any(isinstance(order, int | float) and order > 1 for order in orders)


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
    """Choose what the types say: SIP where they end so (Shupe et al. 2005), else what PV cards hold.

    Drizzling leaves SIP's cards behind in images that have no distortion any more. A gnomonic projection has
    no parameters of its latitude: where there are some, SCAMP has written a polynomial in its old way.
    """
    types = {key: str(kept[key]) for key in ("CTYPE1", "CTYPE2")}
    if any(each.endswith("-SIP") for each in types.values()):
        kept |= {key: each.removesuffix("-SIP") + "-SIP" for key, each in types.items()}
        return {key: value for key, value in kept.items() if not _is_beyond_order(key, kept)}
    plain = {key: value for key, value in kept.items() if _kind(key) not in {"order", "sip"}}
    latitude = f"PV{_latitude_axis(kept)}_"
    terms = any(key.startswith(latitude) or _SCAMP_TERM.fullmatch(key) for key in plain)
    is_polynomial = projection == "TPV" or (projection == "TAN" and terms)
    if is_polynomial:
        plain |= {key: each.replace("TAN", "TPV") for key, each in types.items()}
    elif projection == "TAN":
        _check_fiducial_point(plain)
    if is_polynomial:  # the convention's defaults, which wcslib takes for 0
        plain = {"PV1_1": 1.0, "PV2_1": 1.0, **plain}
    return plain


def _check_fiducial_point(kept: dict[str, Card]) -> None:
    """Refuse a gnomonic projection that is moved: PV1_1 may mean this, or a part of a polynomial."""
    longitude = f"PV{3 - _latitude_axis(kept)}_"
    for term, usual in (("0", 0), ("1", 0), ("2", 90)):
        value = kept.get(longitude + term, usual)
        if value != usual:
            raise ValueError(
                f"{longitude}{term} is {shown(value)}: a polynomial needs terms of both axes and CTYPE TPV, "
                "and a gnomonic projection none; mend it"
            )


def _is_beyond_order(key: str, kept: dict[str, Card]) -> bool:
    if _kind(key) != "sip":
        return False
    family, p, q = key.split("_")
    return int(p) + int(q) > float(kept.get(f"{family}_ORDER", 0))
