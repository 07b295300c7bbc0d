"""A run without Ray, in processes of this machine: whatever dies, the same rows, and no Ray anywhere."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
import yaml

from deblend_batch.catalog.output import Output
from deblend_batch.engine.account.reader import read_status
from deblend_batch.engine.audit.verify import verify_run
from deblend_batch.engine.crew.fork_server import FORK_SERVER, ForkServer
from deblend_batch.engine.inputs.work import RunContext
from deblend_batch.engine.run import process_field, retry_run
from deblend_batch.engine.worker.exchange import load_run_model
from deblend_batch.errors import InterruptedRunError, RunStoppedError
from tests.engine.killing_models import first_time, saboteur
from tests.engine.slow_models import slow_model
from tests.support import SmallField, shards_of, wait_until, write_tiny_model

ROOT = Path(__file__).resolve().parents[2]
RUN = """
import sys
from pathlib import Path

import yaml
import deblend_batch.engine.plan
from deblend_batch.engine.run import process_field
from tests.engine.slow_models import slow_model

config, fast = sys.argv[1:]
found = process_field(yaml.safe_load(Path(config).read_text()), loader=slow_model(Path(fast)))
print(found.state, {"ray", "torch", "scipy.stats"} & set(sys.modules))
"""


def local(small_field: SmallField, output: Path, **engine: Any) -> dict[str, Any]:
    """A config of a run in processes of this machine."""
    return small_field.config(str(output), engine={"where": "local", "actors": 1, **engine})


@pytest.mark.parametrize(
    ("deed", "times", "retried"),
    [
        ("exit", 2, "worker"),
        ("kill", 1, "worker"),
        ("segfault", 1, "worker"),
        ("network", 1, "transient"),
        ("cuda", 1, "device"),
    ],
)
def test_the_rows_are_those_of_an_undisturbed_run(
    undisturbed: dict[str, bytes],
    small_field: SmallField,
    tmp_path: Path,
    deed: str,
    times: int,
    retried: str,
) -> None:
    output = tmp_path / "out"
    summary = process_field(local(small_field, output), loader=saboteur(tmp_path, deed, times))
    assert shards_of(output) == undisturbed
    assert summary.totals["retries"][retried] >= 1
    assert summary.totals["pairs"]["quarantined"] == 0
    assert verify_run(Output(str(output)), recompute=0).problems == ()


def test_what_workers_are_forked_from_dies_with_one_of_them(
    undisturbed: dict[str, bytes], small_field: SmallField, tmp_path: Path
) -> None:
    """As where the machine is out of memory: both are made anew."""
    output, mark = tmp_path / "out", tmp_path / "mark"

    def load(context: RunContext, device: str) -> Any:
        if first_time(mark):
            os.kill(os.getppid(), signal.SIGKILL)
            os.kill(os.getpid(), signal.SIGKILL)
        return load_run_model(context, device)

    summary = process_field(local(small_field, output), loader=load)
    assert shards_of(output) == undisturbed
    assert summary.exit_code == 0


def test_a_bug_shows_where_it_was(small_field: SmallField, tmp_path: Path) -> None:
    with pytest.raises(KeyError, match="bug") as caught:
        process_field(local(small_field, tmp_path / "out"), loader=saboteur(tmp_path, "bug", None))
    assert "killing_models.py" in str(caught.value.__cause__)
    assert Output(str(tmp_path / "out")).quarantined() == []


def test_workers_that_never_start_stop_the_run(small_field: SmallField, tmp_path: Path) -> None:
    def load(*_: Any) -> Any:
        raise OSError("no such driver")

    config = local(small_field, tmp_path / "out", attempts=2)
    with pytest.raises(RunStoppedError, match=r"die before they are ready \(no such driver\)"):
        process_field(config, loader=load)


def test_nothing_left_starts_nothing(
    small_field: SmallField, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    output = tmp_path / "out"
    process_field(local(small_field, output))

    def never(*_: Any, **__: Any) -> Any:
        raise AssertionError("a process was started")

    monkeypatch.setattr(subprocess, "Popen", never)
    monkeypatch.setattr(ForkServer, "fork", never)
    summary = retry_run(Output(str(output)))
    assert "nothing left to do" in summary.notes[0]


@pytest.fixture
def script(
    small_field: SmallField, tmp_path: Path
) -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """Start a slow run as a script without a main guard would; what is left of it ends with the test."""
    config = local(small_field, tmp_path / "out", tiles_in_flight=1)
    (tmp_path / "script.py").write_text(RUN)
    path = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
    environment = {key: value for key, value in os.environ.items() if key != "RAY_ADDRESS"}
    words = [sys.executable, "script.py", "config.yaml", str(tmp_path / "fast")]
    started: list[subprocess.Popen[str]] = []

    def start(**more: Any) -> subprocess.Popen[str]:
        (tmp_path / "config.yaml").write_text(yaml.safe_dump({**config, **more}))
        started.append(
            subprocess.Popen(
                words,
                cwd=tmp_path,
                env={**environment, "PYTHONPATH": path},
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
            )
        )
        return started[-1]

    yield start
    for process in started:
        process.kill()
        process.communicate()


def workers_of(process: subprocess.Popen[str]) -> list[psutil.Process]:
    """The workers of a run: what its fork server has forked."""
    (server,) = psutil.Process(process.pid).children()
    assert "deblend_batch.engine.worker.fork_server" in server.cmdline()
    workers: list[psutil.Process] = server.children()
    return workers


def has_ended(process: psutil.Process) -> bool:
    """Whether a process has, though its parent may not have asked yet."""
    with contextlib.suppress(psutil.NoSuchProcess):
        return bool(process.status() == psutil.STATUS_ZOMBIE)
    return True


def test_workers_leave_with_their_driver_and_the_run_resumes(
    undisturbed: dict[str, bytes], small_field: SmallField, script: Any, tmp_path: Path
) -> None:
    output, process = tmp_path / "out", script()
    wait_until(lambda: bool(shards_of(output)) or process.poll() is not None)
    (worker,) = workers_of(process)
    process.kill()
    process.communicate()
    worker.wait()
    assert shards_of(output).items() < undisturbed.items()
    assert process_field(local(small_field, output)).exit_code == 0
    assert shards_of(output) == undisturbed
    assert verify_run(Output(str(output)), recompute=0).problems == ()


def test_ctrl_c_is_one_line_and_workers_leave(
    undisturbed: dict[str, bytes], small_field: SmallField, tmp_path: Path
) -> None:
    """SIGTERM is made to be Ctrl-C, see ``test_run.py``."""
    output = tmp_path / "out"

    def press() -> None:
        wait_until(lambda: bool(list(output.glob("ledger/*.json"))))
        os.kill(os.getpid(), signal.SIGINT)

    user = threading.Thread(target=press)
    user.start()
    with pytest.raises(InterruptedRunError, match="run the same command again to resume"):
        process_field(
            local(small_field, output, tiles_in_flight=1), loader=slow_model(tmp_path / "fast")
        )
    user.join()
    assert FORK_SERVER._process is not None
    workers = psutil.Process(FORK_SERVER._process.pid).children()
    wait_until(lambda: all(has_ended(worker) for worker in workers))
    assert read_status(Output(str(output))).state == "interrupted"
    assert shards_of(output).items() < undisturbed.items()
    assert process_field(local(small_field, output)).exit_code == 0
    assert shards_of(output) == undisturbed


def test_a_script_needs_no_guard_nor_ray_nor_torch_and_shares_its_output_with_another_run(
    small_field: SmallField, script: Any, tmp_path: Path
) -> None:
    """The second does what it can while the first is held up; both are complete, masks and all.

    Ctrl-C is the driver's: a worker that gets it too goes on.
    """
    model = write_tiny_model(str(tmp_path / "model.safetensors"), masks=True)
    output, more = tmp_path / "out", {"model": model, "masks": True}
    first = script(**more)
    wait_until(lambda: bool(list(output.glob("ledger/*.json"))) or first.poll() is not None)
    (worker,) = workers_of(first)
    assert os.getpgid(worker.pid) != os.getpgid(first.pid)
    worker.send_signal(signal.SIGINT)
    second = process_field({**local(small_field, output), **more})
    assert workers_of(first) == [worker]
    (tmp_path / "fast").touch()
    said, errors = first.communicate()
    assert first.returncode == 0, errors
    assert said.split() == ["complete", "set()"]
    assert second.state == "complete"
    assert json.loads((output / "run.json").read_text())["totals"]["retries"] == {}
    assert verify_run(Output(str(output))).problems == ()
    process_field({**local(small_field, tmp_path / "alone"), **more})
    assert shards_of(output) == shards_of(tmp_path / "alone")
