"""Whether runs survive continuous kills, and memory stays flat.

``python benchmarks/soak.py --minutes 20`` runs one job after another in one driver, while a thread kills
model actors (SIGKILL) at random moments, by a seed. After each run the bytes of its shards are compared
with those of an undisturbed run, and its totals are checked. It prints a line a run, and at the end kills,
completions, the driver's memory over time, and the actors' by their age, since each run has new ones. Exit
code 1 if a run was wrong. Ray's own lines on each death begin with ``(raylet)``.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import random
import shutil
import signal
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")
sys.path.append(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))

import numpy as np
import psutil
import ray

from benchmarks.metering import Meter, actor_pids
from benchmarks.support import (
    MODEL,
    load_now,
    random_pairs,
    say_machine,
    start_ray,
    stub_loader,
    write_field,
    write_pairs,
)
from deblend_batch.catalog.ledger import Ledger
from deblend_batch.catalog.output import Output
from deblend_batch.engine.account.summary import RunSummary
from deblend_batch.engine.run import process_field

TILE_PX = 512
BATCH = 64
FIELD_PX = 4096
_SAMPLE_SECONDS = 1.0


@dataclass
class Memory:
    """Resident memory of the driver over time, and of the actors by age: (minutes, MB)."""

    driver: list[tuple[float, float]] = field(default_factory=list)
    actors: list[tuple[float, float]] = field(default_factory=list)
    looked: float = -1.0

    def look(self, minute: float) -> None:
        """Take a sample."""
        self.looked = minute
        self.driver.append((minute, psutil.Process().memory_info().rss / 1e6))
        for pid in actor_pids():
            with suppress(psutil.Error):
                actor = psutil.Process(pid)
                age = (time.time() - actor.create_time()) / 60
                self.actors.append((age, actor.memory_info().rss / 1e6))

    def lines(self) -> list[str]:
        """Tell both, without the first third of the driver's time and of the oldest actor's life."""
        return [_growth("driver", self.driver), _growth("actors, by age", self.actors)]


def _growth(name: str, samples: list[tuple[float, float]]) -> str:
    """Tell the medians of the second and the last third, and the slope over both."""
    minutes, used_mb = np.array(samples).T
    span = minutes.max() - minutes.min()
    later = minutes > minutes.min() + span / 3
    last = minutes > minutes.max() - span / 3
    slope = np.polyfit(minutes[later], used_mb[later], 1)[0]
    return (
        f"{name}: {np.median(used_mb[later & ~last]):,.0f} MB in the second third of {span:.1f} minutes, "
        f"{np.median(used_mb[last]):,.0f} MB in the last, {slope:+.2f} MB a minute"
    )


@dataclass
class Killer:
    """Kills model actors at random moments, and looks at memory.

    Parameters
    ----------
    every : float
        Mean seconds between kills.
    seed : int
        Of the moments and the choice of the actor.
    """

    every: float
    seed: int
    kills: int = 0
    memory: Memory = field(default_factory=Memory)

    @contextmanager
    def at_work(self) -> Iterator[None]:
        """Kill for as long as the context is open."""
        over = threading.Event()
        thread = threading.Thread(target=self._work, args=(over,), daemon=True)
        thread.start()
        try:
            yield
        finally:
            over.set()
            thread.join()

    def _work(self, over: threading.Event) -> None:
        dice = random.Random(self.seed)
        started = time.monotonic()
        due = dice.expovariate(1 / self.every)
        while not over.wait(_SAMPLE_SECONDS / 4):
            now = time.monotonic() - started
            if now >= due:
                self._kill(dice)
                due = now + dice.expovariate(1 / self.every)
            if 60 * self.memory.looked + _SAMPLE_SECONDS <= now:
                self.memory.look(now / 60)

    def _kill(self, dice: random.Random) -> None:
        pids = actor_pids()
        if pids:
            with suppress(ProcessLookupError):
                os.kill(dice.choice(pids), signal.SIGKILL)
                self.kills += 1


class Job:
    """The same job again and again, each time into a new folder.

    Parameters
    ----------
    folder : str
        Where everything is.
    pairs : int
        Its size.
    speed : float
        Stamps per second of an actor.
    actors : int
        Number of actors.
    """

    def __init__(self, folder: str, pairs: int, speed: float, actors: int) -> None:
        self._inputs = {
            "field": write_field(folder, FIELD_PX),
            **write_pairs(folder, *random_pairs(FIELD_PX, pairs)),
        }
        self._output = os.path.join(folder, "out")
        self._speed = speed
        self._actors = actors
        self.left_over = 0
        """Files beside the shards of the last run: what its dead actors had not finished writing."""

    def run(self) -> tuple[RunSummary, dict[str, str]]:
        """Run it; return its summary and the hashes of its shards."""
        config: dict[str, Any] = {
            "field": self._inputs["field"],
            "detections": self._inputs["detections"],
            "pairs": {"table": self._inputs["pairs"]},
            "output": self._output,
            "model": MODEL,
            "tiles": {"size": TILE_PX},
            "engine": {
                "gpus_per_actor": 1,
                "actors": self._actors,
                "batch_size": BATCH,
            },
        }
        loader = stub_loader(self._speed, BATCH)
        summary = process_field(config, progress=Meter(), loader=loader)
        ledger = Ledger(Output(self._output))
        hashes = {tile: _hash(ledger.output.shard_url(tile)) for tile in ledger.output.shards()}
        self.left_over = len(os.listdir(os.path.join(self._output, "shards"))) - len(hashes)
        shutil.rmtree(self._output)
        return summary, hashes


def _hash(path: str) -> str:
    with open(path, "rb") as file:
        return hashlib.sha256(file.read()).hexdigest()


def problem_of(summary: RunSummary, hashes: dict[str, str], calm: dict[str, str]) -> str:
    """Say what is wrong with a run; nothing if it is as it should be."""
    pairs = summary.totals["pairs"]
    if pairs["written"] != pairs["expected"]:
        return f"{pairs}"
    tiles = hashes.keys() | calm.keys()
    differ = sorted(tile for tile in tiles if hashes.get(tile) != calm.get(tile))
    return f"{len(differ)} shards differ, such as {differ[0]}" if differ else ""


def soak(job: Job, killer: Killer, minutes: float) -> int:
    """Run until the time is over; return how many runs were wrong."""
    calm_summary, calm = job.run()
    print(f"undisturbed: {calm_summary.totals['pairs']['written']:,} pairs, {len(calm)} shards")
    deadline, wrong, runs = time.monotonic() + 60 * minutes, 0, 0
    with killer.at_work():
        while time.monotonic() < deadline:
            before, started = killer.kills, time.monotonic()
            summary, hashes = job.run()
            problem = problem_of(summary, hashes, calm)
            runs, wrong = runs + 1, wrong + bool(problem)
            print(
                f"run {runs}: {time.monotonic() - started:.0f} s, {killer.kills - before} kills, "
                f"{sum(summary.totals['retries'].values())} tiles tried again, "
                f"{job.left_over} unfinished files left, "
                f"driver {psutil.Process().memory_info().rss / 1e6:,.0f} MB, "
                f"{problem or 'bytes as undisturbed'}; {load_now()}",
                flush=True,
            )
    print(f"{killer.kills} kills, {runs} runs complete, {wrong} wrong")
    return wrong


def main() -> None:
    """Run the soak and print its figures."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--minutes", type=float, default=20.0)
    parser.add_argument("--every", type=float, default=8.0, help="mean seconds between kills")
    parser.add_argument("--actors", type=int, default=2)
    parser.add_argument("--pairs", type=int, default=8_000, help="of a run")
    parser.add_argument("--speed", type=float, default=200.0, help="stamps/s of an actor")
    parser.add_argument("--seed", type=int, default=0)
    chosen = parser.parse_args()
    say_machine(f"a kill every {chosen.every:g} s on the average, seed {chosen.seed}")
    killer = Killer(chosen.every, chosen.seed)
    with tempfile.TemporaryDirectory() as folder:
        start_ray(os.cpu_count() or 1, chosen.actors)
        job = Job(folder, chosen.pairs, chosen.speed, chosen.actors)
        wrong = soak(job, killer, chosen.minutes)
        print("\n".join(killer.memory.lines()))
        ray.shutdown()
    sys.exit(1 if wrong else 0)


if __name__ == "__main__":
    main()
