"""A cluster that grows from a head without a core or a GPU, by Ray's own autoscaler, and loses a node."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
import yaml

from deblend_batch.catalog.output import Output
from deblend_batch.engine.audit.verify import verify_run
from tests.conftest import free_port
from tests.engine.test_nodes import nodes_of
from tests.support import SmallField, shards_of, wait_until

ROOT = Path(__file__).resolve().parents[2]
HEAD, GPU, CPU = "ray.head.default", "gpu", "cpu"  # the first is the provider's own
HEAD_ID = "f" * 51 + "00000"
RUN = """
import sys, yaml
from pathlib import Path
from deblend_batch.engine.run import process_field
from tests.engine.slow_models import slow_model

config, fast = sys.argv[1:]
print(process_field(yaml.safe_load(Path(config).read_text()), loader=slow_model(Path(fast))).state)
"""


def launcher(gcs: str) -> dict[str, Any]:
    """Return a cluster launcher's file whose nodes are processes of this machine.

    As ``ray.cluster_utils.AutoscalingCluster`` would; it needs a file that Ray's packages leave out, and
    begins and ends with ``ray stop --force``, which kills every Ray of the machine.
    """
    store = {"object_store_memory": 80_000_000}
    kinds = {
        HEAD: ({}, 0),
        GPU: ({"CPU": 1, "GPU": 1, **store}, 2),
        CPU: ({"CPU": 4, **store}, 1),
    }
    return {
        "cluster_name": "grows",
        "max_workers": 3,
        "upscaling_speed": 10.0,
        "idle_timeout_minutes": 5,
        "provider": {
            "type": "external",
            "module": "ray.autoscaler._private.fake_multi_node.node_provider.FakeMultiNodeProvider",
            "gcs_address": gcs,
            "head_node_id": HEAD_ID,
            "launch_multiple": True,
            "use_node_id_as_ip": True,
            "disable_node_updaters": True,
            "disable_launch_config_check": True,
            "foreground_node_launch": True,
        },
        "available_node_types": {
            name: {"resources": has, "node_config": {}, "min_workers": 0, "max_workers": most}
            for name, (has, most) in kinds.items()
        },
        "head_node_type": HEAD,
        "auth": {},
        "file_mounts": {},
        "cluster_synced_files": [],
        "initialization_commands": [],
        "setup_commands": [],
        "head_setup_commands": [],
        "worker_setup_commands": [],
        "head_start_ray_commands": [],
        "worker_start_ray_commands": [],
    }


@contextlib.contextmanager
def growing_head(folder: Path) -> Iterator[tuple[str, int]]:
    """Start a head that has nothing, with Ray's autoscaler; give its address, and its pid."""
    gcs = f"127.0.0.1:{free_port()}"
    (folder / "launcher.yaml").write_text(yaml.safe_dump(launcher(gcs)))
    command = [str(Path(sys.executable).parent / "ray"), "start", "--head", "--block"]
    command += ["--num-cpus=0", "--num-gpus=0", f"--port={gcs.split(':')[1]}"]
    command += ["--node-ip-address=127.0.0.1", "--include-dashboard=false"]
    command += ["--include-log-monitor=false"]
    command += [f"--dashboard-agent-listen-port={free_port()}", "--object-store-memory=80000000"]
    command += [f"--autoscaling-config={folder / 'launcher.yaml'}"]
    settings = {
        "AUTOSCALER_UPDATE_INTERVAL_S": "1",
        "RAY_FAKE_CLUSTER": "1",
        "RAY_enable_autoscaler_v2": "1",
        "RAY_CLOUD_INSTANCE_ID": HEAD_ID,
        "RAY_OVERRIDE_NODE_ID_FOR_TESTING": HEAD_ID,
        "RAY_NODE_TYPE_NAME": HEAD,
    }
    with (folder / "head.log").open("wb") as log:
        head = subprocess.Popen(
            command,
            stdout=log,
            stderr=log,
            env={**os.environ, **settings, "PYTHONPATH": str(ROOT)},
            start_new_session=True,
        )
    nodes = psutil.Process(head.pid)
    try:
        wait_until(lambda: b"Ray runtime started" in (folder / "head.log").read_bytes())
        yield gcs, head.pid
    finally:
        left = nodes.children(recursive=True)
        head.kill()  # an orderly end takes half a minute
        for process in left:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
        head.wait()
        psutil.wait_procs(left, timeout=20)


def raylet_of(head: int, node: str) -> psutil.Process:
    """Return the process that is a node of the cluster."""
    for process in psutil.Process(head).children(recursive=True):
        with contextlib.suppress(psutil.Error):
            named = process.environ().get("RAY_OVERRIDE_NODE_ID_FOR_TESTING")
            if process.name() == "raylet" and named == node:
                return process
    raise LookupError(node)


@pytest.mark.slow
def test_nodes_come_on_demand_and_one_that_is_taken_away_is_replaced(
    small_field: SmallField, undisturbed_small_tiles: dict[str, bytes], tmp_path: Path
) -> None:
    """The head has no core and no GPU, two nodes come at once; the rows are those of an undisturbed run."""
    output, fast = tmp_path / "out", tmp_path / "fast"
    engine = {"gpus_per_actor": 1, "tiles_in_flight": 1, "actors": 2, "autoscale": True}
    config = small_field.on_ray(str(output), tiles={"size": 64}, engine=engine)
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(config))
    with growing_head(tmp_path) as (address, head), (tmp_path / "run.log").open("wb") as log:
        run = subprocess.Popen(
            [sys.executable, "-c", RUN, str(tmp_path / "config.yaml"), str(fast)],
            stdout=log,
            stderr=log,
            cwd=ROOT,
            env={**os.environ, "RAY_ADDRESS": address, "PYTHONPATH": str(ROOT)},
        )
        try:
            wait_until(lambda: len(nodes_of(output)) == 2)
            raylet_of(head, min(nodes_of(output))).kill()
            wait_until(lambda: len(nodes_of(output)) == 3)
            fast.touch()
            assert run.wait() == 0, (tmp_path / "run.log").read_text()
        finally:
            run.kill()
            run.wait()
    assert shards_of(output) == undisturbed_small_tiles
    assert verify_run(Output(str(output)), recompute=0).problems == ()
    totals = json.loads((output / "run.json").read_text())["totals"]
    assert totals["retries"]["worker"] >= 1
    assert HEAD_ID not in nodes_of(output)
