"""A program run under limits of memory, time and disk: one that passes them is stopped and the test fails.

Memory is what is resident, in the program and all that it starts: an address space of many gigabytes, as
torch and Ray have, costs nothing. Between two looks the kernel keeps the program's own peak; to look more
often would take half a core, since the processes below one are found by reading those of all the machine.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest

_LOOK_SECONDS = 0.1


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
        Program and arguments; ``deblend-batch`` is the command line of this checkout, ``python`` this Python.
    memory, disk : int
        Bytes.
    seconds : float
        Wall time.
    cwd : Path, optional
        Where it runs.

    Returns
    -------
    Ended
        How it ended.
    """
    script = str(Path(sys.executable).parent / "deblend-batch")
    program = {"deblend-batch": script, "python": sys.executable}.get(words[0], words[0])
    command = [program, *words[1:]]
    with tempfile.TemporaryDirectory() as scratch:
        out, err = Path(scratch, "out"), Path(scratch, "err")
        folder = Path(scratch, "tmp")
        folder.mkdir()
        environment = {**os.environ, "TMPDIR": str(folder), "COLUMNS": "200"}
        if (
            cwd is not None
        ):  # whose modules it may import, though the working folder's are no longer looked for
            environment["PYTHONPATH"] = str(cwd)
        with out.open("wb") as stdout, err.open("wb") as stderr:
            started = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=stdout,
                stderr=stderr,
                cwd=cwd,
                env=environment,
            )
            taken = _watch(started, folder, memory, seconds, disk)
        return Ended(started.returncode, out.read_text(), err.read_text(), *taken)


def _watch(
    program: subprocess.Popen[bytes], folder: Path, memory: int, seconds: float, disk: int
) -> tuple[int, int, float]:
    """Look at a program until it ends; stop it, and fail, where it passes a limit."""
    started, most, written = time.monotonic(), 0, 0
    while program.poll() is None:
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
            pytest.fail(f"{program.args!r} passed its limits ({'; '.join(passed)})")
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


def _stop(program: subprocess.Popen[bytes]) -> None:
    for process in reversed(_tree(program.pid)):
        try:
            process.kill()
        except psutil.NoSuchProcess:
            continue
    program.wait()
