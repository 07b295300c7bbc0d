"""How long a run takes to start, beside what Ray itself takes: the first model actor, and a whole small run.

``python benchmarks/startup.py`` prints medians of several repetitions, each in a process of its own, with
Ray up and with Ray to be started, the ways of a run taken in turn so that all meet the same load:

* seconds from the start, imports done, to a *bare* worker and to a run's first worker, with the ratio of the
  two: on Ray a bare one is an actor that imports nothing, without Ray a process with the imports of a worker;
* seconds from the start of a process to its end, imports included: of one that makes a bare worker, and of
  ``deblend-batch run`` on a small field, with their ratio.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field
from itertools import product
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")
sys.path.append(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))

import ray

from benchmarks.metering import Meter
from benchmarks.support import (
    be_quiet,
    load_now,
    random_pairs,
    say_machine,
    start_ray,
    write_field,
    write_pairs,
)
from deblend_batch import process_field
from deblend_batch.cluster.connection import connected
from deblend_batch.config import DEFAULT_MODEL

FIELD_PX = 1000
PAIRS = 47
BARE_ACTOR = "bare actor"
BARE_IMPORTS = "bare imports"
# What workers without Ray are forked from imports.
WORKER_IMPORTS = "import deblend_batch.models.loading, deblend_batch.engine.worker.serve"


@dataclass(frozen=True)
class Way:
    """A way of starting a run.

    Parameters
    ----------
    name : str
        For the table.
    joins : bool
        Whether it joins the Ray that is up.
    settings : dict
        What its config says beside the inputs.
    bare : str
        What its start is compared with.
    """

    name: str
    joins: bool
    settings: dict[str, Any] = field(default_factory=dict)
    bare: str = BARE_ACTOR


WAYS = (
    Way("Ray up", joins=True),
    Way("Ray to be started", joins=False, settings={"engine": {"where": "ray"}}),
    Way("without Ray", joins=False, settings={"engine": {"where": "local"}}, bare=BARE_IMPORTS),
)


class Bare:
    """An actor that imports nothing."""

    def ready(self) -> None:
        """Resolve when the actor is there."""


def seconds_to_ready(config: str) -> float:
    """Start a run in this process, or a bare worker; return the seconds to its first worker."""
    be_quiet()
    meter = Meter()
    if config == BARE_IMPORTS:
        subprocess.run([sys.executable, "-c", WORKER_IMPORTS], check=True)
        return time.monotonic() - meter.made
    if config != BARE_ACTOR:
        process_field(config, progress=meter)
        assert meter.ready is not None
        return meter.ready
    with connected():
        ray.get(ray.remote(Bare).remote().ready.remote())
        return time.monotonic() - meter.made


class Clock:
    """Measures ways of starting, each start in a process of its own.

    Parameters
    ----------
    folder : str
        For inputs and outputs.
    address : str
        Of the Ray that is up.
    """

    def __init__(self, folder: str, address: str) -> None:
        self._folder = folder
        self._address = address
        self._pairs = write_pairs(folder, *random_pairs(FIELD_PX, PAIRS))
        self._field = write_field(folder, FIELD_PX)
        self._runs = 0

    def measure(self, way: Way) -> dict[str, float]:
        """Return seconds of a bare worker and of a run, to the worker and to the end of the process."""
        itself = [sys.executable, os.path.abspath(__file__), "--start"]
        bare_ready, bare_end = self._time(way, [*itself, way.bare])
        ready, _ = self._time(way, [*itself, self._config(way)])
        command = [sys.executable, "-m", "deblend_batch", "run", self._config(way)]
        _, end = self._time(way, command)
        return {"bare_ready": bare_ready, "ready": ready, "bare_end": bare_end, "end": end}

    def _config(self, way: Way) -> str:
        self._runs += 1
        config = {
            "field": self._field,
            "detections": self._pairs["detections"],
            "pairs": {"table": self._pairs["pairs"]},
            "output": f"{self._folder}/out-{self._runs}",
            **way.settings,
        }
        path = f"{self._folder}/run-{self._runs}.yaml"
        with open(path, "w") as file:
            json.dump(config, file)  # which is YAML too
        return path

    def _time(self, way: Way, command: list[str]) -> tuple[float, float]:
        """Run a program; return the number that it prints last, or NaN, and the seconds that it took."""
        environment = {**os.environ, **({"RAY_ADDRESS": self._address} if way.joins else {})}
        began = time.monotonic()
        done = subprocess.run(command, env=environment, check=True, capture_output=True, text=True)
        seconds = time.monotonic() - began
        return float(done.stdout) if "--start" in command else math.nan, seconds


def main() -> None:
    """Run the benchmark and print its table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--repetitions", type=int, default=5)
    parser.add_argument("--start", metavar="CONFIG", help=argparse.SUPPRESS)
    chosen = parser.parse_args()
    if chosen.start:
        print(seconds_to_ready(chosen.start))
        return
    found: dict[str, list[dict[str, float]]] = {way.name: [] for way in WAYS}
    with tempfile.TemporaryDirectory() as folder:
        start_ray(os.cpu_count() or 1, 0)
        say_machine(f"{PAIRS} pairs, {DEFAULT_MODEL}", f"medians of {chosen.repetitions}, s")
        clock = Clock(folder, ray.get_runtime_context().gcs_address)
        for _, way in product(range(chosen.repetitions), WAYS):
            found[way.name].append(clock.measure(way))
        ray.shutdown()
    print(
        f"{'':<20} {'bare worker':>11} {'first worker':>13} {'ratio':>6} "
        f"{'bare process':>13} {'whole run':>10} {'ratio':>6}"
    )
    for way in WAYS:
        bare, ready, bare_end, end = (
            statistics.median(each[key] for each in found[way.name])
            for key in ("bare_ready", "ready", "bare_end", "end")
        )
        print(
            f"{way.name:<20} {bare:11.1f} {ready:13.1f} {ready / bare:6.1f} "
            f"{bare_end:13.1f} {end:10.1f} {end / bare_end:6.1f}  {load_now()}"
        )


if __name__ == "__main__":
    main()
