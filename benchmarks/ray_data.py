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
from deblend_batch.engine.inputs.index.file import read_index
from deblend_batch.engine.inputs.work import RunContext, TileSpec, load_blends
from deblend_batch.engine.inputs.workload import FieldTiles
from deblend_batch.engine.worker.cut import cut_parts
from deblend_batch.field.layout import Field
from deblend_batch.field.meta import FieldMeta
from deblend_batch.tiling.blends import Blends
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
        The run.
    meta : FieldMeta
        Of the field.
    """

    def __init__(self, specs: list[TileSpec], context: RunContext, meta: FieldMeta) -> None:
        self._specs = specs
        self.meta = meta
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
        for _, stamps in cut_parts(spec, load_blends(spec, self._context), self._context):
            yield _columns(spec.name, stamps)


def _columns(tile: str, stamps: Stamps) -> Columns:
    cut = stamps.cut
    return {
        **{name: getattr(cut.blends, name) for name in Blends.__dataclass_fields__},
        "flags": cut.flags,
        "tile": np.full(len(cut), tile),
        "pixels": stamps.pixels[:, 0],
        "members_yx": cut.members_yx,
        "sigma": cut.sigma[:, 0],
    }


class Measure:
    """Runs the stub on batches, and makes catalogue rows: the class of the actor pool."""

    def __init__(self, stamps_per_second: float, meta: FieldMeta) -> None:
        self._model = Stub(stamps_per_second)
        self._meta = meta

    def __call__(self, batch: Columns) -> pa.Table:
        """Measure a batch."""
        found = self._model.predict(
            batch["pixels"],
            batch["members_yx"][:, 1],
            batch["members_yx"][:, 0],
            batch["others_yx"],
            batch["sigma"],
        )
        n = len(found.flux)
        nothing = np.full((n, 2), np.nan, np.float32)
        measured = Measurement(
            {
                "flux": found.flux[:, None],
                "flux_err": found.flux_err[:, None],
                "mask_area": nothing,
                "mask_overlap": nothing,
                "flags": batch["flags"],
            }
        )
        pairs = Blends(**{name: batch[name] for name in Blends.__dataclass_fields__})
        rows = make_rows("", pairs, measured, self._meta, "stub")
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
    context = RunContext(Output(output), MODEL, None, False, "ray-data", "")
    specs = list(tiles.specs())
    with measured_tree() as tree:
        _run(CutRows(specs, context, opened.meta), len(specs), output, stamps_per_second, style)
    return _count(output), tree.cpu_seconds


def _run(cut: CutRows, n_tiles: int, output: str, stamps_per_second: float, style: Style) -> None:
    ray.data.DataContext.get_current().enable_progress_bars = False
    logging.getLogger("ray.data").setLevel(logging.ERROR)
    data = ray.data.from_items(list(range(n_tiles)), override_num_blocks=n_tiles)
    by_row = style == "flat_map"
    data = data.flat_map(cut.rows) if by_row else data.map_batches(cut.blocks, batch_size=1)
    data = data.map_batches(
        Measure,
        fn_constructor_args=(stamps_per_second, cut.meta),
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
