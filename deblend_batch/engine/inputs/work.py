"""A unit of work, and what every worker must know of the run."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import lru_cache
from uuid import uuid4

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from deblend_batch.catalog.ledger import run_id
from deblend_batch.catalog.output import Output
from deblend_batch.engine.inputs.index.carried import rows_of
from deblend_batch.engine.inputs.index.file import IndexReader
from deblend_batch.field.layout import Field
from deblend_batch.logs import LogFormat
from deblend_batch.storage import Options
from deblend_batch.tiling.blends import Blends
from deblend_batch.tiling.tile import Box

PART_BLENDS = 128
"""Blends whose stamps are cut at a time: bounds the memory of a crowded tile, and keeps each part small
enough for the allocator to use the same pages again (a third of the time of parts of 512)."""


@dataclass(frozen=True)
class TileSpec:
    """A unit of work: the blends of one tile, or of a part of a crowded one.

    Parameters
    ----------
    name : str
        The tile's name, unique in the run; names its shard.
    field_url, index_url : str
        Where its pixels and its blends are.
    core : Box
        The pixels that own its blends, and those of the other units of a crowded tile.
    row_start, row_stop : int
        Its rows in the index.
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
    def n_blends(self) -> int:
        """Number of blends."""
        return self.row_stop - self.row_start


@dataclass(frozen=True)
class RunContext:
    """What every worker must know of the run; small, sent once to each.

    Parameters
    ----------
    output : Output
        Where it writes; its storage options are those of the inputs, too.
    model : str
        Name or URL of the model.
    batch_size : int, optional
        Stamps in a batch; the model's own choice if None.
    masks : bool
        Whether to write the masks.
    fingerprint, model_sha256 : str
        For the receipts.
    start : str
        Which start of the run this is.
    model_name : str
        Name on the model's card.
    takes_pairs : bool
        Whether the model takes pairs: see :attr:`deblend_batch.models.card.ModelCard.takes_pairs`.
    log_format : {"text", "json"}
        Of the lines that workers log.
    """

    output: Output
    model: str
    batch_size: int | None
    masks: bool
    fingerprint: str
    model_sha256: str
    model_name: str = ""
    takes_pairs: bool = True
    start: str = field(default_factory=lambda: uuid4().hex)
    log_format: LogFormat = "text"

    @property
    def run(self) -> str:
        """The run's id, the same in every start."""
        return run_id(self.output.url, self.fingerprint)

    @property
    def options(self) -> Options:
        """Storage options of the inputs."""
        return self.output.options


# A context names its start: Ray's processes outlive a run, and the next may find others at the same URL.
@lru_cache(maxsize=8)
def open_field(url: str, context: RunContext) -> Field:
    """Open a field of a run, once a process and start of the run."""
    return Field.reopen(url, context.options)


@lru_cache(maxsize=8)
def _open_index(url: str, context: RunContext) -> IndexReader:
    return IndexReader(context.output, url)


def load_blends(spec: TileSpec, context: RunContext) -> Blends:
    """Read the blends of a tile from its field's index."""
    return _open_index(spec.index_url, context).read(spec.row_start, spec.row_stop)


def load_carried(
    spec: TileSpec, context: RunContext, rows: NDArray[np.int64], blends: Blends
) -> pa.Table | None:
    """Read what is carried for some blends of a tile, by their rows in it; a row a measured member."""
    reader = _open_index(spec.index_url, context)
    return rows_of(reader.read_beside(spec.row_start, spec.row_stop).take(pa.array(rows)), blends)
