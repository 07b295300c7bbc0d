"""The README's cluster, on a machine that has never seen Ray."""

from __future__ import annotations

import contextlib
import shutil
import socket
import subprocess
import sys
from pathlib import Path

import psutil
import pytest
import yaml

from tests.conftest import free_port
from tests.readme import ROOT, environment, run_as_printed, snippet
from tests.support import SmallField, wait_until


def wait_for(port: int) -> None:
    """Wait until something of this machine listens on a port."""

    def listens() -> bool:
        with contextlib.suppress(OSError):
            socket.create_connection(("127.0.0.1", port), 5).close()
            return True
        return False

    wait_until(listens)


@pytest.mark.slow
def test_a_cluster_on_a_machine_that_has_never_seen_ray(
    small_field: SmallField, tmp_path: Path
) -> None:
    """Word for word, but for ports that may be taken, and a head that this test can end."""
    shutil.copytree(ROOT / "jobs", tmp_path / "jobs")
    shutil.copy(ROOT / ".gitignore", tmp_path)  # Ray uploads nothing that git ignores: not .venv
    config = small_field.on_ray(str(tmp_path / "out"), engine={"actors": 1})
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(config))
    port, dashboard, agent = free_port(), free_port(), free_port()
    text = snippet("bash", "ray start")
    recipe, submit = text.split("ray start --head\n")
    start = ["ray", "start", "--head", "--block", f"--port={port}", f"--dashboard-port={dashboard}"]
    start += [f"--dashboard-agent-listen-port={agent}", "--num-cpus=2"]
    run_as_printed(["bash", "-e", "-c", recipe], tmp_path)
    head = subprocess.Popen(
        [f"{sys.prefix}/bin/ray", *start[1:]],
        env={**environment(tmp_path), "RAY_AUTH_MODE": "token"},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        submit = submit.replace("8265", str(dashboard)).replace("/data", str(tmp_path))
        wait_for(dashboard)
        said = run_as_printed(["bash", "-e", "-c", recipe + submit], tmp_path)
        assert "succeeded" in said
        assert "ETA" in said
        assert "Traceback" not in said
        told = [line for line in said.split("\n") if "pairs/s" in line]
        assert told
        assert not {"\r", "\x1b"} & set("".join(told))
        assert list((tmp_path / "out" / "shards").glob("*.parquet"))
    finally:
        left = psutil.Process(head.pid).children(recursive=True)
        head.terminate()
        head.wait(60)
        for process in psutil.wait_procs(left, 10)[1]:
            process.kill()
