"""Positions of which none is in the image: whether they would be, were they in another unit or frame."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping

import numpy as np

from deblend_batch.detections.table import Detections
from deblend_batch.errors import DetectionsError
from deblend_batch.field.layout import Field
from deblend_batch.tiling.tile import inside_image

_FACTORS: Mapping[str, tuple[float, float, str]] = {
    "radians": (
        180 / np.pi,
        180 / np.pi,
        "{ra: {column: NAME, unit: rad}, dec: {column: NAME, unit: rad}}",
    ),
    "right ascensions in hours": (15.0, 1.0, "{ra: {column: NAME, unit: hourangle}}"),
}
"""What degrees may be instead, the factors of right ascension and declination, and how to say so."""


class OtherUnits:
    """Counts how many detections would be in an image, were their positions in another unit or frame.

    Parameters
    ----------
    field : Field
        With the image.
    """

    def __init__(self, field: Field) -> None:
        self._field = field
        self._counts: Counter[str] = Counter()
        self._in_parent = 0

    def look(self, part: Detections) -> None:
        """Look at a part of a table."""
        if part.yx is not None:
            if (parent := self._field.meta.parent_yx) is not None:
                self._in_parent += int(inside_image(part.yx - parent, self._field.shape_yx).sum())
            return
        ra, dec = part.ra, part.dec
        for unit, (of_ra, of_dec, _) in _FACTORS.items():
            fits = (np.abs(ra) * of_ra <= 361) & (np.abs(dec) * of_dec <= 90)
            if fits.any():
                yx = self._field.world_to_pixel(ra[fits] * of_ra, dec[fits] * of_dec)
                self._counts[unit] += int(inside_image(yx, self._field.shape_yx).sum())

    def check(self, url: str) -> None:
        """Refuse a table whose positions fit the image in another unit alone; none is in it as degrees."""
        if self._in_parent:
            raise DetectionsError(
                f"{url}: as pixels of {self._field.url}, no position is in it; as those of the larger frame "
                f"that it was cut from (tract, mosaic), {self._in_parent:,} would be: say so with "
                "'origin: parent'"
            )
        unit, n = max(self._counts.items(), key=lambda each: each[1], default=("", 0))
        if n:
            raise DetectionsError(
                f"{url}: as degrees, no position is in {self._field.url}; as {unit}, {n:,} would be: say so "
                f"with 'columns: {_FACTORS[unit][2]}'"
            )
