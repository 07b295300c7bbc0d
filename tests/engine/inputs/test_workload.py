"""The workload: every tile is written, in quarantine or left, and the counts say how many pairs each."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from deblend_batch.engine.inputs.count import Count
from deblend_batch.engine.inputs.index.file import FieldIndex
from deblend_batch.engine.inputs.workload import FieldTiles, Workload
from deblend_batch.tiling.tile import TileGrid

GRID = TileGrid((300, 300), 100)


def field_tiles(prefix: str, counts: list[int]) -> FieldTiles:
    """A field whose first tiles hold these numbers of pairs."""
    index = FieldIndex(
        url=f"{prefix}.parquet",
        tiles=np.arange(len(counts), dtype=np.int32),
        tile_names=tuple(prefix + GRID.name(number) for number in range(len(counts))),
        starts=np.append(0, np.cumsum(counts)).astype(np.int64),
        noise_sigma=(0.1,),
        detections={},
    )
    return FieldTiles(f"{prefix}.zarr", index, GRID)


pair_counts = st.lists(st.integers(1, 500), max_size=9)


@given(st.lists(pair_counts, max_size=3), st.data())
def test_every_tile_is_in_one_place(fields: list[list[int]], data: st.DataObject) -> None:
    tiles = [field_tiles(f"f{number:04d}-", counts) for number, counts in enumerate(fields)]
    names = [name for each in tiles for name in each.index.tile_names]
    sizes = {spec.name: spec.n_blends for each in tiles for spec in each.specs()}
    states = st.sampled_from(["written", "partly", "late", "held", "cut short", "left"])
    state = {name: data.draw(states) for name in names}

    def those(*states: str) -> set[str]:
        return {name for name, each in state.items() if each in states}

    held = {name: sizes[name] for name in those("late", "held")}
    held |= {name: sizes[name] - 1 for name in those("partly", "cut short") if sizes[name] > 1}
    load = Workload(tiles, those("written", "partly", "late"), held)
    pending = list(load.pending())
    assert {spec.name for spec in pending} == those("left", "cut short")
    assert all(spec.recorded == (spec.name in held) for spec in pending)
    pairs, count = load.count()
    assert count.written == len(those("written", "partly", "late"))
    assert count == Count(len(names), count.written, len(those("held")))
    assert pairs.expected == sum(map(sum, fields))
    assert pairs.quarantined == sum(held.get(name, 0) for name in those("held", "partly"))
    assert pairs.pending == sum(spec.n_blends for spec in pending)


def test_a_spec_says_where_its_pixels_and_pairs_are() -> None:
    first, second = field_tiles("a-", [3, 4]).specs()
    assert (first.name, first.row_start, first.row_stop) == ("a-y0000x0000", 0, 3)
    assert (second.name, second.row_start, second.row_stop) == ("a-y0000x0001", 3, 7)
    assert (second.field_url, second.index_url, second.noise_sigma) == (
        *("a-.zarr", "a-.parquet"),
        (0.1,),
    )
    assert second.core == GRID.core(1)
