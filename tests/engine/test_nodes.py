"""Nodes come and go in the middle of a run."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import ray

from deblend_batch.catalog.output import Output
from deblend_batch.engine.audit.verify import verify_run
from deblend_batch.engine.run import process_field
from tests.conftest import RayHead
from tests.engine.slow_models import slow_model
from tests.support import SmallField, shards_of, wait_until

pytestmark = pytest.mark.usefixtures("cluster")


@contextmanager
def joined_node(head: RayHead, log: Path) -> Iterator[subprocess.Popen[bytes]]:
    """Start a second node of the session's cluster, with a kind of GPU that the head has none of."""
    command = [str(Path(sys.executable).parent / "ray"), "start", f"--address={head.address}"]
    command += ["--block", "--num-cpus=1", "--num-gpus=1", "--object-store-memory=100000000"]
    with log.open("wb") as sink:
        node = subprocess.Popen(command, stdout=sink, stderr=sink, start_new_session=True)
    try:
        yield node
    finally:
        if node.poll() is None:
            os.killpg(node.pid, signal.SIGKILL)
            node.wait(30)
        wait_until(lambda: len(live_nodes()) == 1, 60)


def live_nodes() -> list[str]:
    """Return the ids of the nodes that are alive."""
    return [node["NodeID"] for node in ray.nodes() if node["Alive"]]


def nodes_of(output: Path) -> set[str]:
    """Return the nodes on which the tiles of a run were made."""
    receipts = [json.loads(path.read_text()) for path in (output / "ledger").iterdir()]
    return {receipt["worker"]["node"] for receipt in receipts}


@pytest.mark.slow
@pytest.mark.parametrize("notice", [False, True], ids=["without notice", "with notice"])
def test_a_node_that_joins_gets_work_and_one_that_goes_costs_nothing(
    head: RayHead, small_field: SmallField, tmp_path: Path, notice: bool
) -> None:
    process_field(small_field.config(str(tmp_path / "calm"), tiles={"size": 64}))
    output = tmp_path / "out"
    engine = {"gpus_per_actor": 1, "tiles_in_flight": 1}
    config = small_field.on_ray(str(output), tiles={"size": 64}, engine=engine)
    before = set(live_nodes())
    found: list[Any] = []
    with joined_node(head, tmp_path / "node.log") as node:
        run = threading.Thread(
            target=lambda: found.append(process_field(config, loader=slow_model(tmp_path / "fast")))
        )
        run.start()
        wait_until(lambda: len(live_nodes()) == 2, 60)
        wait_until(lambda: (output / "ledger").exists() and bool(nodes_of(output) - before), 90)
        if notice:
            drain(head, set(live_nodes()) - before)
            time.sleep(12)  # what it held is done, and it is given nothing more
        os.killpg(node.pid, signal.SIGKILL)
        (tmp_path / "fast").touch()
        run.join(180)
    (summary,) = found
    assert summary.totals["pairs"]["pending"] == summary.totals["pairs"]["quarantined"] == 0
    assert (summary.totals["retries"].get("worker", 0) == 0) is notice
    assert shards_of(output) == shards_of(tmp_path / "calm")
    assert verify_run(Output(str(output))).problems == ()


def drain(head: RayHead, nodes: set[str]) -> None:
    """Tell Ray that spot nodes will be taken away, as its autoscaler does."""
    for node in nodes:
        command = [str(Path(sys.executable).parent / "ray"), "drain-node", f"--node-id={node}"]
        command += [f"--address={head.address}", "--reason=DRAIN_NODE_REASON_PREEMPTION"]
        command += ["--reason-message=spot", "--deadline-remaining-seconds=30"]
        subprocess.run(command, env=head.environment(), check=True, capture_output=True)
