"""A program run under limits of memory, time and disk: one that passes them is stopped and the test fails.

Memory is what is resident, in the program and all that it starts: an address space of many gigabytes, as
torch and Ray have, costs nothing. Between two looks the kernel keeps the program's own peak; to look more
often would take half a core, since the processes below one are found by reading those of all the machine.

Imports would take longer than most of these programs: each is forked from a process that has done them.
"""

from __future__ import annotations

import multiprocessing
import os
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from multiprocessing.process import BaseProcess
from pathlib import Path

import psutil
import pytest

from tests.forked import IMPORTED, play

_LOOK_SECONDS = 0.1
_FORKS = multiprocessing.get_context("forkserver")
_FORKS.set_forkserver_preload(list(IMPORTED))


@dataclass(frozen=True)
class Ended:
    """How a program ended, and what it took: bytes resident at its peak, bytes on disk, seconds."""

    code: int
    out: str
    err: str
    memory: int
    disk: int
    seconds: float


def run_limited(
    words: Sequence[str],
    *,
    memory: int = 1_200_000_000,
    seconds: float = 60.0,
    disk: int = 1 << 28,
    cwd: Path | None = None,
) -> Ended:
    """Run a program; fail if it passes a limit. ``disk`` is of its temporary folder.

    Parameters
    ----------
    words : sequence of str
        Program and arguments: ``deblend-batch`` with its own, or ``python -c CODE`` with those of the code.
    memory, disk : int
        Bytes.
    seconds : float
        Wall time.
    cwd : Path, optional
        Where it runs, and imports from.

    Returns
    -------
    Ended
        How it ended.
    """
    with tempfile.TemporaryDirectory() as scratch:
        out, err, folder = (Path(scratch, name) for name in ("out", "err", "tmp"))
        out.touch()
        err.touch()
        folder.mkdir()
        environment = {**os.environ, "TMPDIR": str(folder), "COLUMNS": "200"}
        program = _FORKS.Process(target=play, args=(words, out, err, environment, cwd))
        program.start()
        taken = _watch(program, folder, memory, seconds, disk)
        assert program.exitcode is not None
        return Ended(program.exitcode, out.read_text(), err.read_text(), *taken)


def _watch(
    program: BaseProcess, folder: Path, memory: int, seconds: float, disk: int
) -> tuple[int, int, float]:
    """Look at a program until it ends; stop it, and fail, where it passes a limit."""
    started, most, written = time.monotonic(), 0, 0
    assert program.pid is not None
    while program.exitcode is None:
        most = max(most, _resident(program.pid), _peak(program.pid))
        written = max(written, sum(f.stat().st_size for f in _files(folder)))
        took = time.monotonic() - started
        passed = [
            f"{name}: {value:,.0f} of {limit:,.0f}"
            for name, value, limit in (
                ("memory", most, memory),
                ("disk", written, disk),
                ("seconds", took, seconds),
            )
            if value > limit
        ]
        if passed:
            _stop(program)
            pytest.fail(f"the program passed its limits ({'; '.join(passed)})")
        time.sleep(_LOOK_SECONDS)
    return most, written, time.monotonic() - started


def _tree(pid: int) -> list[psutil.Process]:
    try:
        top = psutil.Process(pid)
        return [top, *top.children(recursive=True)]
    except psutil.NoSuchProcess:
        return []


def _resident(pid: int) -> int:
    total = 0
    for process in _tree(pid):
        try:
            total += process.memory_info().rss
        except psutil.NoSuchProcess:
            continue
    return total


def _peak(pid: int) -> int:
    """Return the most that a process has had resident, where the system tells it."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except (FileNotFoundError, ProcessLookupError):
        return 0
    (kilobytes,) = [line.split()[1] for line in lines if line.startswith("VmHWM:")] or ["0"]
    return 1024 * int(kilobytes)


def _files(folder: Path) -> list[Path]:
    try:
        return [path for path in folder.rglob("*") if path.is_file()]
    except FileNotFoundError:
        return []


def _stop(program: BaseProcess) -> None:
    for process in reversed(_tree(program.pid or 0)):
        try:
            process.kill()
        except psutil.NoSuchProcess:
            continue
    program.join()
