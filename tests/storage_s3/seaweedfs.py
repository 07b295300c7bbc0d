"""A real S3 server on loopback: SeaweedFS checks signatures, and a kill -9 costs it nothing."""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import shutil
import socket
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.support import wait_until

BUCKET = "survey"
PUBLIC = "public"
"""A bucket that everybody may read, without a key."""
CATALOGS = "catalogs"
"""A bucket that has a key of its own."""


@dataclass(frozen=True)
class Key:
    """An access key; new ones are random."""

    key: str = field(default_factory=lambda: secrets.token_hex(10))
    secret: str = field(default_factory=lambda: secrets.token_hex(20), repr=False)

    def options(self, endpoint: str) -> dict[str, Any]:
        """Return ``storage_options`` as a user would give them."""
        kwargs = {"endpoint_url": endpoint}
        return {"key": self.key, "secret": self.secret, "client_kwargs": kwargs}


class SeaweedFS:
    """A server with three buckets and three keys: for anything, for reading, and for one of the buckets.

    Parameters
    ----------
    folder : Path
        Where it keeps its data; what is there already is served again.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._ports = dict(
            zip(("s3", "master", "filer", "volume", "admin"), _free_ports(5), strict=True)
        )
        self._owner, self._reader, self._writer = Key(), Key(), Key()
        self._process: subprocess.Popen[bytes] | None = None
        self.endpoint = f"http://127.0.0.1:{self._ports['s3']}"
        self.key, self.secret = self._owner.key, self._owner.secret

    @property
    def options(self) -> dict[str, Any]:
        """``storage_options`` of the key that may do anything."""
        return self._owner.options(self.endpoint)

    @property
    def read_only(self) -> dict[str, Any]:
        """``storage_options`` of the key that may only read."""
        return self._reader.options(self.endpoint)

    @property
    def catalogs_only(self) -> dict[str, Any]:
        """``storage_options`` of the key that may read and write in ``CATALOGS`` alone."""
        return self._writer.options(self.endpoint)

    @property
    def anonymous(self) -> dict[str, Any]:
        """``storage_options`` of somebody without a key."""
        return {"anon": True, "client_kwargs": {"endpoint_url": self.endpoint}}

    @staticmethod
    def program() -> str | None:
        """Return the path of the server's program, where it is installed."""
        return shutil.which("weed", path=str(Path(sys.executable).parent))

    def start(self) -> None:
        """Start, and wait for the first answer."""
        keys = self._folder / "keys.json"
        identities = [
            _identity("owner", self._owner, ["Admin", "Read", "Write", "List", "Tagging"]),
            _identity("reader", self._reader, ["Read", "List"]),
            _identity(
                "writer", self._writer, [f"{verb}:{CATALOGS}" for verb in ("Read", "Write", "List")]
            ),
            {"name": "anonymous", "actions": [f"Read:{PUBLIC}", f"List:{PUBLIC}"]},
        ]
        keys.write_text(json.dumps({"identities": identities}))
        keys.chmod(0o600)
        command = [str(self.program()), "-logtostderr=true", "mini", f"-dir={self._folder}"]
        command += [f"-bucket={BUCKET},{PUBLIC},{CATALOGS}", f"-s3.config={keys}"]
        command += ["-ip=127.0.0.1", "-ip.bind=127.0.0.1", "-admin.ui=false", "-webdav=false"]
        command += ["-s3.port.iceberg=0", "-s3.port.lance=0", "-s3.autoCreateBucket=false"]
        command += [f"-{name}.port={port}" for name, port in self._ports.items()]
        with (self._folder / "server.log").open("ab") as sink:
            self._process = subprocess.Popen(
                command,
                stdout=sink,
                stderr=sink,
                # It holds 250 MiB for itself: near that it does nothing but look for garbage.
                env={**os.environ, "GOMEMLIMIT": "500MiB", "GOMAXPROCS": "1"},
            )
        self._wait()

    def kill(self) -> None:
        """SIGKILL it."""
        if self._process is not None:
            self._process.kill()
            self._process.wait(20)

    def _wait(self) -> None:
        import fsspec

        def has_buckets() -> bool:
            if self._process is None or self._process.poll() is not None:
                log = (self._folder / "server.log").read_text(errors="replace")
                raise RuntimeError(f"SeaweedFS did not start:\n{log[-3000:]}")
            with contextlib.suppress(OSError):
                fs = fsspec.filesystem("s3", skip_instance_cache=True, **self.options)
                return {BUCKET, PUBLIC, CATALOGS} <= set(fs.ls("", refresh=True))
            return False

        wait_until(has_buckets)


def _identity(name: str, key: Key, actions: Sequence[str]) -> dict[str, Any]:
    credentials = [{"accessKey": key.key, "secretKey": key.secret}]
    return {"name": name, "credentials": credentials, "actions": list(actions)}


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
    raise RuntimeError("no free ports on loopback")
