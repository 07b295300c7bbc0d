"""What tests share: a small field with known pairs, one Ray cluster, and the validation data."""

from __future__ import annotations

import contextlib
import gc
import os
import secrets
import signal
import socket
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

# A fifth of the imports' time would be searches for garbage, of which they make none.
gc.disable()
# Each of the many processes that tests start would compile the package anew.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
sys.dont_write_bytecode = False
_TOKEN = secrets.token_hex(32)
os.environ["RAY_AUTH_MODE"] = "token"
os.environ["RAY_AUTH_TOKEN"] = _TOKEN
os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
os.environ.setdefault("OMP_NUM_THREADS", "1")
# hats would compile for ten seconds what then runs for a moment, in each process that publishes.
os.environ["NUMBA_DISABLE_JIT"] = "1"
# Ray's workers would give way to every other process, and so to the tests that need no Ray.
os.environ["RAY_worker_niceness"] = "0"  # noqa: SIM112 (Ray's spelling)
# An actor beside each group of replicas, which looks for notices that no test gives.
os.environ["RAY_TRAIN_ENABLE_PREEMPTION_WATCHER"] = "0"
# On a busy machine Ray's own minute does not suffice.
os.environ["RAY_DASHBOARD_STARTUP_TIMEOUT_S"] = "600"
# Ray's own 10 s are longer than a test's whole run.
os.environ["RAY_metrics_report_interval_ms"] = "2000"  # noqa: SIM112 (Ray's spelling)

import numpy as np
import psutil
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import ray
from hypothesis import settings

from deblend_batch.engine.crew.fork_server import FORK_SERVER
from deblend_batch.engine.run import process_field
from deblend_batch.field.layout import create_field, finish_field
from tests.scheduling import ON_RAY, OneRayCluster
from tests.support import (
    SmallField,
    gaussian_image,
    make_meta,
    member,
    shards_of,
    wait_until,
    write_tiny_model,
)

settings.register_profile("suite", deadline=None)  # a busy machine is no failure
settings.load_profile("suite")

# A shell that starts the suite in the background (``&``) has it ignore Ctrl-C, and so what it starts.
signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Iterator[None]:
    """Collect garbage once all is imported, and look no more at what that has made."""
    try:
        return (yield)
    finally:
        gc.freeze()
        gc.enable()


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> OneRayCluster:
    """Share the suite by file, with few Ray clusters at a time; what takes long begins first."""
    config.option.loadscopereorder = False  # the order of the items is by how long they take
    return OneRayCluster(config, log)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put long files first; refuse a test on the Ray cluster whose file the scheduler does not know."""
    slow = {item.path for item in items if item.get_closest_marker("slow")}
    items.sort(key=lambda item: (not item.nodeid.startswith(ON_RAY), item.path not in slow))
    for item in items:
        values = getattr(getattr(item, "callspec", None), "params", {})
        needs_ray = "head" in getattr(item, "fixturenames", ()) and "head" not in values
        if needs_ray and not item.nodeid.startswith(ON_RAY):
            raise pytest.UsageError(
                f"{item.nodeid} needs Ray: name its file in tests/scheduling.py"
            )


_RAY = contextlib.ExitStack()
"""The session's Ray head, and this process as its driver; both take CPU time while they are idle."""


@pytest.hookimpl(wrapper=True)
def pytest_runtest_teardown(nextitem: pytest.Item | None) -> Iterator[None]:
    """End the session's Ray with the last test that needs it."""
    try:
        yield
    finally:
        if nextitem is None or not nextitem.nodeid.startswith(ON_RAY):
            _RAY.close()


@pytest.fixture(scope="session")
def shared() -> Path:
    """The validation data beside the checkout; absent from a plain clone."""
    folder = Path(__file__).resolve().parents[2] / "shared"
    if not folder.is_dir():
        pytest.skip("the validation data (../shared) is not beside this checkout")
    return folder


def free_port() -> int:
    """Return a port of loopback that nothing listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@dataclass(frozen=True)
class RayHead:
    """A running head node: where drivers and jobs find it, and its agent, which takes jobs too."""

    address: str
    dashboard: str
    agent: str

    def environment(self) -> dict[str, str]:
        """Return the environment of a process that uses it."""
        return {**os.environ, "RAY_ADDRESS": self.address}


@pytest.fixture(scope="session")
def head(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RayHead]:
    """One Ray head for all tests of a process, started as a user would: 2 CPUs and 2 logical GPUs."""
    port, dashboard, agent = free_port(), free_port(), free_port()
    log = tmp_path_factory.mktemp("ray") / "head.log"
    command = [str(Path(sys.executable).parent / "ray"), "start", "--head", "--block"]
    command += ["--num-cpus=2", "--num-gpus=2", f"--port={port}", "--dashboard-host=127.0.0.1"]
    # Ray's default for this one is fixed: another Ray on the machine would take the job agent away.
    command += [f"--dashboard-agent-listen-port={agent}"]
    command += [f"--dashboard-port={dashboard}", "--object-store-memory=500000000"]
    # It would read every log of the session again and again, for drivers that want none of them.
    command += ["--include-log-monitor=false"]
    environment = {**os.environ, "RAY_JOB_STOP_WAIT_TIME_S": "60"}  # as the deploy files do
    with log.open("wb") as sink:
        process = subprocess.Popen(command, stdout=sink, stderr=sink, env=environment)
    with _RAY:  # which is left here only where a session is broken off
        _RAY.callback(_end, process)
        _wait_for(f"http://127.0.0.1:{dashboard}/api/version", process, log)
        yield RayHead(
            f"127.0.0.1:{port}", f"http://127.0.0.1:{dashboard}", f"http://127.0.0.1:{agent}"
        )


def _end(process: subprocess.Popen[bytes]) -> None:
    """Kill a head and all that it has started, which `ray stop` takes half a minute for."""
    for left in [*psutil.Process(process.pid).children(recursive=True), process]:
        with contextlib.suppress(psutil.NoSuchProcess):  # it went with its parent
            left.kill()
    process.wait()


def _wait_for(url: str, process: subprocess.Popen[bytes], log: Path) -> None:
    request = urllib.request.Request(url, headers={"Authorization": f"Bearer {_TOKEN}"})

    def takes_drivers() -> bool:
        if process.poll() is not None:
            pytest.fail(f"the Ray head did not start:\n{log.read_text()[-3000:]}")
        with contextlib.suppress(OSError):
            urllib.request.urlopen(request, timeout=5).close()
            return "Ray runtime started" in log.read_text()
        return False

    wait_until(takes_drivers)


@pytest.fixture(scope="session", autouse=True)
def fork_server() -> Iterator[None]:
    """What the workers of all runs without Ray are forked from: it imports only once."""
    FORK_SERVER.hold()
    yield
    FORK_SERVER.release()


@pytest.fixture(scope="session")
def cluster(head: RayHead) -> None:
    """This process as a driver on the session's cluster."""
    ray.init(address=head.address, log_to_driver=False, logging_level="error")
    _RAY.callback(ray.shutdown)


@pytest.fixture(scope="session")
def small_field(tmp_path_factory: pytest.TempPathFactory, tiny_model: str) -> SmallField:
    """500 x 600 px, 60 pairs and 40 lone sources, some on the borders and corners of 200 px tiles."""
    folder = tmp_path_factory.mktemp("small")
    rng = np.random.default_rng(3)
    shape = (500, 600)
    first = rng.uniform(2, np.array(shape) - 3, (60, 2))
    first[:6] = [
        (199.5, 199.5),
        (199.6, 400.2),
        (400.0, 399.4),
        (0.2, 0.3),
        (499.2, 598.9),
        (200.1, 30.0),
    ]
    angle, distance = rng.uniform(0, 2 * np.pi, 60), rng.uniform(4, 15, 60)
    second = first + np.stack([np.sin(angle), np.cos(angle)], -1) * distance[:, None]
    lone = rng.uniform(2, np.array(shape) - 3, (40, 2))
    yx = np.concatenate([first, np.clip(second, 0, np.array(shape) - 1), lone])
    mag = rng.uniform(20, 22.5, len(yx)).astype(np.float32)
    ids = rng.permutation(len(yx)).astype(np.int64) + 1000
    flux = 10 ** (-0.4 * (mag.astype(np.float64) - 25.96))
    url = str(folder / "field.zarr")
    group = create_field(url, make_meta(), shape, with_variance=False)
    member(group, "image")[0] = gaussian_image(shape, yx, flux)
    finish_field(group, make_meta())
    table = pa.table({"id": ids, "x": yx[:, 1], "y": yx[:, 0], "mag": mag})
    pq.write_table(table, str(folder / "detections.parquet"))
    return SmallField(url, str(folder / "detections.parquet"), ids, yx, mag, tiny_model)


def _undisturbed(
    field: SmallField, factory: pytest.TempPathFactory, **changes: Any
) -> dict[str, bytes]:
    output = factory.mktemp("undisturbed") / "out"
    assert process_field(field.config(str(output), **changes)).exit_code == 0
    return shards_of(output)


@pytest.fixture(scope="session")
def undisturbed(
    small_field: SmallField, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, bytes]:
    """The shards of a run of the small field that nothing disturbed, without Ray."""
    return _undisturbed(small_field, tmp_path_factory)


@pytest.fixture(scope="session")
def undisturbed_small_tiles(
    small_field: SmallField, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, bytes]:
    """The same in 80 tiles of 64 px."""
    return _undisturbed(small_field, tmp_path_factory, tiles={"size": 64})


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> str:
    """URL of a small untrained model with 32 px stamps."""
    return write_tiny_model(str(tmp_path_factory.mktemp("model") / "tiny.safetensors"))
