"""Large images in pieces: pasting stamps, and noise that does not depend on the pieces."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

Image = NDArray[np.float32]
Corner = tuple[int, int]

_NOISE_BLOCK_PX = 256


def tiles(shape_yx: Corner, edge: int) -> Iterator[tuple[Corner, Corner]]:
    """Cut an image into squares, row by row.

    Parameters
    ----------
    shape_yx : tuple of int
        Rows and columns.
    edge : int
        Side of the squares; those at the far edges are smaller.

    Yields
    ------
    tuple
        First pixel and one past the last, each (y, x).
    """
    for y in range(0, shape_yx[0], edge):
        for x in range(0, shape_yx[1], edge):
            yield (y, x), (min(y + edge, shape_yx[0]), min(x + edge, shape_yx[1]))


def paste(image: Image, stamp: Image, first_yx: NDArray[np.int64]) -> None:
    """Add a stamp to an image where they overlap, in place.

    Parameters
    ----------
    image, stamp : numpy.ndarray
        float32 (y, x).
    first_yx : numpy.ndarray
        int64 (2,), pixel of ``image`` on which the first of ``stamp`` falls; may lie outside.
    """
    low = np.maximum(first_yx, 0)
    high = np.minimum(first_yx + stamp.shape, image.shape)
    if (high <= low).any():
        return
    start, stop = low - first_yx, high - first_yx
    image[low[0] : high[0], low[1] : high[1]] += stamp[start[0] : stop[0], start[1] : stop[1]]


def noise_plane(low_yx: Corner, high_yx: Corner, sigma: float, seed: int) -> Image:
    """Return the white noise of a rectangle of a field; a pixel's value does not depend on the rectangle.

    Parameters
    ----------
    low_yx, high_yx : tuple of int
        First pixel and one past the last.
    sigma : float
        Standard deviation.
    seed : int
        Seed of the field.

    Returns
    -------
    numpy.ndarray
        float32 (y, x).
    """
    plane = np.zeros((high_yx[0] - low_yx[0], high_yx[1] - low_yx[1]), np.float32)
    step = _NOISE_BLOCK_PX
    for by in range(low_yx[0] // step, -(-high_yx[0] // step)):
        for bx in range(low_yx[1] // step, -(-high_yx[1] // step)):
            rng = np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(13, by, bx)))
            block = rng.standard_normal((step, step), dtype=np.float32)
            paste(plane, block, np.array([by * step - low_yx[0], bx * step - low_yx[1]]))
    plane *= np.float32(sigma)
    return plane
