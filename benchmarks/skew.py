"""Whether a skewed sky keeps every actor busy to the end.

``python benchmarks/skew.py`` runs a field whose crowded tiles hold 100 times the pairs of the others, and a
blend of many members, every two of which are a pair, all in one tile. The model is a stub that sleeps. From
the receipts it prints how long the last actors worked after the first had nothing left, in units of the
mean unit's time, and how much of the actors' time until the end was work.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from collections import defaultdict
from dataclasses import dataclass
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")
sys.path.append(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import ray

from benchmarks.metering import Meter
from benchmarks.support import (
    MODEL,
    load_now,
    say_machine,
    start_ray,
    stub_loader,
    write_field,
)
from benchmarks.units import Unit, read_units
from deblend_batch.engine.run import process_field

TILE_PX = 512
BATCH = 64
CONTRAST = 100


@dataclass(frozen=True)
class Sky:
    """A skewed field.

    Parameters
    ----------
    edge : int
        Tiles along each side.
    sparse : int
        Pairs of an ordinary tile.
    crowded : int
        Number of crowded tiles; each has :data:`CONTRAST` times the pairs.
    blend : int
        Members of the one blend.
    """

    edge: int
    sparse: int
    crowded: int
    blend: int

    def write(self, folder: str, seed: int) -> dict[str, str]:
        """Write the field, its detections and its pairs; return their URLs."""
        rng = np.random.default_rng(seed)
        tiles = rng.permutation(self.edge**2)
        counts = np.full(len(tiles), self.sparse)
        counts[tiles[: self.crowded]] *= CONTRAST
        corner = np.column_stack(np.divmod(np.arange(len(tiles)), self.edge)) * TILE_PX
        central = np.repeat(corner, counts, axis=0) + rng.uniform(0, TILE_PX - 1, (counts.sum(), 2))
        companion = np.clip(central + rng.uniform(-8, 8, central.shape), 0, self.edge * TILE_PX - 1)
        members = corner[tiles[-1]] + TILE_PX / 2 + rng.uniform(-10, 10, (self.blend, 2))
        yx, n = np.concatenate([central, companion, members]), len(central)
        one, other = np.triu_indices(self.blend, 1)
        detections = {"id": np.arange(len(yx)), "x": yx[:, 1], "y": yx[:, 0]}
        pairs = {
            "central_id": np.concatenate([np.arange(n), 2 * n + one]),
            "companion_id": np.concatenate([n + np.arange(n), 2 * n + other]),
        }
        field = write_field(folder, self.edge * TILE_PX)
        urls = {name: os.path.join(folder, f"{name}.parquet") for name in ("detections", "pairs")}
        pq.write_table(pa.table(detections), urls["detections"])
        pq.write_table(pa.table(pairs), urls["pairs"])
        return {"field": field, **urls}


@dataclass(frozen=True)
class Tail:
    """How the end of a run went.

    Parameters
    ----------
    units : int
        Units of work.
    largest : int
        Pairs of the largest.
    mean_seconds : float
        Time of an actor per unit, while it worked.
    tail_seconds : float
        From when the first actor had nothing left to the end.
    busy : float
        Part of the actors' time, from the first receipt of each to the end of the run, that was work.
    """

    units: int
    largest: int
    mean_seconds: float
    tail_seconds: float
    busy: float


def tail_of(units: list[Unit]) -> Tail:
    """Work out the end of a run from its units.

    An actor holds several units at a time, so that the time it has for each is that between receipts, and not
    the time from taking one to its receipt.

    Parameters
    ----------
    units : list of Unit
        By when they were done.

    Returns
    -------
    Tail
        The figures.
    """
    ends = defaultdict(list)
    for unit in units:
        ends[unit.worker].append(unit.end)
    starts = {
        worker: min(u.end - u.seconds for u in units if u.worker == worker) for worker in ends
    }
    last = {worker: max(times) for worker, times in ends.items()}
    over = max(last.values())
    worked = sum(last[worker] - starts[worker] for worker in ends)
    return Tail(
        len(units),
        max(unit.pairs for unit in units),
        worked / len(units),
        over - min(last.values()),
        worked / sum(over - start for start in starts.values()),
    )


def main() -> None:
    """Run the benchmark and print its figures."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--edge", type=int, default=8, help="tiles along each side")
    parser.add_argument("--sparse", type=int, default=400, help="pairs of an ordinary tile")
    parser.add_argument("--crowded", type=int, default=3, help="crowded tiles")
    parser.add_argument("--blend", type=int, default=283, help="members of the giant blend")
    parser.add_argument("--actors", type=int, default=4)
    parser.add_argument("--speed", type=float, default=1250.0, help="stamps/s of an actor")
    parser.add_argument(
        "--max-pairs", type=int, help="largest unit; the config's default if absent"
    )
    parser.add_argument("--seeds", type=int, default=3, help="fields to try")
    chosen = parser.parse_args()
    sky = Sky(chosen.edge, chosen.sparse, chosen.crowded, chosen.blend)
    say_machine(f"{chosen.actors} actors of {chosen.speed:,.0f} stamps/s", str(sky))
    start_ray(os.cpu_count() or 1, chosen.actors)
    for seed in range(chosen.seeds):
        with tempfile.TemporaryDirectory() as folder:
            inputs = sky.write(folder, seed)
            config: dict[str, Any] = {
                "field": inputs["field"],
                "detections": inputs["detections"],
                "pairs": {"table": inputs["pairs"]},
                "output": os.path.join(folder, "out"),
                "model": MODEL,
                "tiles": {
                    "size": TILE_PX,
                    **({"max_pairs": chosen.max_pairs} if chosen.max_pairs else {}),
                },
                "engine": {"gpus_per_actor": 1, "batch_size": BATCH},
            }
            loader = stub_loader(chosen.speed, BATCH)
            summary = process_field(config, progress=Meter(), loader=loader)
            tail = tail_of(read_units(config["output"]))
        print(
            f"field {seed}: {summary.totals['pairs']['written']:,} pairs, {tail.units} units, largest "
            f"{tail.largest:,}; a unit takes {tail.mean_seconds:.2f} s; tail {tail.tail_seconds:.2f} s = "
            f"{tail.tail_seconds / tail.mean_seconds:.1f} units, or "
            f"{tail.tail_seconds * chosen.speed / tail.largest:.1f} of the largest; "
            f"actors busy {tail.busy:.3f}  {load_now()}",
            flush=True,
        )
    ray.shutdown()


if __name__ == "__main__":
    main()
