"""What the tests of deploy/ share: KubeRay's schemas, which are slow to read."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.deploy.reading import document, strict


@pytest.fixture(scope="session")
def schemas(shared: Path) -> dict[str, Any]:
    """KubeRay's schemas by kind, closed."""
    folder = shared / "data" / "kuberay"
    if not folder.is_dir():
        pytest.skip("KubeRay's schemas (../shared/data/kuberay) are not beside this checkout")
    found = {}
    for kind in ("RayCluster", "RayJob"):
        (path,) = folder.glob(f"*_{kind.lower()}s.yaml")
        versions = document(path)["spec"]["versions"]
        (schema,) = [each["schema"] for each in versions if each["name"] == "v1"]
        found[kind] = strict(schema["openAPIV3Schema"])
    return found
