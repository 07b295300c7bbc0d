"""How the rate grows with the nodes of a cluster, and whether unequal nodes are each kept busy.

``python benchmarks/nodes.py`` starts clusters of 1, 2 and 4 Ray nodes on this machine, each with one logical
GPU; the model is a stub that sleeps, so slow that the machine's cores do not limit. Then a cluster of unequal
nodes: one GPU; two GPUs; one GPU at a quarter of the speed; none. Then one that a second node joins in the
middle of a run. It prints rates while all actors work, and over the whole run from the first ready actor on.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
sys.path.append(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))

import ray
from ray.cluster_utils import Cluster

from benchmarks.metering import Meter
from benchmarks.support import (
    MODEL,
    NODE_MEMORY,
    be_quiet,
    load_now,
    random_pairs,
    say_machine,
    stub_loader,
    write_field,
    write_pairs,
)
from benchmarks.units import Unit, read_units
from deblend_batch.engine.run import process_field

TILE_PX = 512
BATCH = 64
_MEMORY = {"object_store_memory": 150_000_000, "memory": NODE_MEMORY}


@dataclass(frozen=True)
class Node:
    """A node to start."""

    gpus: int = 1
    slowness: float = 1.0


@contextmanager
def cluster_of(nodes: Sequence[Node]) -> Iterator[tuple[Cluster, dict[str, float]]]:
    """Start a cluster of a head without GPUs and some nodes, and join it.

    Yields
    ------
    cluster : ray.cluster_utils.Cluster
        To add nodes to.
    slowness : dict of str to float
        Of the nodes that are not of full speed, by id.
    """
    head = {"num_cpus": 1, "num_gpus": 0, "include_dashboard": False, **_MEMORY}
    cluster = Cluster(initialize_head=True, head_node_args=head)
    ray.init(address=cluster.address, log_to_driver=False, logging_level="error")
    slowness = {}
    try:
        for node in nodes:
            started = add_node(cluster, node)
            if node.slowness != 1.0:
                slowness[started] = node.slowness
        yield cluster, slowness
    finally:
        ray.shutdown()
        cluster.shutdown()


def add_node(cluster: Cluster, node: Node) -> str:
    """Add a node to a cluster; return its id."""
    added = cluster.add_node(num_cpus=max(1, node.gpus), num_gpus=node.gpus, **_MEMORY)
    return str(added.node_id)


@dataclass(frozen=True)
class Measured:
    """What a run on a cluster came to.

    Parameters
    ----------
    units : list of Unit
        The tiles, or parts of them, by when they were done.
    seconds : float
        From the first ready actor to the end.
    """

    units: list[Unit]
    seconds: float

    @property
    def pairs(self) -> int:
        """Pairs done."""
        return sum(unit.pairs for unit in self.units)

    def workers(self) -> int:
        """Count the actors that did anything."""
        return len({unit.worker for unit in self.units})

    def steady_rate(self) -> float:
        """Return pairs per second while all actors worked."""
        ends: dict[Any, list[float]] = {}
        for unit in self.units:
            ends.setdefault(unit.worker, []).append(unit.end)
        start, stop = max(map(min, ends.values())), min(map(max, ends.values()))
        inside = sum(unit.pairs for unit in self.units if start < unit.end <= stop)
        return inside / (stop - start) if stop > start else float("nan")

    def line(self, label: str, ideal: float, alone: float) -> str:
        """Return it as a line: against an ideal, which counts in rates of one node ``alone``."""
        rate = self.steady_rate()
        return (
            f"{label:44} {self.workers()} actors {rate:7,.0f} pairs/s, {rate / alone:.2f} x one node, "
            f"{rate / alone / ideal:.2f} of ideal; whole run {self.pairs / self.seconds:6,.0f}  {load_now()}"
        )


class Bench:
    """A field, and runs over it.

    Parameters
    ----------
    folder : str
        Where everything is.
    size : int
        Edge of the field, px.
    speed : float
        Stamps per second of a node of full speed.
    """

    def __init__(self, folder: str, size: int, speed: float) -> None:
        self._folder = folder
        self._size = size
        self._speed = speed
        self._field = write_field(folder, size)
        self._runs = 0

    def run(
        self,
        n_pairs: int,
        slowness: dict[str, float] | None = None,
        during: Callable[[], None] = lambda: None,
    ) -> Measured:
        """Run a job of so many pairs; ``during`` is called in this thread while it goes on."""
        self._runs += 1
        own = f"{self._folder}/{self._runs}"
        inputs = write_pairs(own, *random_pairs(self._size, n_pairs))
        config: dict[str, Any] = {
            "field": self._field,
            "detections": inputs["detections"],
            "pairs": {"table": inputs["pairs"]},
            "output": f"{own}/out",
            "model": MODEL,
            "tiles": {"size": TILE_PX},
            "engine": {"gpus_per_actor": 1, "batch_size": BATCH},
        }
        speeds = {node: self._speed / factor for node, factor in (slowness or {}).items()}
        found: list[float] = []

        def work() -> None:
            loader = stub_loader(self._speed, BATCH, speeds)
            found.append(process_field(config, progress=Meter(), loader=loader).seconds)

        thread = threading.Thread(target=work)
        thread.start()
        during()
        thread.join()
        return Measured(read_units(config["output"]), found[0])

    def finished(self) -> int:
        """Count the shards of the run that goes on."""
        try:
            return len(os.listdir(f"{self._folder}/{self._runs}/out/shards"))
        except FileNotFoundError:
            return 0


def measure_equal(bench: Bench, counts: Sequence[int], pairs: int) -> float:
    """Print the rates of clusters of equal nodes; return that of one."""
    alone = 0.0
    for count in counts:
        with cluster_of([Node()] * count):
            measured = bench.run(pairs * count)
        alone = alone or measured.steady_rate() / count
        print(measured.line(f"{count} nodes of one GPU", count, alone), flush=True)
    return alone


def measure_unequal(bench: Bench, pairs: int, alone: float) -> None:
    """Print the rate of a cluster of unequal nodes, and what each did."""
    nodes = [Node(), Node(gpus=2), Node(slowness=4.0), Node(gpus=0)]
    ideal = sum(node.gpus / node.slowness for node in nodes)
    with cluster_of(nodes) as (_, slowness):
        measured = bench.run(round(pairs * ideal), slowness)
    print(measured.line("unequal nodes: 1; 2; 1 of a quarter; 0 GPUs", ideal, alone))
    shares = Counter[str]()
    for unit in measured.units:
        shares[unit.node] += unit.pairs
    print(
        "  shares of the pairs: " + ", ".join(f"{n / measured.pairs:.2f}" for n in shares.values())
    )


def measure_joining(bench: Bench, pairs: int, alone: float) -> None:
    """Print the rates before and after a second node joins in the middle of a run."""
    with cluster_of([Node()]) as (cluster, _):

        def during() -> None:
            while bench.finished() < 3:
                time.sleep(0.1)
            add_node(cluster, Node())

        measured = bench.run(2 * pairs, during=during)
    if measured.workers() == 1:
        print(f"a node that joins in the middle of a run gets no work  {load_now()}")
        return
    print(measured.line("1 node, and 1 that joins in the middle", 2, alone))


def main() -> None:
    """Run the benchmark and print its table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--nodes", type=int, nargs="+", default=[1, 2, 4])
    parser.add_argument("--pairs", type=int, default=12_000, help="of each node")
    parser.add_argument("--speed", type=float, default=400.0, help="stamps/s of the stub")
    parser.add_argument("--size", type=int, default=8192, help="edge of the field, px")
    chosen = parser.parse_args()
    be_quiet()
    say_machine(f"stub of {chosen.speed:,.0f} stamps/s a GPU, tiles of {TILE_PX} px")
    with tempfile.TemporaryDirectory() as folder:
        bench = Bench(folder, chosen.size, chosen.speed)
        alone = measure_equal(bench, chosen.nodes, chosen.pairs)
        measure_unequal(bench, chosen.pairs, alone)
        measure_joining(bench, chosen.pairs, alone)


if __name__ == "__main__":
    main()
