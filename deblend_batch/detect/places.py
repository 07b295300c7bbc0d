"""The PSF of each part of a tile, for its filters."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from deblend_batch.detect.filters import Place
from deblend_batch.field.layout import Field
from deblend_batch.field.psf.profile import psf_image
from deblend_batch.tiling.tile import Box

Cell = tuple[int, int]


def places_of(field: Field, band: int, box: Box) -> list[Place]:
    """Divide a box of a field by the cells of its PSF.

    Parameters
    ----------
    field : Field
        The field.
    band : int
        Number of the band.
    box : Box
        Pixels of the field.

    Returns
    -------
    list of Place
        Their boxes count from the box's first pixel.
    """
    grid = field.psf.finest
    corners = np.array([[box.y0, box.x0], [box.y1 - 1, box.x1 - 1]], np.float64)
    (y0, x0), (y1, x1) = grid.cells(corners).tolist()
    origin = (-box.y0, -box.x0)
    found = []
    for y in range(y0, y1 + 1):
        for x in range(x0, x1 + 1):
            part = _part((y, x), grid.bounds((y, x)), grid.counts_yx, box)
            found.append(Place(part.shifted(origin), _image(field, band, (y, x))))
    return found


def _part(cell: Cell, bounds: tuple[Cell, Cell], counts_yx: tuple[int, int], box: Box) -> Box:
    """Return what a cell holds of a box; cells at the rim of the grid hold what lies beyond, too."""
    (y0, x0), (y1, x1) = bounds
    return Box(
        max(y0, box.y0) if cell[0] else box.y0,
        max(x0, box.x0) if cell[1] else box.x0,
        min(y1, box.y1) if cell[0] < counts_yx[0] - 1 else box.y1,
        min(x1, box.x1) if cell[1] < counts_yx[1] - 1 else box.x1,
    )


def _image(field: Field, band: int, cell: Cell) -> NDArray[np.float32]:
    """Return the PSF's image in a cell; of its width alone where that is all that is known."""
    known = field.psf.of_cell(band, cell)
    if isinstance(known, float):
        return psf_image(known / field.pixel_scale_arcsec, field.pixel_scale_arcsec)
    return known
