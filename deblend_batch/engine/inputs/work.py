"""The work on one tile, up to its stamps: plain functions that run in an actor."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any
from uuid import uuid4

import numpy as np

from deblend_batch.catalog.ledger import run_id
from deblend_batch.engine.inputs.index import IndexReader
from deblend_batch.field.layout import Field
from deblend_batch.logs import LogFormat
from deblend_batch.tiling.pairs import Pairs
from deblend_batch.tiling.reader import read_tile
from deblend_batch.tiling.stamps import StampCutter, Stamps
from deblend_batch.tiling.tile import Box

PART_PAIRS = 128
"""Pairs whose stamps are cut at a time: bounds the memory of a crowded tile, and keeps each part small
enough for the allocator to use the same pages again (a third of the time of parts of 512)."""


@dataclass(frozen=True)
class TileSpec:
    """A unit of work: the pairs of one tile, or of a part of a crowded one.

    Parameters
    ----------
    name : str
        The tile's name, unique in the run; names its shard.
    field_url, index_url : str
        Where its pixels and its pairs are.
    core : Box
        The pixels that own its pairs, and those of the other units of a crowded tile.
    row_start, row_stop : int
        Its rows in the pair index.
    noise_sigma : tuple of float
        Background rms per band where the field has no variance plane.
    recorded : bool
        Whether an earlier start left a quarantine record of this name.
    """

    name: str
    field_url: str
    index_url: str
    core: Box
    row_start: int
    row_stop: int
    noise_sigma: tuple[float, ...]
    recorded: bool = False

    @property
    def n_pairs(self) -> int:
        """Number of pairs."""
        return self.row_stop - self.row_start


@dataclass(frozen=True)
class RunContext:
    """What every worker must know of the run; small, sent once to each.

    Parameters
    ----------
    output : str
        Output URL.
    model : str
        Name or URL of the model.
    stamp_size : int
        Edge of its stamps, px.
    batch_size : int, optional
        Stamps in a batch; the model's own choice if None.
    masks : bool
        Whether to write the masks.
    fingerprint, model_sha256 : str
        For the receipts.
    options : dict
        Storage options.
    start : str
        Which start of the run this is.
    log_format : {"text", "json"}
        Of the lines that workers log.
    """

    output: str
    model: str
    stamp_size: int
    batch_size: int | None
    masks: bool
    fingerprint: str
    model_sha256: str
    options: dict[str, Any] = field(default_factory=dict, repr=False)
    start: str = field(default_factory=lambda: uuid4().hex)
    log_format: LogFormat = "text"

    @property
    def run(self) -> str:
        """The run's id, the same in every start."""
        return run_id(self.output, self.fingerprint)

    @property
    def halo_px(self) -> int:
        """Pixels that a stamp may reach beyond the core."""
        return self.stamp_size // 2 + 1


# Kept by start, too: Ray's processes outlive a run, and the next may find something else at the same URL.
@lru_cache(maxsize=8)
def _field(url: str, start: str, options: _Key) -> Field:  # noqa: ARG001
    return Field.open(url, dict(options))


@lru_cache(maxsize=8)
def _index(url: str, start: str, options: _Key) -> IndexReader:  # noqa: ARG001
    return IndexReader(url, dict(options))


class _Key(tuple[tuple[str, Any], ...]):
    """Storage options as a cache key; nested mappings compare by their text."""

    __slots__ = ()

    def __hash__(self) -> int:
        return hash(repr(self))


def open_field(url: str, context: RunContext) -> Field:
    """Open a field of a run, once a process and start of the run."""
    return _field(url, context.start, _Key(sorted(context.options.items())))


def load_pairs(spec: TileSpec, context: RunContext) -> Pairs:
    """Read the pairs of a tile from its field's index.

    Parameters
    ----------
    spec : TileSpec
        The tile.
    context : RunContext
        The run.

    Returns
    -------
    Pairs
        Sorted by blend id.
    """
    options = _Key(sorted(context.options.items()))
    reader = _index(spec.index_url, context.start, options)
    return reader.read(spec.row_start, spec.row_stop)


def cut_parts(spec: TileSpec, pairs: Pairs, context: RunContext) -> Iterator[Stamps]:
    """Read a tile's pixels and cut its stamps, :data:`PART_PAIRS` at a time.

    Parameters
    ----------
    spec : TileSpec
        The tile.
    pairs : Pairs
        Its pairs.
    context : RunContext
        The run.

    Yields
    ------
    Stamps
        The stamps of the next pairs.

    Raises
    ------
    BadDataError
        If a chunk cannot be decoded.
    StorageError
        If the store cannot be read.
    """
    opened = open_field(spec.field_url, context)
    pixels = read_tile(opened, _needed(pairs, context))
    cutter = StampCutter(pixels, context.stamp_size, _noise(spec, opened))
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
