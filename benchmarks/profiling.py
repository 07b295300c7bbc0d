"""Where the CPU time of a model actor goes: py-spy's stacks, summed by step of a pair's way."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import psutil

from benchmarks.metering import actor_pids

_STEPS: Sequence[tuple[str, str]] = (
    ("predict (", "stub's own answer"),
    ("_without_unstored (", "chunks that were never stored, looked for"),
    ("tiling/reader.py", "read core + halo (Zarr, Blosc, Dask)"),
    ("/zarr/", "read core + halo (Zarr, Blosc, Dask)"),
    ("/dask/", "read core + halo (Zarr, Blosc, Dask)"),
    ("tiling/stamps.py", "cut"),
    ("copy (deblend_batch/engine/batching/batcher.py", "copy to a batch"),
    ("engine/batching/batcher.py", "batches, else"),
    ("engine/inputs/index/file.py", "read the index"),
    ("catalog/shard.py", "rows and Parquet"),
    ("catalog/ledger.py", "write shard and receipt"),
    ("engine/worker/reduce.py", "reduce answers, flags"),
    ("engine/worker/measurer.py", "tile, else"),
    ("engine/worker/actor.py", "tile, else"),
)
_WAITS = ("wait (", "_worker (", "select (", "main_loop (", "gather (", "poll (", "sleep (")
_LISTED = 12


class Profile:
    """CPU time of an actor by step."""

    def __init__(self) -> None:
        self.steps: Counter[str] = Counter()
        self.leaves: Counter[str] = Counter()
        self.cpu_seconds = 0.0

    def add(self, stack: str, samples: int) -> None:
        """Count a stack, outermost frame first, separated by semicolons; not one that only waits."""
        frames = stack.split(";")
        if frames[-1].startswith(_WAITS) or any(f".{wait}" in frames[-1] for wait in _WAITS):
            return
        steps = (step for frame in reversed(frames) for mark, step in _STEPS if mark in frame)
        step = "imports" if "importlib" in stack else next(steps, "else in Python: Ray, threads")
        self.steps[step] += samples
        self.leaves[f"{step}: {frames[-1]}"] += samples

    def table(self, pairs: int) -> str:
        """Return microseconds of CPU per pair by step, and the functions that lead."""
        whole = 1e6 * self.cpu_seconds / pairs
        scale = whole / max(
            1, self.steps.total()
        )  # a sample may be of a thread that waits for a core
        lines = [f"CPU of the actor: {whole:.1f} us per pair, shared out by py-spy's samples:"]
        for counter in (self.steps, self.leaves):
            lines += [f"  {scale * n:6.2f}  {name}" for name, n in counter.most_common(_LISTED)]
        return "\n".join(lines)


@contextmanager
def profiled(folder: str, rate: int = 100) -> Iterator[Profile]:
    """Profile the first model actor that starts while the context is open.

    Parameters
    ----------
    folder : str
        Where py-spy may write.
    rate : int
        Samples a second.

    Yields
    ------
    Profile
        Complete when the context has been left.
    """
    profile = Profile()
    stacks = Path(folder) / "stacks.txt"
    earlier = set(actor_pids())
    thread = threading.Thread(target=_watch, args=(profile, stacks, rate, earlier), daemon=True)
    thread.start()
    yield profile
    thread.join(60)
    for line in stacks.read_text().splitlines():
        stack, samples = line.rsplit(" ", 1)
        profile.add(stack, int(samples))


def _watch(profile: Profile, stacks: Path, rate: int, earlier: set[int]) -> None:
    while not (found := set(actor_pids()) - earlier):
        time.sleep(0.05)
    pid = found.pop()
    program = os.path.join(os.path.dirname(sys.executable), "py-spy")
    command = [program, "record", "--pid", str(pid), "--output", str(stacks), "--format", "raw"]
    spy = subprocess.Popen(
        [*command, "--rate", str(rate), "--full-filenames", "--threads"],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    actor = psutil.Process(pid)
    try:
        before = sum(actor.cpu_times()[:2])
        while actor.is_running():
            profile.cpu_seconds = sum(actor.cpu_times()[:2]) - before
            time.sleep(0.05)
    except psutil.Error:
        pass
    spy.wait(30)
