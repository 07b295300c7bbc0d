"""Whether cost grows with the size of a job: pairs and tiles from few to many, start-up, and resume.

``python benchmarks/growth.py`` prints, from one run on this machine, with a stub for a model,

* CPU microseconds and wall seconds per pair, and the memory of each kind of process, from 10^3 to 10^6 pairs
  at 100 pairs a tile, and from 10 to 10^5 tiles at 10 pairs a tile;
* how long a run takes to its first ready actor;
* how long a resume over many finished tiles takes to its plan, and what it asked of the store;
* what Ray's object store spilled to disk in all of these.

``--most-pairs 10000 --most-tiles 1000 --finished 1000`` takes about two minutes.
"""

from __future__ import annotations

import argparse
import json
import math
import multiprocessing
import os
import sys
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from contextlib import suppress
from dataclasses import asdict, dataclass
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")
sys.path.append(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))

import numpy as np
import ray

from benchmarks.metering import Meter, run_pipeline
from benchmarks.store_calls import counted_calls
from benchmarks.support import (
    MODEL,
    load_now,
    say_machine,
    spilled_mb,
    start_ray,
    stub_loader,
    write_field,
    write_pairs,
)
from deblend_batch import storage
from deblend_batch.catalog.ledger import Ledger
from deblend_batch.catalog.output import Output
from deblend_batch.catalog.records import Receipt
from deblend_batch.engine.inputs.index.file import read_index
from deblend_batch.engine.run import process_field
from deblend_batch.errors import InterruptedRunError

TILE_PX = 64
STUB_SPEED = 100_000
_MARGIN_PX = 2
_TOGETHER = 2048


def make_inputs(folder: str, tiles: int, pairs_per_tile: int) -> dict[str, str]:
    """Write a field of at least ``tiles`` small tiles, that many of them with pairs.

    Another process does it: the driver's memory is to be measured without that of drawing noise.
    """
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        return pool.submit(_make_inputs, folder, tiles, pairs_per_tile).result()


def _make_inputs(folder: str, tiles: int, pairs_per_tile: int) -> dict[str, str]:
    edge = math.ceil(math.sqrt(tiles))
    rng = np.random.default_rng(1)
    numbers = np.repeat(np.arange(tiles), pairs_per_tile)
    corner = np.column_stack(np.divmod(numbers, edge)) * TILE_PX
    central = corner + rng.uniform(_MARGIN_PX, TILE_PX - _MARGIN_PX, corner.shape)
    companion = np.clip(central + rng.uniform(-12, 12, central.shape), 0, edge * TILE_PX - 1)
    url = write_field(folder, edge * TILE_PX)
    return {"field": url, **write_pairs(folder, central, companion)}


def config_of(inputs: dict[str, str], output: str, **settings: Any) -> dict[str, Any]:
    """Return the config of a run with one actor."""
    return {
        "field": inputs["field"],
        "detections": inputs["detections"],
        "pairs": {"table": inputs["pairs"]},
        "output": output,
        "model": MODEL,
        "tiles": {"size": TILE_PX},
        "engine": {"gpus_per_actor": 1, "actors": 1},
        **settings,
    }


@dataclass(frozen=True)
class Size:
    """A size of a job, and what it cost."""

    tiles: int
    pairs: int
    cpu_us: float
    wall_us: float
    start_seconds: float
    peak_mb: dict[str, float]

    def line(self) -> str:
        """Return it as a line of the table."""
        memory = ", ".join(
            f"{kind} {self.peak_mb.get(kind, 0):,.0f}" for kind in ("driver", "actor", "task")
        )
        return (
            f"{self.tiles:8,} tiles {self.pairs:10,} pairs {self.cpu_us:9,.1f} us CPU/pair "
            f"{self.wall_us:9,.1f} us/pair  ready after {self.start_seconds:5.1f} s  "
            f"peak MB: {memory}  {load_now()}"
        )


def measure(folder: str, tiles: int, pairs_per_tile: int) -> Size:
    """Run a job of one size; CPU is counted from the first tile to the last, as wall time is."""
    with tempfile.TemporaryDirectory(dir=folder) as own:
        inputs = make_inputs(own, tiles, pairs_per_tile)
        cost = run_pipeline(config_of(inputs, f"{own}/out"), stub_loader(STUB_SPEED))
    assert cost.pairs == tiles * pairs_per_tile
    wall, cpu = cost.steady()
    return Size(
        tiles,
        cost.pairs,
        1e6 * cpu,
        1e6 * wall,
        cost.meter.ready or math.nan,
        cost.peak_mb,
    )


def measure_series(folder: str, title: str, most: int, pairs_per_tile: int) -> None:
    """Print a series of sizes, each ten times the one before, and how flat it is."""
    if most < 10:
        return
    print(title, flush=True)
    sizes, tiles = [], 10
    while tiles <= most:
        sizes.append(measure(folder, tiles, pairs_per_tile))
        print(sizes[-1].line(), flush=True)
        tiles *= 10
    first, last = next((size for size in sizes if size.wall_us > 0), sizes[-1]), sizes[-1]
    driver = last.peak_mb["driver"] / first.peak_mb["driver"]
    print(
        f"from {first.tiles:,} to {last.tiles:,} tiles: CPU per pair x {last.cpu_us / first.cpu_us:.2f}, "
        f"wall per pair x {last.wall_us / first.wall_us:.2f}, driver's memory x {driver:.2f}"
    )


class StopWhenPlanned(Meter):
    """Interrupts a run when its plan is there: what it leaves is a run that has done nothing."""

    def expect(self, total: int, done: int) -> None:
        """Interrupt."""
        super().expect(total, done)
        raise KeyboardInterrupt


def fabricate_finished(config: dict[str, Any]) -> int:
    """Make a run of which every tile but the last seems finished; return how many do.

    Nothing of a finished tile's shard is read on resuming, so that its shard may be of a few bytes.
    """
    output = config["output"]
    with suppress(InterruptedRunError):
        process_field(config, progress=StopWhenPlanned())
    ledger = Ledger(Output(output))
    (index,) = ledger.output.indexes()
    *tiles, _ = read_index(ledger.output, index).tile_names
    receipt = Receipt("TILE", 1, 2, 4, "", ledger.read_run()["fingerprint"], "", {}, {}, {}, "")
    text = json.dumps(asdict(receipt), indent=1)
    fs, _ = storage.filesystem(output)
    for folder in ("shards", "ledger"):
        fs.makedirs(f"{output}/{folder}", exist_ok=True)
    for start in range(0, len(tiles), _TOGETHER):
        batch = tiles[start : start + _TOGETHER]
        fs.pipe({ledger.output.shard_url(tile): b"PAR1" for tile in batch})
        fs.pipe(
            {ledger.output.receipt_url(tile): text.replace("TILE", tile).encode() for tile in batch}
        )
    return len(tiles)


def measure_resume(folder: str, store: str, tiles: int) -> None:
    """Print how long a run takes to resume where all tiles but one are finished."""
    inputs = make_inputs(f"{folder}/resume", tiles, 1)
    config = config_of(inputs, f"{store}/resume-{os.getpid()}")
    finished = fabricate_finished(config)
    meter = Meter()
    with counted_calls(config["output"]) as calls:
        meter.on_plan = calls.pause
        process_field(config, progress=meter, loader=stub_loader(STUB_SPEED))
    assert meter.planned is not None
    assert meter.ready is not None
    print(
        f"resume over {finished:,} finished tiles in {config['output'].split(':')[0]}: plan after "
        f"{meter.planned:.1f} s, actor ready after {meter.ready:.1f} s, done after "
        f"{time.monotonic() - meter.made:.1f} s; {load_now()}"
    )
    print(f"  the driver's calls to the store up to the plan: {calls.before or 'none'}")
    print(f"  and after it: {calls.after or 'none'}", flush=True)


def main() -> None:
    """Run the benchmark and print its tables."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--most-pairs", type=int, default=1_000_000, help="0 leaves the series out")
    parser.add_argument("--most-tiles", type=int, default=100_000, help="0 leaves the series out")
    parser.add_argument("--finished", type=int, default=100_000, help="0 leaves resuming out")
    parser.add_argument(
        "--store",
        help="where the finished tiles are, such as s3://bucket/folder with AWS_ENDPOINT_URL and keys in "
        "the environment; a temporary folder if absent",
    )
    chosen = parser.parse_args()
    say_machine(f"tiles of {TILE_PX} px, stub of {STUB_SPEED:,} stamps/s, one actor")
    with tempfile.TemporaryDirectory() as folder:
        start_ray(os.cpu_count() or 1, 1)
        pairs, tiles = chosen.most_pairs // 100, chosen.most_tiles
        measure_series(folder, "growing, 100 pairs a tile:", pairs, 100)
        measure_series(folder, "growing, 10 pairs a tile:", tiles, 10)
        if chosen.finished:
            measure_resume(folder, chosen.store or folder, chosen.finished)
        print(f"spilled by the object store in all of these: {spilled_mb():,.0f} MB", flush=True)
        ray.shutdown()


if __name__ == "__main__":
    main()
