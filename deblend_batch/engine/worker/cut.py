"""The work on one tile up to its stamps: its pixels are read, and cut a few pairs at a time."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from deblend_batch.engine.inputs.work import PART_PAIRS, RunContext, TileSpec, open_field
from deblend_batch.field.layout import Field
from deblend_batch.tiling.pairs import Pairs
from deblend_batch.tiling.reader import read_tile
from deblend_batch.tiling.stamps import StampCutter, Stamps
from deblend_batch.tiling.tile import Box


def cut_parts(spec: TileSpec, pairs: Pairs, context: RunContext) -> Iterator[Stamps]:
    """Read a tile's pixels and cut its stamps, :data:`PART_PAIRS` at a time."""
    opened = open_field(spec.field_url, context)
    # The cutter alone keeps what it needs of the pixels.
    cutter = StampCutter(
        read_tile(opened, _needed(pairs, context)), context.stamp_size, _noise(spec, opened)
    )
    for start in range(0, len(pairs), PART_PAIRS):
        yield cutter.cut(pairs[start : start + PART_PAIRS])


def _needed(pairs: Pairs, context: RunContext) -> Box:
    """Return the pixels that the stamps reach: at most core and halo, less where the tile is sparse.

    A central just outside the image belongs to the nearest tile; its stamp reaches beyond the image, which
    costs no read.
    """
    half = context.stamp_size // 2
    centre = np.floor(pairs.yx[:, 0] + 0.5).astype(np.int64)
    low, high = centre.min(axis=0) - half, centre.max(axis=0) - half + context.stamp_size
    return Box(int(low[0]), int(low[1]), int(high[0]), int(high[1]))


def _noise(spec: TileSpec, opened: Field) -> np.ndarray[Any, np.dtype[np.float32]]:
    if spec.noise_sigma:
        return np.array(spec.noise_sigma, np.float32)
    return np.full(opened.n_bands, np.nan, np.float32)
