"""What the tests of storage share: a folder in each kind of store."""

from __future__ import annotations

from pathlib import Path

import pytest


@pytest.fixture(params=["local", "memory"])
def folder(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """A fresh folder in each kind of store."""
    return str(tmp_path) if request.param == "local" else f"memory://{tmp_path.name}"
