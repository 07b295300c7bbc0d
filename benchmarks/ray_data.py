"""The same job written the obvious way with Ray Data, for ``pipeline.py`` to compare with.

Tiles are read and cut by the pipeline's own functions, the model is the same stub and the rows are those of
the catalogue; how work is spread, batched, held back and written is Ray Data's. Its pairs are indexed
beforehand, outside its time; the pipeline indexes them within its own.
"""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Iterator
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import ray
from numpy.typing import NDArray

from benchmarks.metering import measured_tree
from benchmarks.support import MODEL, Stub
from deblend_batch.catalog.output import Output
from deblend_batch.catalog.shard import Measurement, make_rows
from deblend_batch.engine.inputs.index import read_index
from deblend_batch.engine.inputs.work import RunContext, TileSpec, load_pairs
from deblend_batch.engine.inputs.workload import FieldTiles
from deblend_batch.engine.worker.cut import cut_parts
from deblend_batch.field.layout import Field
from deblend_batch.models import find_card
from deblend_batch.tiling.pairs import MAX_NEIGHBOURS, Pairs
from deblend_batch.tiling.stamps import Stamps
from deblend_batch.tiling.tile import TileGrid

ray.cloudpickle.register_pickle_by_value(sys.modules[__name__])

Columns = dict[str, NDArray[Any]]
Style = Literal["flat_map", "map_batches"]


class CutRows:
    """Cuts the stamps of a tile, one row a pair.

    Parameters
    ----------
    specs : list of TileSpec
        The tiles.
    context : RunContext
        Size of the stamps.
    """

    def __init__(self, specs: list[TileSpec], context: RunContext) -> None:
        self._specs = specs
        self._context = context

    def rows(self, row: dict[str, Any]) -> list[dict[str, Any]]:
        """Return the rows of a tile, for ``flat_map``."""
        return [
            {name: values[n] for name, values in part.items()}
            for part in self._parts(row["item"])
            for n in range(len(part["blend_id"]))
        ]

    def blocks(self, batch: Columns) -> Iterator[Columns]:
        """Yield the rows of tiles by columns, for ``map_batches``."""
        for number in batch["item"]:
            yield from self._parts(number)

    def _parts(self, number: int) -> Iterator[Columns]:
        spec = self._specs[number]
        pairs, done = load_pairs(spec, self._context), 0
        for stamps in cut_parts(spec, pairs, self._context):
            yield _columns(spec.name, pairs[done : done + len(stamps)], stamps)
            done += len(stamps)


def _columns(tile: str, pairs: Pairs, stamps: Stamps) -> Columns:
    return {
        "blend_id": pairs.blend_id,
        "source_id": pairs.source_id,
        "yx": pairs.yx,
        "radec": pairs.radec,
        "separation_arcsec": pairs.separation_arcsec,
        "is_primary": pairs.is_primary,
        "flags": stamps.flags,
        "tile": np.full(len(pairs), tile),
        "pixels": stamps.pixels[:, 0],
        "companion_yx": stamps.companion_yx,
        "central_yx": stamps.central_yx,
        "neighbours_yx": stamps.neighbours_yx,
        "sigma": stamps.sigma[:, 0],
    }


class Measure:
    """Runs the stub on batches, and makes catalogue rows: the class of the actor pool."""

    def __init__(self, stamps_per_second: float) -> None:
        self._model = Stub(stamps_per_second)

    def __call__(self, batch: Columns) -> pa.Table:
        """Measure a batch."""
        found = self._model.predict(
            batch["pixels"],
            batch["companion_yx"],
            batch["central_yx"],
            batch["neighbours_yx"],
            batch["sigma"],
        )
        n = len(found.flux)
        nothing = np.full((n, 2), np.nan, np.float32)
        measured = Measurement(
            found.flux[:, None], found.flux_err[:, None], nothing, nothing, batch["flags"]
        )
        pairs = Pairs(
            blend_id=batch["blend_id"],
            source_id=batch["source_id"],
            yx=batch["yx"],
            radec=batch["radec"],
            separation_arcsec=batch["separation_arcsec"],
            is_primary=batch["is_primary"],
            neighbours_yx=np.full((n, MAX_NEIGHBOURS, 2), np.nan),
            flags=batch["flags"],
        )
        rows = make_rows("", pairs, measured, ("h",), (25.96,))
        tiles = pa.array(np.repeat(batch["tile"], 2).astype(str), pa.string())
        return rows.set_column(rows.schema.get_field_index("tile"), "tile", tiles)


def run_ray_data(
    inputs: dict[str, str],
    index_url: str,
    output: str,
    tile_size: int,
    stamps_per_second: float,
    style: Style,
) -> tuple[int, float]:
    """Do the whole job with Ray Data.

    Parameters
    ----------
    inputs : dict
        URLs, with ``field``.
    index_url : str
        The index that a run of the pipeline made of its pairs.
    output : str
        Folder of the Parquet files.
    tile_size : int
        Edge of a tile, px.
    stamps_per_second : float
        Of the stub.
    style : {"flat_map", "map_batches"}
        Whether tiles become rows one by one, or columns 128 at a time.

    Returns
    -------
    pairs : int
        Pairs written, each once.
    cpu_seconds : float
        Of the process tree.
    """
    opened = Field.open(inputs["field"])
    index = read_index(Output(output), index_url)
    tiles = FieldTiles(inputs["field"], index, TileGrid(opened.shape_yx, tile_size))
    size = find_card(MODEL).stamp_size
    context = RunContext(Output(output), MODEL, size, None, False, "ray-data", "")
    specs = list(tiles.specs())
    with measured_tree() as tree:
        _run(CutRows(specs, context), len(specs), output, stamps_per_second, style)
    return _count(output), tree.cpu_seconds


def _run(cut: CutRows, n_tiles: int, output: str, stamps_per_second: float, style: Style) -> None:
    ray.data.DataContext.get_current().enable_progress_bars = False
    logging.getLogger("ray.data").setLevel(logging.ERROR)
    data = ray.data.from_items(list(range(n_tiles)), override_num_blocks=n_tiles)
    by_row = style == "flat_map"
    data = data.flat_map(cut.rows) if by_row else data.map_batches(cut.blocks, batch_size=1)
    data = data.map_batches(
        Measure,
        fn_constructor_args=(stamps_per_second,),
        batch_size=512,
        compute=ray.data.ActorPoolStrategy(size=1),
        num_gpus=1,
    )
    data.write_parquet(output)


def _count(output: str) -> int:
    files = [os.path.join(output, name) for name in os.listdir(output)]
    tables = [pq.read_table(file, columns=["blend_id"]) for file in files]
    ids = np.concatenate([table["blend_id"].to_numpy() for table in tables])
    found, times = np.unique(ids, return_counts=True)
    assert (times == 2).all(), "Ray Data wrote a pair other than once"
    return len(found)
