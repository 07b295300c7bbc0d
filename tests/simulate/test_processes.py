from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from deblend_batch.simulate.processes import drawing_processes


def ignores_interrupt(_: int) -> bool:
    return signal.getsignal(signal.SIGINT) is signal.SIG_IGN


def test_processes_leave_the_interrupt_to_their_parent() -> None:
    before = signal.getsignal(signal.SIGINT)
    with drawing_processes(2) as workers:
        assert workers.map(ignores_interrupt, range(4)) == [True] * 4
    assert signal.getsignal(signal.SIGINT) is before


@pytest.mark.slow
def test_an_interrupted_simulation_ends_in_one_line(tmp_path: Path) -> None:
    words = ["simulate", "pairs", str(tmp_path / "p.zarr"), "--galaxies", "20000"]
    process = subprocess.Popen(
        [sys.executable, "-m", "deblend_batch", *words],
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    time.sleep(12)
    os.killpg(process.pid, signal.SIGINT)  # as a terminal does: to all of them
    _, said = process.communicate(timeout=30)
    assert process.returncode == 130
    assert said.splitlines()[-1].startswith("error: ")
    assert "Traceback" not in said
