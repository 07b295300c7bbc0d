"""The work on one tile up to its stamps: its pixels are read, and cut a few blends at a time."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from deblend_batch.engine.inputs.work import PART_BLENDS, RunContext, TileSpec, open_field
from deblend_batch.field.layout import Field
from deblend_batch.tiling.blends import Blends
from deblend_batch.tiling.reader import read_tile
from deblend_batch.tiling.stamps import StampCutter, Stamps
from deblend_batch.tiling.tile import Box

Rows = NDArray[np.int64]


def cut_parts(spec: TileSpec, blends: Blends, context: RunContext) -> Iterator[tuple[Rows, Stamps]]:
    """Read a tile's pixels and cut its stamps, :data:`PART_BLENDS` of one kind at a time.

    Yields
    ------
    rows : ndarray of int64, shape (k,)
        Which of the blends they are.
    stamps : Stamps
        Of one size, and of blends with as many members each.
    """
    opened = open_field(spec.field_url, context)
    yield from cut_blends(opened, blends, spec.noise_sigma, with_weights=not context.takes_pairs)


def cut_blends(
    opened: Field, blends: Blends, noise_sigma: tuple[float, ...], *, with_weights: bool
) -> Iterator[tuple[Rows, Stamps]]:
    """Read the pixels of blends that lie together, and cut their stamps as :func:`cut_parts` does."""
    # The cutter alone keeps what it needs of the pixels.
    cutter = StampCutter(
        read_tile(opened, _needed(blends)), _noise(noise_sigma, opened), with_weights=with_weights
    )
    for rows in _alike(blends):
        for start in range(0, len(rows), PART_BLENDS):
            part = rows[start : start + PART_BLENDS]
            yield part, cutter.cut(blends[part].narrowed())


def _alike(blends: Blends) -> Iterator[Rows]:
    """Divide blends by the size of their stamps and their number of members; the order within stays."""
    kinds = np.stack([blends.stamp_size, blends.n_members], axis=1)
    found, kind = np.unique(kinds, axis=0, return_inverse=True)
    for number in range(len(found)):
        yield np.flatnonzero(kind.ravel() == number)


def _needed(blends: Blends) -> Box:
    """Return the pixels that the stamps reach: at most core and halo, less where the tile is sparse.

    A blend just outside the image belongs to the nearest tile; its stamp reaches beyond the image, which
    costs no read.
    """
    centre = np.floor(blends.centre_yx + 0.5).astype(np.int64)
    size = blends.stamp_size.astype(np.int64)[:, None]
    low = (centre - size // 2).min(axis=0)
    high = (centre - size // 2 + size).max(axis=0)
    return Box(int(low[0]), int(low[1]), int(high[0]), int(high[1]))


def _noise(sigma: tuple[float, ...], opened: Field) -> np.ndarray[Any, np.dtype[np.float32]]:
    if sigma:
        return np.array(sigma, np.float32)
    return np.full(opened.n_bands, np.nan, np.float32)
