"""Reads the pixels of a tile: the only module that knows Dask.

Dask describes the read lazily, one small graph a tile, and computes it inside the worker that asked: Ray
alone schedules the cluster (docs/decisions/001-scheduler.md). Local pixels are read with Dask's synchronous
scheduler; of a remote store, whose answers take their time, chunks are asked for several at once.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from itertools import count
from typing import Any, TypeVar

import dask
import dask.array as da
import dask.threaded
import numpy as np
import zarr
from numpy.typing import NDArray

from deblend_batch.errors import BadDataError, DeblendError
from deblend_batch.field.layout import Field
from deblend_batch.field.mask_bits import bad_pixels, near_bright_star, saturated_pixels
from deblend_batch.field.unstored import without_unstored
from deblend_batch.storage import translate
from deblend_batch.text import cause
from deblend_batch.tiling.tile import Box

REQUESTS_AT_ONCE = 8
"""Chunks that a process asks a remote store for at a time, for all its tiles together."""
_requests = ThreadPoolExecutor(REQUESTS_AT_ONCE, "read")
_numbers = count()
T = TypeVar("T", bound=np.generic)


@dataclass(frozen=True)
class TilePixels:
    """The pixels of a box, all of it: what lies outside the image is NaN.

    Parameters
    ----------
    box : Box
        Where in the field the arrays lie; may reach over the image's edge.
    image : ndarray of float32, shape (band, y, x)
        Image units; bad pixels are NaN.
    variance : ndarray of float32, shape (band, y, x), or None
        Image units squared.
    saturated : ndarray of bool, shape (band, y, x), or None
        Whether a pixel is saturated; None where the field does not tell which are.
    inside : Box
        The part of ``box`` inside the image, in the field's coordinates.
    near_star : ndarray of bool, shape (y, x), or None
        Whether the mask of any band says that a pixel is near a bright star; None where it has no bit for it.
    """

    box: Box
    image: NDArray[np.float32]
    variance: NDArray[np.float32] | None
    saturated: NDArray[np.bool_] | None
    inside: Box
    near_star: NDArray[np.bool_] | None = None


def read_tile(field: Field, box: Box) -> TilePixels:
    """Read a box of a field; never more than the box.

    Parameters
    ----------
    field : Field
        The field.
    box : Box
        Core and halo of a tile, in pixels of the field.

    Returns
    -------
    TilePixels
        Image and variance; pixels that the mask calls bad, those without a positive variance, and those of
        chunks that were never stored are NaN; infinite ones stay, and count as bad.
    """
    inside = box.clipped(field.shape_yx)
    image = _without_unstored(field, _read(field, field.image, inside), inside)
    mask = None if field.mask is None else _read(field, field.mask, inside)
    saturated = _saturated(field, image, mask)
    if mask is not None:
        image = np.where(bad_pixels(mask, field.meta.mask_bits), np.float32(np.nan), image)
    variance = None
    if field.variance is not None:
        variance = _read(field, field.variance, inside).astype(np.float32, copy=False)
        known = np.isfinite(variance) & (variance > 0)
        if not known.all():
            image = np.where(known, image, np.float32(np.nan))
        variance = _padded(variance, box, inside)
    if saturated is not None:
        saturated = _padded(saturated, box, inside)
    image = _padded(image.astype(np.float32, copy=False), box, inside)
    return TilePixels(box, image, variance, saturated, inside, _near_star(field, mask, box, inside))


def _near_star(
    field: Field, mask: NDArray[Any] | None, box: Box, inside: Box
) -> NDArray[np.bool_] | None:
    bits = field.meta.mask_bits
    if mask is None or bits is None or not bits.bright_value:
        return None
    near = np.any(near_bright_star(mask, bits), axis=0, keepdims=True)
    planes: NDArray[np.bool_] = _padded(near, box, inside)
    return np.asarray(planes[0])


def _saturated(
    field: Field, image: NDArray[np.float32], mask: NDArray[Any] | None
) -> NDArray[np.bool_] | None:
    """Tell which pixels are saturated, where the field says how to know."""
    levels, bits = field.meta.saturate or (None,) * len(image), field.meta.mask_bits
    named = mask is not None and bits is not None and bits.saturated_value
    if not named and not any(level is not None for level in levels):
        return None
    planes = [None] * len(image) if mask is None else np.broadcast_to(mask, image.shape)
    return np.stack(
        [
            saturated_pixels(band, level, plane, bits)
            for band, level, plane in zip(image, levels, planes, strict=True)
        ]
    )


def _read(field: Field, array: zarr.Array[Any], box: Box) -> NDArray[Any]:
    chunks, scheduler = _way(field, array)
    # Dask would hash the array for a name, which takes as long as reading a small tile.
    name = f"read-{next(_numbers)}"
    whole = da.from_zarr(array, chunks=chunks, name=name, inline_array=True)
    # Dask moves the slice into each node of its graph, so that no more than the box is read.
    lazy = whole[..., box.y0 : box.y1, box.x0 : box.x1]
    try:
        pixels = lazy.compute(scheduler=scheduler)
    except (DeblendError, MemoryError):
        raise
    except Exception as error:
        meaning = translate(field.url, error)
        if meaning is not error:
            raise meaning from error
        where = f"{field.url}: {array.path or 'image'}{_first_damaged(array, box)}"
        raise BadDataError(f"{where}: cannot decode a chunk ({cause(error)})") from error
    planes: NDArray[Any] = pixels[None] if pixels.ndim == 2 else pixels
    return planes


def _first_damaged(array: zarr.Array[Any], box: Box) -> str:
    """Name the pixels of the first chunk under a box that cannot be decoded, or those of the box."""
    height, width = array.chunks[-2:]
    for y in range(box.y0 // height * height, box.y1, height):
        for x in range(box.x0 // width * width, box.x1, width):
            y1, x1 = (
                min(edge) for edge in zip((y + height, x + width), array.shape[-2:], strict=True)
            )
            try:
                array[..., y:y1, x:x1]
            except Exception:  # noqa: BLE001  # whatever it was, the first reading tells it
                return f"[{y}:{y1}, {x}:{x1}]"
    return f"[{box.y0}:{box.y1}, {box.x0}:{box.x1}]"


def _way(field: Field, array: zarr.Array[Any]) -> tuple[tuple[int, ...], Callable[..., Any]]:
    """Choose the chunks of a read, and the scheduler, not by its name: that makes Dask import distributed.

    Zarr reads the chunks of a shard one after the other, which with one graph node a shard is the faster way
    where they are at hand; where they are not, each has a node, and thereby a thread, to itself.
    """
    if field.is_local:
        return array.shards or array.chunks, dask.get
    return array.chunks, partial(dask.threaded.get, pool=_requests)


def _without_unstored(field: Field, planes: NDArray[np.float32], box: Box) -> NDArray[np.float32]:
    array = field.image

    def read(rows: slice, columns: slice) -> NDArray[np.float32]:
        chunk = Box(rows.start, columns.start, rows.stop, columns.stop)
        return _read(field, array, chunk.clipped(field.shape_yx))

    return without_unstored(
        planes, box.origin_yx, array.fill_value, (array.chunks[-2], array.chunks[-1]), read
    )


def _padded(planes: NDArray[T], box: Box, inside: Box) -> NDArray[T]:
    """Fill planes up to a box, with NaN or, of yes and no, with no."""
    if inside == box:
        return planes
    nothing = np.nan if planes.dtype.kind == "f" else 0
    whole = np.full((len(planes), *box.shape_yx), nothing, planes.dtype)
    height, width = planes.shape[1:]
    if height and width:
        y0, x0 = inside.y0 - box.y0, inside.x0 - box.x0
        whole[:, y0 : y0 + height, x0 : x0 + width] = planes
    return whole
