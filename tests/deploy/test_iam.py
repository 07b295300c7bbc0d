"""Access policies: they parse, allow by name alone, and end at the prefix."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.deploy.reading import DEPLOY

IAM = DEPLOY / "iam"
_NO_NARROWER = {"ec2:DescribeInstances", "ec2:DescribeImages"}  # EC2 knows no resource for them


def statements(name: str) -> list[dict[str, Any]]:
    """Return a policy's statements."""
    found: list[dict[str, Any]] = json.loads((IAM / name).read_text())["Statement"]
    return found


def problems(statement: dict[str, Any]) -> list[str]:
    """Return what a statement allows beyond names and prefixes."""
    actions, resources = statement["Action"], statement["Resource"]
    wide = [action for action in actions if "*" in action or "?" in action]
    for resource in resources:
        if resource == "*" and set(actions) <= _NO_NARROWER:
            continue
        bare = resource.removesuffix("/*")
        in_bucket = ":s3:::" in resource and "/" not in bare and resource != bare
        if "*" in bare or in_bucket:
            wide.append(resource)
    if "NotAction" in statement or "NotResource" in statement:
        wide.append("all but some")
    return wide


@pytest.mark.parametrize("path", sorted(IAM.glob("aws-*.json")), ids=lambda path: path.stem)
def test_an_aws_policy_names_what_it_allows(path: Path) -> None:
    for statement in statements(path.name):
        assert statement["Effect"] == "Allow"
        assert problems(statement) == []
        if "s3:ListBucket" in statement["Action"]:
            prefixes = statement["Condition"]["StringLike"]["s3:prefix"]
            assert all(prefix.rstrip("/*") for prefix in prefixes)


@pytest.mark.parametrize(
    "changes",
    [
        {"Action": ["s3:*"]},
        {"Action": ["s3:Get*"]},
        {"Resource": ["*"]},
        {"Resource": ["arn:aws:s3:::BUCKET/*"]},
        {"Resource": ["arn:aws:s3:::*/PREFIX/*"]},
    ],
)
def test_a_wildcard_is_seen(changes: dict[str, Any]) -> None:
    assert problems(statements("aws-read.json")[1] | changes) != []


def test_input_is_only_read_and_shards_are_never_deleted() -> None:
    reads = {action for each in statements("aws-read.json") for action in each["Action"]}
    assert reads == {"s3:GetObject", "s3:ListBucket"}
    writes = statements("aws-write.json")
    assert {action for each in writes for action in each["Action"]} == {
        "s3:ListBucket",
        "s3:GetObject",
        "s3:PutObject",
        "s3:AbortMultipartUpload",
        "s3:DeleteObject",
    }
    deleted = [each["Resource"] for each in writes if "s3:DeleteObject" in each["Action"]]
    members = {url.removesuffix("/*").rsplit("/", 1)[1] for url in deleted[0]}
    assert members == {".tmp-probe", "quarantine", "ledger", "index", "catalog", "masks.zarr"}


def test_nodes_are_ended_in_this_cluster_alone() -> None:
    cluster = yaml.safe_load((DEPLOY.parent / "ray-cluster.yaml").read_text())["cluster_name"]
    (ending,) = [
        each for each in statements("aws-launch.json") if "ec2:TerminateInstances" in each["Action"]
    ]
    assert ending["Condition"] == {"StringEquals": {"ec2:ResourceTag/ray-cluster-name": cluster}}


@pytest.mark.parametrize("name", ["gcp-read", "gcp-write", "azure-read", "azure-write"])
def test_other_clouds_roles_name_what_they_allow(name: str) -> None:
    if name.startswith("gcp"):
        allowed = yaml.safe_load((IAM / f"{name}.yaml").read_text())["includedPermissions"]
        changing = {"create", "delete", "update", "setIamPolicy", "abort"}
    else:
        role = json.loads((IAM / f"{name}.json").read_text())
        assert role["Actions"] == []
        assert all(scope.count("/") >= 4 for scope in role["AssignableScopes"])
        allowed, changing = role["DataActions"], {"write", "delete", "action"}
    assert allowed
    assert not any("*" in permission for permission in allowed)
    assert (
        name.endswith("write")
        or not {each.replace("/", ".").split(".")[-1] for each in allowed} & changing
    )
