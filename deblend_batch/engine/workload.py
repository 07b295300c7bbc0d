"""The tiles of a run: which are written or in quarantine, and the lazy stream of those that are left."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
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
    """

    field_url: str
    index: FieldIndex
    grid: TileGrid

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
            yield TileSpec(name, self.field_url, index.url, core, start, stop, index.noise_sigma)


@dataclass(frozen=True)
class Workload:
    """The tiles of all fields of a run, as an earlier start of it left them.

    Parameters
    ----------
    fields : sequence of FieldTiles
        In the run's order.
    written, quarantined : set of str
        Names of tiles, none in both.
    """

    fields: Sequence[FieldTiles]
    written: AbstractSet[str]
    quarantined: AbstractSet[str]

    def specs(self) -> Iterator[TileSpec]:
        """Describe every tile, field by field."""
        for each in self.fields:
            yield from each.specs()

    def pending(self) -> Iterator[TileSpec]:
        """Describe the tiles that are left, field by field."""
        done = self.written | self.quarantined
        return (spec for spec in self.specs() if spec.name not in done)

    def count(self) -> tuple[Count, Count]:
        """Count pairs and tiles.

        Returns
        -------
        pairs, tiles : Count
            Of all fields.
        """
        pairs, tiles = Count(), Count()
        for spec in self.specs():
            for count, n in ((pairs, spec.n_pairs), (tiles, 1)):
                count.expected += n
                if spec.name in self.written:
                    count.written += n
                elif spec.name in self.quarantined:
                    count.quarantined += n
        return pairs, tiles
