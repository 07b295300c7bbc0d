"""Reading what deploy/ holds: files as YAML, tools where they are installed, schemas made strict."""

from __future__ import annotations

import os
import re
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema  # type: ignore[import-untyped]
import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]
DEPLOY = ROOT / "deploy"
KUBERNETES = DEPLOY / "kubernetes"
TEXT = {"type": "string"}
_TEXTS = {"type": "object", "additionalProperties": TEXT}
METADATA = {
    "type": "object",
    "properties": {"name": TEXT, "namespace": TEXT, "labels": _TEXTS, "annotations": _TEXTS},
    "additionalProperties": False,
}
"""What our objects' metadata may hold; CRDs leave it open."""


def tool(name: str, package: str) -> str:
    """Return the path of a program beside this Python or on the path; skip where there is none."""
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")])
    found = shutil.which(name, path=path)
    if found is None:
        pytest.skip(f"{name} is not installed (pip install {package})")
    return found


def documents(path: Path) -> list[Any]:
    """Return the YAML documents of a file."""
    return list(yaml.load_all(path.read_text(), yaml.CSafeLoader))


def document(path: Path) -> Any:
    """Return the one YAML document of a file."""
    (only,) = documents(path)
    return only


def pinned(package: str) -> str:
    """Return the version that constraints.txt pins."""
    found = re.search(
        rf"^{re.escape(package)}==(\S+)$", (ROOT / "constraints.txt").read_text(), re.MULTILINE
    )
    assert found, f"{package} has no pin"
    return found[1]


def strict(schema: Any) -> Any:
    """Return a Kubernetes schema that refuses the keys it does not list, as jsonschema wants it."""
    if isinstance(schema, list):
        return [strict(each) for each in schema]
    if not isinstance(schema, dict):
        return schema
    closed = {key: strict(value) for key, value in schema.items()}
    properties = schema.get("properties")
    if isinstance(properties, dict):
        for name, part in properties.items():
            if name == "metadata" and isinstance(part, dict) and set(part) <= {"type"}:
                closed["properties"]["metadata"] = METADATA
        if schema.get("type") == "object" and "additionalProperties" not in schema:
            closed["additionalProperties"] = bool(
                schema.get("x-kubernetes-preserve-unknown-fields")
            )
        if isinstance(schema.get("required"), list):  # the API server fills defaults in first
            closed["required"] = [
                key for key in schema["required"] if "default" not in properties.get(key, {})
            ]
    if schema.get("x-kubernetes-int-or-string") is True:
        closed["type"] = ["integer", "string"]
    return closed


def complaints(content: Any, schema: Any) -> list[str]:
    """Return what a schema finds wrong, with the place of each."""
    found = jsonschema.Draft7Validator(schema).iter_errors(content)
    return [f"{error.json_path}: {error.message}" for error in found]


def mappings(content: Any) -> Iterator[Any]:
    """Yield every mapping in a document, outermost first."""
    if isinstance(content, dict):
        yield content
        for value in content.values():
            yield from mappings(value)
    elif isinstance(content, list):
        for value in content:
            yield from mappings(value)
