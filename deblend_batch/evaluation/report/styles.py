"""Colour, marker and line of each method: the same in all figures, and on all pages."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from deblend_batch.pages.plotting import MARKERS, PALETTE

# Where methods are compared again and again, a reader should not have to learn them anew.
_PLACES = {
    name: place
    for place, name in enumerate(
        ("blend2flux", "blend2mask2flux", "unet", "naive split", "sep, seed recipe", "sep, fair")
    )
} | {"SExtractor": 6}
_LINES = ("-", "--", ":")


@dataclass(frozen=True)
class MethodStyle:
    """How a method is drawn.

    Parameters
    ----------
    colour : str
        As ``#rrggbb``.
    marker, line : str
        As matplotlib names them.
    """

    colour: str
    marker: str
    line: str


def method_styles(names: Sequence[str]) -> dict[str, MethodStyle]:
    """Give each method a style of its own."""
    places: dict[str, int] = {}
    for name in names:
        place = _PLACES.get(name.removesuffix("-small"))
        if place is not None and place not in places.values():
            places[name] = place
    free = (place for place in range(2 * len(names) + len(PALETTE)) if place not in places.values())
    for name in names:
        if name not in places:
            places[name] = next(free)
    return {name: _style(places[name]) for name in names}


def _style(place: int) -> MethodStyle:
    turn, colour = divmod(place, len(PALETTE))
    marker = MARKERS[(colour + turn) % len(MARKERS)]
    return MethodStyle(PALETTE[colour], marker, _LINES[turn % len(_LINES)])
