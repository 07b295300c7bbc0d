"""The Kubernetes objects: KubeRay's schemas without room for unknown fields, and what they promise."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from deblend_batch.config import load_config
from tests.deploy.reading import (
    KUBERNETES,
    complaints,
    document,
    documents,
    mappings,
    pinned,
)

BASE = KUBERNETES / "base"
CLUSTER = document(BASE / "ray-cluster.yaml")
JOB = document(KUBERNETES / "components" / "job" / "from-cluster" / "ray-job.yaml")
JOB["spec"]["rayClusterSpec"] = CLUSTER["spec"]  # as the kustomization beside it does
POLICIES = documents(BASE / "network-policies.yaml")
LABELS = {"app.kubernetes.io/name": "deblend-batch"}
GROUPS = CLUSTER["spec"]["workerGroupSpecs"]
RAY_PODS = [CLUSTER["spec"]["headGroupSpec"]["template"], *(group["template"] for group in GROUPS)]
PODS = [*RAY_PODS, JOB["spec"]["submitterPodTemplate"]]


@pytest.mark.parametrize("content", [CLUSTER, JOB], ids=["cluster", "job"])
def test_kuberay_takes_every_field(content: Any, schemas: dict[str, Any]) -> None:
    assert complaints(content, schemas[content["kind"]]) == []


@pytest.mark.parametrize(
    ("path", "key", "wrong"),
    [
        (("spec",), "backoffLimit", "backofLimit"),
        (("spec",), "activeDeadlineSeconds", "activeDeadlineSecond"),
        (("spec", "rayClusterSpec"), "authOptions", "authOption"),
        (("spec", "rayClusterSpec", "workerGroupSpecs", 0), "minReplicas", "minReplica"),
        (("spec", "rayClusterSpec", "headGroupSpec", "template", "metadata"), "labels", "label"),
        (("spec", "submitterPodTemplate", "spec", "securityContext"), "runAsUser", "runAsUsr"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_misspelt_key_is_refused(
    path: tuple[Any, ...], key: str, wrong: str, schemas: dict[str, Any]
) -> None:
    content = copy.deepcopy(JOB)
    place = content
    for part in path:
        place = place[part]
    place[wrong] = place.pop(key)
    assert any(
        f"'{wrong}' was unexpected" in each for each in complaints(content, schemas["RayJob"])
    )


def test_a_missing_group_name_and_a_wrong_type_are_refused(schemas: dict[str, Any]) -> None:
    content = copy.deepcopy(CLUSTER)
    del content["spec"]["workerGroupSpecs"][0]["groupName"]
    content["spec"]["workerGroupSpecs"][1]["maxReplicas"] = "8"
    found = complaints(content, schemas["RayCluster"])
    assert len(found) == 2
    assert "'groupName' is a required property" in found[0]
    assert "'8' is not of type 'integer'" in found[1]


def test_policies_have_the_fields_of_network_policies(schemas: dict[str, Any]) -> None:
    # KubeRay's schema holds the same rules, for the policies that it makes itself.
    own = schemas["RayCluster"]["properties"]["spec"]["properties"]["networkPolicy"]
    rules = own["properties"]["head"]["properties"]
    overlays = KUBERNETES.glob("overlays/*/metadata-server.yaml")
    for policy in [*POLICIES, *(document(path) for path in overlays)]:
        assert set(policy["spec"]) <= {"podSelector", "policyTypes", "ingress", "egress"}
        assert complaints(policy["spec"].get("ingress", []), rules["ingressRules"]) == []
        assert complaints(policy["spec"].get("egress", []), rules["egressRules"]) == []
    misspelt: Any = [{"from": [{"podSelectors": {}}]}]
    assert complaints(misspelt, rules["ingressRules"]) != []


def containers() -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield every container that asks for resources."""
    for pod in PODS:
        for container in pod["spec"]["containers"]:
            yield container["name"], container
    yield "autoscaler", CLUSTER["spec"]["autoscalerOptions"]


@pytest.mark.parametrize(("name", "container"), list(containers()))
def test_containers_get_what_they_ask_for_and_no_rights(
    name: str, container: dict[str, Any]
) -> None:
    assert container["resources"]["requests"] == container["resources"]["limits"]
    assert {"cpu", "memory"} <= set(container["resources"]["limits"])
    assert container["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "capabilities": {"drop": ["ALL"]},
    }


@pytest.mark.parametrize(
    "pod", PODS, ids=lambda pod: pod["metadata"]["labels"].get("app.kubernetes.io/component")
)
def test_pods_run_without_root(pod: dict[str, Any]) -> None:
    context = pod["spec"]["securityContext"]
    assert context["runAsNonRoot"] is True
    assert context["runAsUser"] == 1000  # the image's user
    assert context["seccompProfile"] == {"type": "RuntimeDefault"}
    assert not {"hostNetwork", "hostPID", "hostIPC"} & set(pod["spec"])
    assert all("hostPath" not in volume for volume in pod["spec"].get("volumes", []))


def test_ray_pods_are_probed() -> None:
    for pod in RAY_PODS:
        (container,) = pod["spec"]["containers"]
        for probe in ("startupProbe", "readinessProbe", "livenessProbe"):
            assert container[probe]["httpGet"] == {"path": "/api/healthz", "port": 52365}
            assert container[probe]["failureThreshold"] * container[probe]["periodSeconds"] >= 60


def test_the_token_comes_from_a_secret() -> None:
    assert CLUSTER["spec"]["authOptions"] == {"mode": "token", "secretName": "deblend-batch-token"}
    files = [path.read_text() for path in KUBERNETES.rglob("*.yaml")]
    assert not any("RAY_AUTH_TOKEN" in text or "kind: Secret" in text for text in files)


def test_the_head_is_reached_from_inside_alone_and_runs_no_tasks() -> None:
    head = CLUSTER["spec"]["headGroupSpec"]
    assert head["serviceType"] == "ClusterIP"
    assert head["rayStartParams"]["num-cpus"] == "0"
    assert "enableIngress" not in head


def test_the_cluster_grows_from_nothing_and_the_job_ends() -> None:
    spec = CLUSTER["spec"]
    assert spec["rayVersion"] == pinned("ray")
    assert spec["enableInTreeAutoscaling"] is True
    assert {group["groupName"]: group["minReplicas"] for group in GROUPS} == {"gpu": 0, "cpu": 0}
    gpus = [
        group["template"]["spec"]["containers"][0]["resources"]["limits"].get("nvidia.com/gpu")
        for group in GROUPS
    ]
    assert gpus == ["1", None]
    job = JOB["spec"]
    assert job["backoffLimit"] > 0
    assert job["activeDeadlineSeconds"] > 0
    assert job["shutdownAfterJobFinishes"] is True


def test_every_pod_is_under_the_policy_and_strangers_reach_no_port_of_ray() -> None:
    everyone = POLICIES[0]["spec"]
    assert everyone["podSelector"] == {"matchLabels": LABELS}
    assert everyone["policyTypes"] == ["Ingress", "Egress"]
    for pod in PODS:
        assert pod["metadata"]["labels"].items() >= LABELS.items()
    own = [{"podSelector": {"matchLabels": LABELS}}]
    ports_of_others = [
        sorted(port["port"] for port in rule["ports"])  # no ports would be all of them
        for policy in POLICIES
        for rule in policy["spec"]["ingress"]
        if rule["from"] != own
    ]
    assert ports_of_others == [[8080], [8265]]
    senders = [s for p in POLICIES for rule in p["spec"]["ingress"] for s in rule["from"]]
    assert all(set(sender) <= {"podSelector", "namespaceSelector"} for sender in senders)
    assert all(selector for sender in senders for selector in sender.values())


def test_pods_reach_stores_and_names_and_no_metadata_of_the_node() -> None:
    ports = set()
    for policy in POLICIES:
        for rule in policy["spec"]["egress"]:
            assert rule["to"]
            for receiver in rule["to"]:
                if "ipBlock" in receiver:
                    assert receiver["ipBlock"]["except"] == ["169.254.0.0/16"]
                if receiver != {"podSelector": {"matchLabels": LABELS}}:
                    ports |= {port["port"] for port in rule["ports"]}
    assert ports == {53, 443, 6443}


def test_workers_hold_no_token_of_the_kubernetes_api() -> None:
    accounts = {
        each["metadata"]["name"]: each for each in documents(BASE / "service-accounts.yaml")
    }
    used = [pod["spec"].get("serviceAccountName") for pod in RAY_PODS]
    assert used == ["deblend-batch-head", "deblend-batch-worker", "deblend-batch-worker"]
    assert accounts["deblend-batch-worker"]["automountServiceAccountToken"] is False
    assert JOB["spec"]["submitterPodTemplate"]["spec"]["automountServiceAccountToken"] is False


@pytest.mark.parametrize(
    "path", sorted(KUBERNETES.glob("overlays/*/config.yaml")), ids=lambda p: p.parent.name
)
def test_an_overlay_s_config_is_one_and_fits_the_cluster(path: Path) -> None:
    engine = load_config(str(path)).engine
    assert engine.autoscale
    assert engine.actors is not None
    assert engine.actors <= GROUPS[0]["maxReplicas"]


def test_the_config_is_mounted_where_the_job_looks() -> None:
    (head,) = RAY_PODS[0]["spec"]["containers"]
    (mount,) = head["volumeMounts"]
    assert JOB["spec"]["entrypoint"].split() == [
        "deblend-batch",
        "run",
        f"{mount['mountPath']}/config.yaml",
    ]
    names = [part["configMap"]["name"] for part in mappings(RAY_PODS[0]) if "configMap" in part]
    for path in KUBERNETES.glob("overlays/*-cluster/kustomization.yaml"):
        content = document(path)
        assert [each["name"] for each in content["configMapGenerator"]] == names
        assert content["generatorOptions"] == {"disableNameSuffixHash": True}
