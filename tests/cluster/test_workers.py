from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
import ray

from deblend_batch.cluster.workers import ALONE, Workers, open_workers, shared_url
from deblend_batch.errors import ConfigError
from tests.support import wait_until


def weigh(task: int, factor: int) -> tuple[int, int]:
    """Later tasks end sooner."""
    time.sleep(0.02 * (5 - task % 5))
    return factor * task, os.getpid()


def fail(task: int) -> int:
    if task == 3:
        raise ConfigError("task: 3 cannot be done; leave it out")
    return task


def test_alone_everything_is_done_here_and_without_ray() -> None:
    with open_workers(1) as workers:
        done = list(workers.map(weigh, range(3), 10))
    assert workers is ALONE
    assert done == [(0, os.getpid()), (10, os.getpid()), (20, os.getpid())]


def test_alone_tasks_are_drawn_one_by_one() -> None:
    drawn: list[int] = []

    def tasks() -> Iterator[int]:
        for number in range(4):
            drawn.append(number)
            yield number

    results = ALONE.map(fail, tasks())
    assert (next(results), next(results), drawn) == (0, 1, [0, 1])


@pytest.mark.slow
@pytest.mark.usefixtures("cluster")
class TestOnRay:
    def test_results_keep_the_order_of_the_tasks(self) -> None:
        with open_workers(2) as workers:
            done = list(workers.map(weigh, range(12), 10))
        assert [number for number, _ in done] == [10 * task for task in range(12)]
        assert os.getpid() not in {pid for _, pid in done}
        assert ray.is_initialized(), "a cluster that was there is left alone"

    def test_there_are_as_many_workers_as_cpus_unless_said(self) -> None:
        with open_workers() as workers:
            assert workers.at_once == 2

    def test_tasks_wait_until_they_are_wanted(self) -> None:
        drawn: list[int] = []

        def tasks() -> Iterator[int]:
            for number in range(4, 40):
                drawn.append(number)
                yield number

        results = Workers(2).map(fail, tasks())
        assert next(results) == 4
        assert len(drawn) <= 5
        results.close()  # type: ignore[attr-defined]

    def test_a_single_task_is_done_here(self) -> None:
        """To start a process for it takes longer than most."""
        assert list(Workers(2).map(weigh, [3], 10)) == [(30, os.getpid())]
        assert list(Workers(2).map(weigh, [], 10)) == []

    def test_a_mistake_comes_back_as_it_was_raised(self) -> None:
        with pytest.raises(ConfigError, match=r"^task: 3 cannot be done; leave it out$"):
            list(Workers(2).map(fail, range(9)))


@pytest.mark.parametrize("url", ["memory://a/b.zarr", "memory://"])
def test_what_lives_in_one_process_is_not_shared(url: str) -> None:
    with pytest.raises(
        ConfigError, match=r"data set: memory://.* lives in one process, and several"
    ):
        shared_url("data set", url)


def test_shared_paths_are_absolute(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    assert shared_url("data set", "p.zarr") == str(tmp_path / "p.zarr")
    assert shared_url("data set", "s3://b/p.zarr") == "s3://b/p.zarr"


def is_drawing(pid: int) -> bool:
    """Tell whether a task of Ray is under way below a process."""
    titles = [title_of(process) for process in psutil.Process(pid).children(recursive=True)]
    return any("_draw_task" in title for title in titles)


def title_of(process: psutil.Process) -> str:
    """What ``ps`` shows of a process first."""
    with contextlib.suppress(psutil.Error):
        return str([*process.cmdline(), ""][0])
    return ""


@pytest.mark.slow
def test_an_interrupted_simulation_ends_in_one_line(tmp_path: Path) -> None:
    words = ["simulate", "pairs", str(tmp_path / "p.zarr"), "--galaxies", "20000"]
    process = subprocess.Popen(
        [sys.executable, "-m", "deblend_batch", *words],
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    wait_until(lambda: process.poll() is not None or is_drawing(process.pid))
    os.killpg(process.pid, signal.SIGINT)  # as a terminal does: to all of them
    _, said = process.communicate()
    assert process.returncode == 130, said
    assert said.splitlines()[-1].startswith("error: ")
    assert "Traceback" not in said
