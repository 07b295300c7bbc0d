"""The cluster launcher's files: Ray's own schema, EC2's own parameters, and what keeps strangers out."""

from __future__ import annotations

import copy
import gzip
import json
import re
from pathlib import Path
from typing import Any

import botocore  # type: ignore[import-untyped]
import pytest
import ray.autoscaler
import yaml
from botocore.model import ServiceModel  # type: ignore[import-untyped]
from botocore.validate import ParamValidator  # type: ignore[import-untyped]
from ray.autoscaler._private.util import prepare_config, validate_config

from deblend_batch.config import EngineConfig
from tests.deploy.reading import DEPLOY, ROOT, complaints, document

AWS, GCP = ROOT / "ray-cluster.yaml", DEPLOY / "gcp" / "ray-cluster.yaml"
LAUNCHERS = [pytest.param(AWS, id="aws"), pytest.param(GCP, id="gcp")]


@pytest.fixture(scope="module")
def schema() -> Any:
    """Ray's schema, closed also where it leaves the provider's options open."""
    folder = Path(ray.autoscaler.__file__).parent
    loaded = json.loads((folder / "ray-schema.json").read_text())
    loaded["properties"]["provider"]["additionalProperties"] = False
    return loaded


@pytest.mark.parametrize("path", LAUNCHERS)
def test_a_launcher_file_has_ray_s_keys(path: Path, schema: Any) -> None:
    assert complaints(document(path), schema) == []


@pytest.mark.parametrize("path", LAUNCHERS)
def test_ray_takes_the_file_and_adds_no_command_of_its_own(path: Path) -> None:
    content = document(path)
    prepared = prepare_config(copy.deepcopy(content))
    validate_config(prepared)
    setup = content["setup_commands"]
    assert prepared["head_setup_commands"] == setup + content["head_setup_commands"]
    assert prepared["worker_setup_commands"] == setup
    assert prepared["initialization_commands"] == []
    largest = {name: node["max_workers"] for name, node in prepared["available_node_types"].items()}
    assert largest == {"head": 0, "gpu": 4, "cpu": 8}


@pytest.mark.parametrize("path", LAUNCHERS)
@pytest.mark.parametrize(
    ("section", "key", "wrong"),
    [
        ((), "setup_commands", "setup_comands"),
        ((), "max_workers", "max_worker"),
        (("provider",), "region", "regions"),
        (("auth",), "ssh_user", "ssh_usr"),
        (("available_node_types", "gpu"), "min_workers", "min_worker"),
    ],
)
def test_a_misspelt_key_is_refused(
    path: Path, section: tuple[str, ...], key: str, wrong: str, schema: Any
) -> None:
    content = copy.deepcopy(document(path))
    place = content
    for part in section:
        place = place[part]
    place[wrong] = place.pop(key)
    assert any(wrong in each for each in complaints(content, schema))


@pytest.fixture(scope="module")
def run_instances() -> Any:
    """The parameters with which EC2 launches nodes."""
    model = max(Path(botocore.__file__).parent.glob("data/ec2/*/service-2.json.gz"))
    described = ServiceModel(json.loads(gzip.decompress(model.read_bytes())))
    return described.operation_model("RunInstances").input_shape


def run_instances_complaints(node_config: dict[str, Any], shape: Any) -> str:
    """Return what the EC2 client would find wrong with a node."""
    report = ParamValidator().validate({**node_config, "MinCount": 1, "MaxCount": 1}, shape)
    return str(report.generate_report())


def test_aws_nodes_are_what_ec2_takes(run_instances: Any) -> None:
    nodes = document(AWS)["available_node_types"]
    for node in nodes.values():
        assert run_instances_complaints(node["node_config"], run_instances) == ""
    misspelt = {"InstanceMarketOption": {"MarketType": "spot"}}
    assert "InstanceMarketOption" in run_instances_complaints(misspelt, run_instances)


@pytest.mark.parametrize("path", LAUNCHERS)
def test_every_node_asks_for_the_token_and_the_dashboard_stays_on_loopback(path: Path) -> None:
    content = document(path)
    starts = content["head_start_ray_commands"] + content["worker_start_ray_commands"]
    starts = [command for command in starts if "ray start" in command]
    assert len(starts) == 2
    assert all("RAY_AUTH_MODE=token" in command for command in starts)
    (head,) = [command for command in starts if "--head" in command]
    assert re.findall(r"--dashboard-host[= ](\S+)", head) == ["127.0.0.1"]
    assert content["file_mounts"]["~/.ray/auth_token"] == "~/.ray/auth_token"


@pytest.mark.parametrize("path", LAUNCHERS)
def test_workers_are_spot_nodes_on_demand_and_the_head_is_neither(path: Path) -> None:
    nodes = document(path)["available_node_types"]
    spot = {
        name: re.search("spot", json.dumps(node), re.IGNORECASE) is not None
        for name, node in nodes.items()
    }
    assert spot == {"head": False, "gpu": True, "cpu": True}
    assert nodes["head"]["resources"]["GPU"] == 0
    assert {name: nodes[name]["min_workers"] for name in ("gpu", "cpu")} == {"gpu": 0, "cpu": 0}
    assert nodes["gpu"]["resources"]["GPU"] == 1
    assert "GPU" not in nodes["cpu"]["resources"]


@pytest.mark.parametrize("path", LAUNCHERS)
def test_the_engine_section_in_the_comment_is_one(path: Path) -> None:
    comment = re.findall(r"^#   ( *\S.*)$", path.read_text(), re.MULTILINE)
    (values,) = yaml.safe_load("\n".join(comment)).values()
    engine = EngineConfig.model_validate(values)
    gpu = document(path)["available_node_types"]["gpu"]
    assert engine.autoscale
    assert engine.actors == gpu["max_workers"] * gpu["resources"]["GPU"]


@pytest.mark.parametrize("path", LAUNCHERS)
def test_nodes_install_the_pins_and_paths_that_exist(path: Path) -> None:
    content = document(path)
    commands = content["setup_commands"] + content["head_setup_commands"]
    installs = [command for command in commands if "pip install" in command]
    assert len(installs) == 3
    assert all("-c ~/deblend-batch/constraints.txt" in command for command in installs)
    assert content["file_mounts"]["~/deblend-batch"] == "."
    assert (ROOT / "constraints.txt").is_file()
