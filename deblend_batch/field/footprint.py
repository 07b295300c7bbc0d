"""The footprint of a field: the part of the sky that is its own, where others of its survey cover it too."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import chain
from typing import Any

import numpy as np
from numpy.typing import NDArray

from deblend_batch.errors import FieldError
from deblend_batch.text import shown

_MOST_POLYGONS = 1000
_MOST_CORNERS = 1000
_ON_EDGE = 1e-14
"""How far from a great circle a corner may lie by rounding, as a sine: 2e-9 arcsec."""

Corner = tuple[float, float]


@dataclass(frozen=True)
class Footprint:
    """Convex polygons on the sky; what lies in one of them, edges included, is in the footprint.

    Parameters
    ----------
    polygons : tuple of tuple of (float, float)
        The corners of each in order, either way round, (ra, dec) in ICRS degrees; edges are great circles.
        Each polygon is smaller than half the sky.
    """

    polygons: tuple[tuple[Corner, ...], ...]

    def holds(self, radec: NDArray[np.float64]) -> NDArray[np.bool_]:
        """Tell which positions are in it.

        Parameters
        ----------
        radec : ndarray of float64, shape (n, 2)
            (ra, dec), ICRS degrees; NaN lies nowhere.

        Returns
        -------
        ndarray of bool, shape (n,)
            True inside, and on an edge.
        """
        directions = _directions(radec)
        held = np.zeros(len(radec), bool)
        for polygon in self.polygons:
            edges = _inward(_directions(np.array(polygon)))
            held |= (directions @ edges.T >= -_ON_EDGE).all(axis=1)
        return held

    def to_attributes(self) -> dict[str, Any]:
        """Return the attribute of the Zarr group, JSON-able."""
        return {"footprint": [[list(corner) for corner in polygon] for polygon in self.polygons]}

    @classmethod
    def from_attributes(cls, attributes: Mapping[str, Any], url: str) -> Footprint | None:
        """Check the attribute of a Zarr group; None where there is none."""
        given = attributes.get("footprint")
        if given is None:
            return None
        if not isinstance(given, list | tuple) or not 0 < len(given) <= _MOST_POLYGONS:
            raise FieldError(
                f"{url}: attribute 'footprint' is {shown(given)}; it must be a list of 1 to "
                f"{_MOST_POLYGONS} polygons, each a list of its corners [ra, dec]"
            )
        return cls(tuple(_polygon(each, url) for each in given))


def _polygon(given: object, url: str) -> tuple[Corner, ...]:
    where = f"{url}: attribute 'footprint' has a polygon"
    corners = given if isinstance(given, list | tuple) else []
    if not 3 <= len(corners) <= _MOST_CORNERS or not all(map(_is_corner, corners)):
        raise FieldError(
            f"{where} {shown(given)}; it must list 3 to {_MOST_CORNERS} corners [ra, dec] in degrees, "
            "-360 <= ra <= 360 and -90 <= dec <= 90"
        )
    polygon = tuple((float(ra), float(dec)) for ra, dec in corners)
    directions = _directions(np.array(polygon))
    if (directions @ _inward(directions).T < -_ON_EDGE).any() or not _turns_once(directions):
        raise FieldError(
            f"{where} {shown(given)} that is not convex, has a corner twice, no area, or half the sky; "
            "divide it into convex polygons"
        )
    return polygon


def _is_corner(given: object) -> bool:
    if not isinstance(given, list | tuple) or len(given) != 2:
        return False
    numbers = all(isinstance(each, int | float) and not isinstance(each, bool) for each in given)
    return numbers and abs(given[0]) <= 360 and abs(given[1]) <= 90


def _directions(radec: NDArray[np.float64]) -> NDArray[np.float64]:
    ra, dec = np.radians(radec).T
    return np.stack([np.cos(dec) * np.cos(ra), np.cos(dec) * np.sin(ra), np.sin(dec)], axis=-1)


def _inward(corners: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return for each edge the normal of its great circle, on the side of the polygon's middle."""
    normals = np.cross(corners, np.roll(corners, -1, axis=0))
    return np.asarray(normals * np.sign(normals @ corners.sum(axis=0))[:, None])


def _turns_once(corners: NDArray[np.float64]) -> bool:
    """Tell whether edges have a length, and turn to one side, once round their middle."""
    normals = np.cross(corners, np.roll(corners, -1, axis=0))
    middle = corners.sum(axis=0)
    sides = normals @ middle
    if not (np.abs(sides) > _ON_EDGE).all() or not (corners @ middle > 0).all():
        return False
    turned = sum(_turns(corners, middle / np.linalg.norm(middle)))
    return bool((sides > 0).all() or (sides < 0).all()) and abs(abs(turned) - 2 * math.pi) < 1e-6


def _turns(corners: NDArray[np.float64], middle: NDArray[np.float64]) -> Iterator[float]:
    """Return the angle at the middle between each corner and the next."""
    flat = corners - (corners @ middle)[:, None] * middle
    for one, other in zip(flat, chain(flat[1:], flat[:1]), strict=True):
        yield math.atan2(float(np.cross(one, other) @ middle), float(one @ other))
