"""Chunks that were never stored: Zarr reads them as the fill value, and they hold no pixels."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray


def without_unstored(
    planes: NDArray[np.float32],
    origin_yx: tuple[int, int],
    fill_value: object,
    chunk_yx: tuple[int, int],
    read: Callable[[slice, slice], NDArray[np.float32]],
) -> NDArray[np.float32]:
    """Make NaN of chunks that hold nothing but the fill value.

    Parameters
    ----------
    planes : ndarray of float32, shape (band, y, x)
        A window of the image; changed, if it may be.
    origin_yx : tuple of int
        Where the window's first pixel is in the image.
    fill_value : float, or None
        Of the array.
    chunk_yx : tuple of int
        Rows and columns of a chunk.
    read : callable
        Reads rows and columns of the image's same bands, of a whole chunk or what there is of it.

    Returns
    -------
    ndarray of float32, shape (band, y, x)
        NaN where nothing was stored.
    """
    # Zarr calls it any scalar; without one, as format 2 may be, it reads zeros.
    fill = planes.dtype.type(0 if fill_value is None else fill_value)  # type: ignore[arg-type]
    if np.isnan(fill) or not planes.size:
        return planes
    if not planes.flags.writeable:
        planes = planes.copy()
    (height, width), (y0, x0) = chunk_yx, origin_yx
    for y in range(y0 // height * height, y0 + planes.shape[1], height):
        for x in range(x0 // width * width, x0 + planes.shape[2], width):
            rows = slice(max(y - y0, 0), y + height - y0)
            columns = slice(max(x - x0, 0), x + width - x0)
            chunk = planes[:, rows, columns]
            empty = [plane[0, 0] == fill and bool((plane == fill).all()) for plane in chunk]
            if any(empty):
                # What the window holds of a chunk must not decide alone: another may hold more of it.
                whole = read(slice(y, y + height), slice(x, x + width))
                chunk[(whole == fill).all(axis=(1, 2))] = np.nan
    return planes
