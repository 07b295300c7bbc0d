"""The tiles of a run: which are written or in quarantine, and the lazy stream of those that are left."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field

import numpy as np

from deblend_batch.engine.inputs.count import Count, count_held
from deblend_batch.engine.inputs.index.file import FieldIndex
from deblend_batch.engine.inputs.work import TileSpec
from deblend_batch.tiling.tile import TileGrid


@dataclass(frozen=True)
class FieldTiles:
    """The tiles of one field.

    Parameters
    ----------
    field_url : str
        The field.
    index : FieldIndex
        Its blends, by tile.
    grid : TileGrid
        How it is divided.
    """

    field_url: str
    index: FieldIndex
    grid: TileGrid

    def sizes(self) -> Iterator[tuple[str, int]]:
        """Return the names of the tiles that hold blends, and how many each holds."""
        index = self.index
        return zip(index.tile_names, np.diff(index.starts).tolist(), strict=True)

    def spec(self, row: int, *, recorded: bool = False) -> TileSpec:
        """Describe a tile."""
        index = self.index
        return TileSpec(
            index.tile_names[row],
            self.field_url,
            index.url,
            self.grid.core(int(index.tiles[row])),
            int(index.starts[row]),
            int(index.starts[row + 1]),
            index.noise_sigma,
            recorded,
        )

    def specs(self) -> Iterator[TileSpec]:
        """Describe the tiles that hold blends, in the index's order."""
        return (self.spec(row) for row in range(len(self.index.tile_names)))


@dataclass(frozen=True)
class Workload:
    """The tiles of all fields of a run, as an earlier start of it left them.

    Parameters
    ----------
    fields : sequence of FieldTiles
        In the run's order.
    written : set of str
        Names of tiles that have a shard and its receipt.
    held : mapping of str to int
        For each tile with a quarantine record the number of blends that it lists.
    """

    fields: Sequence[FieldTiles]
    written: AbstractSet[str]
    held: Mapping[str, int] = field(default_factory=dict)

    def pending(self) -> Iterator[TileSpec]:
        """Describe the tiles that are left, field by field."""
        return (
            each.spec(row, recorded=name in self.held)
            for each in self.fields
            for row, (name, n_blends) in enumerate(each.sizes())
            if name not in self.written and self.held.get(name) != n_blends
        )

    def count(self) -> tuple[Count, Count]:
        """Count blends (the record calls them pairs) and tiles."""
        pairs, tiles = Count(), Count()
        for each in self.fields:
            tiles.expected += len(each.index.tile_names)
            pairs.expected += each.index.n_blends
            for name, n_blends in each.sizes():
                written = name in self.written
                held = count_held(n_blends, self.held.get(name, 0), written=written)
                pairs.quarantined += held
                pairs.written += n_blends - held if written else 0
                tiles.written += written
                tiles.quarantined += bool(held) and not written
        return pairs, tiles
