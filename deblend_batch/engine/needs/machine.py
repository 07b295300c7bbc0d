"""What this machine has for a run."""

from __future__ import annotations

import os
import shutil
import subprocess
from functools import lru_cache
from pathlib import Path

import psutil

from deblend_batch.engine.needs.projection import NodeSize

_SHARE_FOR_PROCESSES = 0.7  # Ray's own: the rest is the object store
_ANSWER_SECONDS = 20.0
_CONTROL_GROUP = "/sys/fs/cgroup"


def this_machine() -> NodeSize:
    """Return what a run may take of this machine, with Ray or without."""
    return NodeSize(
        "this machine",
        float(_cores()),
        float(len(visible_gpus())),
        int(_SHARE_FOR_PROCESSES * _free_bytes()),
    )


def _cores() -> int:
    """Return the cores that this process may use: batch systems and containers may give it fewer."""
    cores = psutil.cpu_count(logical=False) or 1
    if hasattr(os, "sched_getaffinity"):
        cores = min(cores, len(os.sched_getaffinity(0)))
    quota, _, period = _limit("cpu.max").partition(" ")
    return max(1, min(cores, int(quota) // int(period))) if quota.isdecimal() else cores


def _free_bytes() -> int:
    """Return the memory that is left, of the machine and of the container that this process may be in."""
    available = int(psutil.virtual_memory().available)
    most, taken = _limit("memory.max"), _limit("memory.current")
    return min(available, int(most) - int(taken)) if most.isdecimal() else available


def _limit(name: str) -> str:
    """Read a limit of the control group that a container sees as its root; empty where there is none."""
    try:
        return Path(_CONTROL_GROUP, name).read_text(encoding="ascii").strip()
    except OSError:
        return ""


def visible_gpus() -> list[str]:
    """Return the names that CUDA has for the GPUs that this process may use; none is opened."""
    chosen = os.environ.get("CUDA_VISIBLE_DEVICES")
    present = _present_gpus()
    if chosen is None or not present:
        return list(present)
    return [name.strip() for name in chosen.split(",") if name.strip() not in {"", "-1"}]


@lru_cache(maxsize=1)
def _present_gpus() -> tuple[str, ...]:
    """Return the numbers of this machine's GPUs, as its driver tells: torch would take a second to load."""
    if (command := shutil.which("nvidia-smi")) is None:
        return ()
    try:
        told = subprocess.run(  # noqa: S603  # no word of it is a user's
            [command, "--query-gpu=index", "--format=csv,noheader"],
            capture_output=True,
            text=True,
            timeout=_ANSWER_SECONDS,
            check=True,
        )
    except (OSError, subprocess.SubprocessError):
        return ()
    return tuple(line.strip() for line in told.stdout.splitlines() if line.strip())
