"""Fuzz every format for a while: ``python -m tests.fuzz --seconds 120``.

Each target has a process of its own, which is watched: it is stopped where its memory or a single execution
passes all bounds. What is found is written to a folder; a finding that has been mended belongs into
``tests/fuzz/corpus``, which the ordinary tests read.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import psutil

from tests.fuzz.targets import TARGETS
from tests.fuzz.worker import MOST_BYTES, MOST_SECONDS

_MOST_RESIDENT = 1_200_000_000 + MOST_BYTES
_START_SECONDS = 90.0
_LOOK_SECONDS = 0.2


def fuzz(name: str, seconds: float, seed: int, findings: Path) -> dict[str, object]:
    """Fuzz one target in a process of its own.

    Parameters
    ----------
    name : str
        The target.
    seconds : float
        For how long, beside its start.
    seed : int
        Where chance begins.
    findings : Path
        Where what is found is written.

    Returns
    -------
    dict
        ``executions``, ``accepted``, ``found``.
    """
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch, "target")
        folder.mkdir()
        command = [sys.executable, "-m", "tests.fuzz.worker", name]
        worker = subprocess.Popen([*command, str(seconds), str(seed), str(folder)])
        stopped = _watch(worker, folder, seconds)
        report: dict[str, object] = {"executions": 0, "accepted": 0, "found": stopped}
        if not stopped and (folder / "report.json").exists():
            report = json.loads((folder / "report.json").read_text())
        elif not stopped:
            report["found"] = f"the process ended with {worker.returncode}"
        if report["found"]:
            kept = folder / ("finding" if (folder / "finding").exists() else "doing")
            content = kept.read_bytes() if kept.exists() else b""
            digest = hashlib.sha256(content).hexdigest()[:12]
            findings.mkdir(parents=True, exist_ok=True)
            (findings / f"{name}-{digest}.bin").write_bytes(content)
    return report


def _watch(worker: subprocess.Popen[bytes], folder: Path, seconds: float) -> str:
    """Wait for the end of a process; say why it was stopped, if it was."""
    process, started = psutil.Process(worker.pid), time.monotonic()
    while worker.poll() is None:
        time.sleep(_LOOK_SECONDS)
        try:
            resident = process.memory_info().rss
        except psutil.NoSuchProcess:
            continue
        doing = folder / "doing"
        idle = time.time() - doing.stat().st_mtime if doing.exists() else 0.0
        late = time.monotonic() - started > seconds + _START_SECONDS
        if resident > _MOST_RESIDENT or idle > 3 * MOST_SECONDS or late:
            worker.kill()
            worker.wait()
            return f"stopped with {resident:,} bytes, {idle:.0f} s after it began this file"
    return ""


def main(arguments: Sequence[str] | None = None) -> int:
    """Fuzz, and say what was done and found; 1 where something was found."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=120.0, help="for all targets together")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--target", choices=sorted(TARGETS), action="append")
    parser.add_argument("--findings", type=Path, default=Path("build/findings"))
    chosen = parser.parse_args(arguments)
    names = chosen.target or list(TARGETS)
    total = failed = 0
    for name in names:
        report = fuzz(name, chosen.seconds / len(names), 1000 * chosen.seed, chosen.findings)
        total += int(str(report["executions"]))
        failed += bool(report["found"])
        found = f"  FOUND {report['found']}" if report["found"] else ""
        sys.stdout.write(
            f"{name:16} {report['executions']:>7} executions, {report['accepted']:>6} accepted{found}\n"
        )
        sys.stdout.flush()
    sys.stdout.write(f"{total:,} executions of {len(names)} targets, {failed} with a finding\n")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
