"""How long a run takes to start, beside what Ray itself takes: the first model actor, and a whole small run.

``python benchmarks/startup.py`` prints a row a turn, as soon as it is measured, and medians at the end. Each
start is a process of its own; the ways of a run (Ray up, Ray to be started, without Ray) are taken in turn so
that all meet the same load, and turns end with the time that they may take:

* seconds from the start, imports done, to a *bare* worker and to a run's first worker, with the ratio of the
  two: on Ray a bare one is an actor that imports nothing, without Ray a process with the imports of a worker;
* seconds from the start of a process to its end, imports included, and the CPU seconds of it and all that it
  starts: of one that makes a bare worker, and of ``deblend-batch run`` on a small field, with their ratio. Of
  Ray that is up its own processes are counted too, which do little.

The field is noise, unless ``--config`` names a run on an image of your own.
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
from dataclasses import astuple, dataclass, field
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")
sys.path.append(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))

import ray
import yaml

from benchmarks.metering import Meter, measured_tree
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
WORKER_IMPORTS = (
    "import deblend_batch.models.model, deblend_batch.models.profile_fit.model, "
    "deblend_batch.engine.worker.serve"
)
TITLES = ("bare worker", "first worker", "ratio", "bare process", "whole run", "ratio", "its CPU")


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


@dataclass(frozen=True)
class Turn:
    """Seconds of a bare worker and of a run: to the worker, to the end of the process, and of CPU.

    Parameters
    ----------
    bare_ready, ready, bare_end, end, cpu : float
        The latter three of a whole process, the last one of the run's.
    """

    bare_ready: float
    ready: float
    bare_end: float
    end: float
    cpu: float

    def row(self, name: str) -> str:
        """Return it as a row of the table."""
        cells = (
            *(self.bare_ready, self.ready, self.ready / self.bare_ready),
            *(self.bare_end, self.end, self.end / self.bare_end, self.cpu),
        )
        return " ".join([f"{name:<20}", *(f"{cell:12.1f}" for cell in cells), f" {load_now()}"])


class Clock:
    """Measures ways of starting, each start in a process of its own.

    Parameters
    ----------
    folder : str
        For outputs.
    address : str or None
        Of the Ray that is up.
    config : dict
        What is to be run, without an output.
    """

    def __init__(self, folder: str, address: str | None, config: dict[str, Any]) -> None:
        self._folder = folder
        self._address = address
        self._base = config
        self._runs = 0

    def measure(self, way: Way) -> Turn:
        """Start a bare worker, a run whose first worker is waited for, and a run."""
        itself = [sys.executable, os.path.abspath(__file__), "--start"]
        bare_ready, bare_end, _ = self._time(way, [*itself, way.bare])
        ready, _, _ = self._time(way, [*itself, self._config(way)])
        command = [sys.executable, "-m", "deblend_batch", "run", self._config(way)]
        _, end, cpu = self._time(way, command)
        return Turn(bare_ready, ready, bare_end, end, cpu)

    def _config(self, way: Way) -> str:
        self._runs += 1
        config = {**self._base, "output": f"{self._folder}/out-{self._runs}", **way.settings}
        path = f"{self._folder}/run-{self._runs}.yaml"
        with open(path, "w") as file:
            json.dump(config, file)  # which is YAML too
        return path

    def _time(self, way: Way, command: list[str]) -> tuple[float, float, float]:
        """Run a program; return the number that it prints last, or NaN, and its wall and CPU seconds."""
        environment = dict(os.environ)
        if way.joins:
            assert self._address is not None
            environment["RAY_ADDRESS"] = self._address
        with measured_tree() as tree:
            began = time.monotonic()
            done = subprocess.run(
                command, env=environment, check=True, capture_output=True, text=True
            )
            seconds = time.monotonic() - began
        printed = float(done.stdout) if "--start" in command else math.nan
        return printed, seconds, tree.cpu_seconds


def noise(folder: str, model: str) -> dict[str, Any]:
    """Write a small field of noise and its pairs; return the config of a run on it."""
    urls = write_pairs(folder, *random_pairs(FIELD_PX, PAIRS))
    return {
        "field": write_field(folder, FIELD_PX),
        "detections": urls["detections"],
        "pairs": {"table": urls["pairs"]},
        "model": model,
    }


def own_run(path: str) -> dict[str, Any]:
    """Return the config of a file, without what a start sets."""
    with open(path) as file:
        config: dict[str, Any] = yaml.safe_load(file)
    return {key: value for key, value in config.items() if key not in ("output", "engine")}


def measure(clock: Clock, found: dict[str, list[Turn]], most: int, seconds: float) -> None:
    """Take turns, as many as fit in the time; print each."""
    began = time.monotonic()
    for done in range(most):
        so_far = time.monotonic() - began
        if done and so_far * (done + 1) / done > seconds:
            return
        for way in WAYS:
            if way.name in found:
                found[way.name].append(clock.measure(way))
                print(found[way.name][-1].row(way.name), flush=True)


def median(turns: list[Turn]) -> Turn:
    """Return medians of what several turns took."""
    return Turn(*(statistics.median(column) for column in zip(*map(astuple, turns), strict=True)))


def main() -> None:
    """Run the benchmark and print its table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--repetitions", type=int, default=5, help="most turns")
    parser.add_argument(
        "--seconds", type=float, default=300, help="no turn begins that would go on for longer"
    )
    parser.add_argument("--model", default=DEFAULT_MODEL, help="of the run on noise")
    parser.add_argument(
        "--config", metavar="FILE", help="a run of your own; its output is not used"
    )
    parser.add_argument(
        "--only", choices=[way.name for way in WAYS], help="one way instead of three"
    )
    parser.add_argument("--start", metavar="CONFIG", help=argparse.SUPPRESS)
    chosen = parser.parse_args()
    if chosen.start:
        print(seconds_to_ready(chosen.start))
        return
    ways = [way for way in WAYS if chosen.only in (None, way.name)]
    found: dict[str, list[Turn]] = {way.name: [] for way in ways}
    with tempfile.TemporaryDirectory() as folder:
        config = own_run(chosen.config) if chosen.config else noise(folder, chosen.model)
        address = None
        if any(way.joins for way in ways):
            start_ray(os.cpu_count() or 1, 0)
            address = ray.get_runtime_context().gcs_address
        say_machine(f"{config['field']}, {config.get('model', DEFAULT_MODEL)}", "seconds")
        print(" ".join([f"{'':<20}", *(f"{title:>12}" for title in TITLES)]), flush=True)
        measure(Clock(folder, address, config), found, chosen.repetitions, chosen.seconds)
        ray.shutdown()
    print(f"\nmedians of {min(map(len, found.values()))}:")
    for name, turns in found.items():
        print(median(turns).row(name))


if __name__ == "__main__":
    main()
