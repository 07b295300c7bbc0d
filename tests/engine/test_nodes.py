"""A run that was begun without Ray goes on there, while nodes come and go."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import ray
from ray.util.state import list_actors

from deblend_batch.catalog.output import Output
from deblend_batch.engine.audit.verify import verify_run
from deblend_batch.engine.driver import roster
from deblend_batch.engine.run import process_field
from deblend_batch.errors import InterruptedRunError
from tests.conftest import RayHead
from tests.engine.slow_models import slow_model
from tests.engine.stopped import StoppedMeter
from tests.support import SmallField, shards_of, wait_until

pytestmark = pytest.mark.usefixtures("cluster")


@contextmanager
def joined_node(head: RayHead, log: Path) -> Iterator[subprocess.Popen[bytes]]:
    """Start a second node of the session's cluster, with a kind of GPU that the head has none of."""
    command = [str(Path(sys.executable).parent / "ray"), "start", f"--address={head.address}"]
    command += ["--block", "--num-cpus=1", "--num-gpus=1", "--object-store-memory=100000000"]
    command += ["--include-log-monitor=false"]
    with log.open("wb") as sink:
        node = subprocess.Popen(command, stdout=sink, stderr=sink, start_new_session=True)
    try:
        yield node
    finally:
        if node.poll() is None:
            os.killpg(node.pid, signal.SIGKILL)
            node.wait(30)
        wait_until(lambda: len(live_nodes()) == 1)


def live_nodes() -> list[str]:
    """Return the ids of the nodes that are alive."""
    return [node["NodeID"] for node in ray.nodes() if node["Alive"]]


def nodes_of(output: Path) -> set[str]:
    """Return the nodes on which the tiles of a run were made."""
    return {worker["node"] for worker in workers_of(output, None)}


def gpus_of(output: Path, nodes: set[str]) -> set[tuple[tuple[int, ...], str]]:
    """Return the GPUs of every worker on some nodes that made a tile, and what CUDA saw there."""
    return {
        (tuple(worker["gpu_ids"]), worker["cuda_visible_devices"])
        for worker in workers_of(output, nodes)
    }


def workers_of(output: Path, nodes: set[str] | None) -> list[dict[str, Any]]:
    """Return who made each tile of a run, on some nodes or on all."""
    workers = [json.loads(path.read_text())["worker"] for path in output.glob("ledger/*.json")]
    return [worker for worker in workers if nodes is None or worker["node"] in nodes]


@pytest.mark.slow
def test_a_run_goes_on_where_a_node_joins_and_one_that_goes_with_notice_costs_nothing(
    head: RayHead,
    small_field: SmallField,
    undisturbed_small_tiles: dict[str, bytes],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """One that goes without notice is taken away in ``test_autoscaling.py``; each actor has its own GPU.

    The first tiles are made without Ray, and stand.
    """
    monkeypatch.setattr(roster, "_LOOK_SECONDS", 0.5)
    output = tmp_path / "out"
    begun = small_field.config(str(output), tiles={"size": 64}, engine={"actors": 1})
    with pytest.raises(InterruptedRunError):
        process_field(begun, progress=StoppedMeter("pairs"))
    assert nodes_of(output) == {"local"}
    first = {path: path.read_bytes() for path in output.glob("ledger/*.json")}
    engine = {"gpus_per_actor": 1, "tiles_in_flight": 1}
    config = small_field.on_ray(str(output), tiles={"size": 64}, engine=engine)
    before = set(live_nodes())
    found: list[Any] = []
    with joined_node(head, tmp_path / "node.log") as node:
        run = threading.Thread(
            target=lambda: found.append(process_field(config, loader=slow_model(tmp_path / "fast")))
        )
        run.start()
        wait_until(lambda: node.poll() is not None or len(live_nodes()) == 2)
        assert node.poll() is None, (tmp_path / "node.log").read_text()[-2000:]
        wait_until(lambda: bool(nodes_of(output) - before - {"local"}))
        wait_until(lambda: len({worker["pid"] for worker in workers_of(output, before)}) == 2)
        (joined,) = set(live_nodes()) - before
        drain(head, joined)
        # What it held is done, it is given nothing more, and the driver ends the actor.
        wait_until(lambda: not actors_on(head, joined))
        os.killpg(node.pid, signal.SIGKILL)
        (tmp_path / "fast").touch()
        run.join()
    (summary,) = found
    assert summary.totals["pairs"]["pending"] == summary.totals["pairs"]["quarantined"] == 0
    assert summary.totals["retries"].get("worker", 0) == 0
    assert gpus_of(output, before) == {((0,), "0"), ((1,), "1")}
    assert {worker["torch_threads"] for worker in workers_of(output, None)} == {1}
    assert {path: path.read_bytes() for path in first} == first
    assert shards_of(output) == undisturbed_small_tiles
    assert verify_run(Output(str(output)), recompute=0).problems == ()


def actors_on(head: RayHead, node: str) -> list[Any]:
    """Return the actors that live on a node."""
    alive = [("node_id", "=", node), ("state", "=", "ALIVE")]
    return list(list_actors(head.dashboard, filters=alive))


def drain(head: RayHead, node: str) -> None:
    """Tell Ray that a spot node will be taken away, as its autoscaler does."""
    command = [str(Path(sys.executable).parent / "ray"), "drain-node", f"--node-id={node}"]
    command += [f"--address={head.address}", "--reason=DRAIN_NODE_REASON_PREEMPTION"]
    command += ["--reason-message=spot", "--deadline-remaining-seconds=30"]
    subprocess.run(command, env=head.environment(), check=True, capture_output=True)
