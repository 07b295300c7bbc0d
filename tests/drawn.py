"""Light drawn where it is, and not on a whole image: an object at a time, a large image takes seconds."""

from __future__ import annotations

import galsim


def add_light(
    image: galsim.Image, light: galsim.GSObject, yx: tuple[float, float], reach: int
) -> None:
    """Add an object to an image, as far as ``reach`` pixels from its place."""
    y, x = yx
    near = galsim.BoundsI(round(x) - reach, round(x) + reach, round(y) - reach, round(y) + reach)
    part = image[near & image.bounds]
    light.drawImage(image=part, center=galsim.PositionD(x, y), add_to_image=True)
