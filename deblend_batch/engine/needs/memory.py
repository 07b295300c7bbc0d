"""Memory of a run: what its inputs say of it beforehand, and what processes took."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from deblend_batch.config import RunConfig
from deblend_batch.engine.inputs.index.file import FieldIndex
from deblend_batch.engine.needs.pool import ActorPool
from deblend_batch.engine.needs.projection import (
    Memory,
    ModelNeeds,
    TileNeeds,
    gigabytes,
    project_memory,
)
from deblend_batch.field.layout import Field
from deblend_batch.models import ModelCard
from deblend_batch.models.batches import CPU_ROWS, MOST_ROWS

_STAMPS_WHILE_PREPARING = 10  # measured: copies of a batch while it is made the network's input


@dataclass(frozen=True)
class MemoryUse:
    """Peak memory of a run beside what was projected, bytes.

    Parameters
    ----------
    actor : int
        Largest of its actors; 0 where none has told.
    driver : int
        Of the driver.
    projected : Memory
        What was projected.
    """

    actor: int
    driver: int
    projected: Memory

    def to_dict(self) -> dict[str, Any]:
        """Return the sizes as JSON-able values."""
        return asdict(self)

    def __str__(self) -> str:
        pairs = (
            ("actor", self.actor, self.projected.actor),
            ("driver", self.driver, self.projected.driver),
        )
        return ", ".join(
            f"{name} {gigabytes(took)} ({gigabytes(projected)} projected)"
            for name, took, projected in pairs
            if took
        )


def largest_batch(config: RunConfig, pool: ActorPool) -> int:
    """Return the rows of the largest batch that an actor of a pool may choose."""
    return config.engine.batch_size or (MOST_ROWS if pool.gpus else CPU_ROWS)


def project_run(
    config: RunConfig,
    model: ModelNeeds,
    fields: Sequence[Field],
    indexes: Sequence[FieldIndex],
    pool: ActorPool,
    tiles_in_flight: int | None = None,
    *,
    on_ray: bool = True,
) -> Memory:
    """Project the peak memory of a run from its metadata alone.

    Parameters
    ----------
    config : RunConfig
        The run's config.
    model : ModelNeeds
        Of its model, with its largest batch.
    fields, indexes : sequence
        Its fields, and their pair indexes in the same order.
    pool : ActorPool
        Its actors.
    tiles_in_flight : int, optional
        Tiles that one actor holds at a time; ``engine.tiles_in_flight`` if None.
    on_ray : bool
        Whether its workers are actors of Ray.
    """
    needs = [
        tile_needs(field, index, config.tiles.size, model.stamp_size)
        for field, index in zip(fields, indexes, strict=True)
    ]
    n_tiles = sum(len(index.tiles) for index in indexes)
    in_flight = tiles_in_flight or config.engine.tiles_in_flight
    each = [
        project_memory(tile, model, pool, in_flight, n_tiles, masks=config.masks, on_ray=on_ray)
        for tile in needs
    ]
    return max(each, key=lambda memory: memory.actor)


def tile_needs(field: Field, index: FieldIndex, tile_size: int, stamp_size: int) -> TileNeeds:
    """Return what memory depends on, of the tiles of a field.

    Parameters
    ----------
    field : Field
        The field.
    index : FieldIndex
        Its pairs.
    tile_size, stamp_size : int
        Edges of cores and stamps, px.

    Returns
    -------
    TileNeeds
        The largest of each; of a field without pairs that of no pixels.
    """
    if not len(index.tiles):
        return TileNeeds(0, field.n_bands, field.variance is not None, field.mask is not None, 0)
    height, width = (min(tile_size, edge) + stamp_size for edge in field.shape_yx)
    return TileNeeds(
        pixels=height * width,
        bands=field.n_bands,
        variance=field.variance is not None,
        mask=field.mask is not None,
        pairs=int(np.diff(index.starts).max()),
    )


def model_needs(card: ModelCard, batch_size: int) -> ModelNeeds:
    """Return what memory depends on, of a model."""
    stamp_bytes = 4 * card.stamp_size**2
    return ModelNeeds(
        weight_bytes=4 * card.parameters,
        activation_bytes=batch_size
        * (card.activation_bytes + _STAMPS_WHILE_PREPARING * stamp_bytes),
        stamp_size=card.stamp_size,
        batch_size=batch_size,
    )
