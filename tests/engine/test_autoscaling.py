"""A cluster that grows from a head without a core or a GPU, by Ray's own autoscaler, and loses a node."""

from __future__ import annotations

from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
GPU, CPU = "gpu", "cpu"
RUN = """
import sys, yaml
from pathlib import Path
from deblend_batch.engine.run import process_field
from tests.engine.test_nodes import slow_model

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
        "head": ({}, 0),
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
            "head_node_id": "f" * 51 + "00000",
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
        "head_node_type": "head",
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
