"""The tiles of a run: which are written or in quarantine, and the lazy stream of those that are left."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field, replace
from itertools import pairwise

from deblend_batch.engine.index import FieldIndex
from deblend_batch.engine.tally import Count
from deblend_batch.engine.work import TileSpec
from deblend_batch.tiling.tile import TileGrid


@dataclass(frozen=True)
class FieldTiles:
    """The tiles of one field.

    Parameters
    ----------
    field_url : str
        The field.
    index : FieldIndex
        Its pairs, by tile.
    grid : TileGrid
        How it is divided.
    bands : int
        Its bands.
    """

    field_url: str
    index: FieldIndex
    grid: TileGrid
    bands: int = 1

    def specs(self) -> Iterator[TileSpec]:
        """Describe the tiles that hold pairs.

        Yields
        ------
        TileSpec
            In the order of the index.
        """
        index = self.index
        rows = pairwise(index.starts.tolist())
        for number, name, (start, stop) in zip(
            index.tiles.tolist(), index.tile_names, rows, strict=True
        ):
            core = self.grid.core(number)
            yield TileSpec(
                name,
                self.field_url,
                index.url,
                core,
                start,
                stop,
                index.noise_sigma,
                self.bands,
            )


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
        For each tile with a quarantine record the number of pairs that it lists.
    """

    fields: Sequence[FieldTiles]
    written: AbstractSet[str]
    held: Mapping[str, int] = field(default_factory=dict)

    def specs(self) -> Iterator[TileSpec]:
        """Describe every tile, field by field."""
        for each in self.fields:
            yield from each.specs()

    def pending(self) -> Iterator[TileSpec]:
        """Describe the tiles that are left, field by field."""
        return (
            replace(spec, recorded=spec.name in self.held)
            for spec in self.specs()
            if not self._is_done(spec)
        )

    def _is_done(self, spec: TileSpec) -> bool:
        """Tell whether a tile is finished or wholly in quarantine.

        A record of a part of a tile, without a shard, is what a worker left that was stopped between the two.
        """
        return spec.name in self.written or self.held.get(spec.name) == spec.n_pairs

    def count(self) -> tuple[Count, Count]:
        """Count pairs and tiles.

        Returns
        -------
        pairs, tiles : Count
            Of all fields.
        """
        pairs, tiles = Count(), Count()
        for spec in self.specs():
            pairs.expected += spec.n_pairs
            tiles.expected += 1
            if not self._is_done(spec):
                continue
            written = spec.name in self.written
            held = self.held.get(spec.name, 0)
            if written and held == spec.n_pairs:
                held = 0  # it was given up, and finished after all: the shard counts
            pairs.quarantined += held
            pairs.written += spec.n_pairs - held
            tiles.written += written
            tiles.quarantined += not written
        return pairs, tiles
