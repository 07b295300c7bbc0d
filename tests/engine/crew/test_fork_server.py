"""What workers without Ray are forked from: there while it is held, and what it forks is of now."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from deblend_batch.engine.crew.fork_server import FORK_SERVER, ForkServer
from deblend_batch.engine.inputs.work import RunContext
from deblend_batch.engine.run import process_field
from deblend_batch.engine.worker.exchange import load_run_model
from deblend_batch.errors import RunStoppedError
from tests.support import SmallField


@pytest.fixture(scope="module")
def server() -> Iterator[ForkServer]:
    """One of this file's own, held once; it is killed before its imports, which take seconds, are done."""
    server = ForkServer()
    server.hold()
    yield server
    server._end()


def test_a_worker_s_exit_code_is_known() -> None:
    first, second = FORK_SERVER.fork(), FORK_SERVER.fork()
    assert not FORK_SERVER.lives(first)  # it is not there yet
    first.pipe.send_bytes(b"no pickle")
    first.pipe.poll(60)
    assert FORK_SERVER.exit_code(first) in (1, -signal.SIGKILL)
    assert "UnpicklingError" in first.log.read_text()
    assert FORK_SERVER.lives(second)
    FORK_SERVER.kill(second)
    second.pipe.poll(60)
    assert FORK_SERVER.exit_code(second) == -signal.SIGKILL
    assert not FORK_SERVER.lives(second)
    for worker in (first, second):
        worker.pipe.close()
        worker.log.unlink()


def test_one_that_dies_is_said_and_another_takes_its_place(server: ForkServer) -> None:
    worker = server.fork()
    assert server._process is not None
    os.kill(server._process.pid, signal.SIGKILL)
    worker.pipe.poll(60)
    with pytest.raises(RunStoppedError, match=r"workers are forked from has died; its log is /\S+"):
        server.exit_code(worker)
    again = server.fork()
    assert again.pipe.poll(0.1) is False
    while again.pid is None:
        server.hear()
        time.sleep(0.05)
    for left in (worker, again):
        left.pipe.close()
        left.log.unlink()


def test_it_lives_while_somebody_holds_it_and_workers_while_their_driver_listens(
    server: ForkServer,
) -> None:
    server.hold()
    worker = server.fork()
    while worker.pid is None:
        server.hear()
        time.sleep(0.05)
    server.release()
    assert server.lives(worker)
    server.release()
    assert server._process is None
    process = psutil.Process(worker.pid)
    assert process.is_running()
    worker.pipe.close()
    process.wait(20)
    worker.log.unlink()


def test_workers_have_the_environment_of_now(
    small_field: SmallField, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The fork server may be older than what a notebook has set since."""
    assert FORK_SERVER._process is not None
    monkeypatch.setenv("AWS_PROFILE", "of-now")
    monkeypatch.delenv("PWD", raising=False)

    def load(context: RunContext, device: str) -> Any:
        seen = [os.environ.get(name, "-") for name in ("AWS_PROFILE", "PWD", "MALLOC_ARENA_MAX")]
        (tmp_path / "seen").write_text(" ".join(seen))
        return load_run_model(context, device)

    assert process_field(small_field.config(str(tmp_path / "out")), loader=load).exit_code == 0
    assert (tmp_path / "seen").read_text() == "of-now - 1"
