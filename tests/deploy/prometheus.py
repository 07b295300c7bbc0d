"""What the tests of deploy/monitoring share: its queries, and a real Prometheus on loopback."""

from __future__ import annotations

import contextlib
import json
import re
import shutil
import subprocess
import time
import urllib.parse
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.conftest import free_port
from tests.deploy.reading import DEPLOY, document

MONITORING = DEPLOY / "monitoring"


def program(name: str) -> str:
    """Return the path of ``prometheus`` or ``promtool``; skip where it is not installed."""
    found = shutil.which(name)
    if found is None:
        pytest.skip(f"{name} is not installed (apt-get install prometheus)")
    return found


def dashboard() -> dict[str, Any]:
    """Return the Grafana dashboard."""
    content: dict[str, Any] = json.loads((MONITORING / "grafana-dashboard.json").read_text())
    return content


def panel_queries() -> dict[str, str]:
    """Return the queries of the dashboard as Grafana would send them, by panel and letter."""
    return {
        f"{panel['title']} {target['refId']}": target["expr"]
        .replace("$__rate_interval", "1m")
        .replace("$run", ".*")
        for panel in dashboard()["panels"]
        for target in panel["targets"]
    }


def alerts() -> list[dict[str, Any]]:
    """Return the alerting rules."""
    (group,) = document(MONITORING / "alerts.yml")["groups"]
    rules: list[dict[str, Any]] = group["rules"]
    return rules


def without_comparison(expression: str) -> str:
    """Return an alert's expression without the threshold at its end."""
    found = re.fullmatch(r"(.*) [<>] [\d.]+", expression, re.DOTALL)
    assert found, f"no threshold at the end of {expression}"
    return found[1]


class Prometheus:
    """A running Prometheus.

    Parameters
    ----------
    port : int
        On loopback.
    """

    def __init__(self, port: int) -> None:
        self._url = f"http://127.0.0.1:{port}"

    def ready(self) -> bool:
        """Tell whether it answers."""
        with contextlib.suppress(OSError):
            urllib.request.urlopen(f"{self._url}/-/ready", timeout=5).close()
            return True
        return False

    def targets(self) -> list[dict[str, Any]]:
        """Return what it scrapes."""
        found: list[dict[str, Any]] = self._get("targets")["activeTargets"]
        return found

    def values(self, query: str, start: float) -> list[float]:
        """Return all values of a query since a time, one a second and series."""
        span = {"query": query, "start": start, "end": time.time(), "step": 1}
        series = self._get(f"query_range?{urllib.parse.urlencode(span)}")["result"]
        return [float(value) for each in series for _, value in each["values"]]

    def _get(self, what: str) -> Any:
        with urllib.request.urlopen(f"{self._url}/api/v1/{what}", timeout=20) as answer:
            return json.loads(answer.read())["data"]


@contextlib.contextmanager
def running(folder: Path, discovery: Path) -> Iterator[Prometheus]:
    """Start Prometheus with the deployed config, but for the place of Ray's list and shorter intervals."""
    port, config = free_port(), document(MONITORING / "prometheus.yml")
    config["global"] = {
        "scrape_interval": "1s",
        "scrape_timeout": "1s",
        "evaluation_interval": "1s",
    }
    config["rule_files"] = [str(MONITORING / name) for name in config["rule_files"]]
    (found,) = config["scrape_configs"][0]["file_sd_configs"]
    assert found["files"] == [f"/tmp/ray/{discovery.name}"]
    found["files"] = [str(discovery)]
    (folder / "prometheus.yml").write_text(yaml.safe_dump(config))
    command = [program("prometheus"), f"--config.file={folder / 'prometheus.yml'}"]
    command += [f"--storage.tsdb.path={folder / 'data'}", f"--web.listen-address=127.0.0.1:{port}"]
    with (folder / "prometheus.log").open("wb") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log)
    try:
        server = Prometheus(port)
        for _ in range(100):
            if server.ready() or process.poll() is not None:
                break
            time.sleep(0.2)
        assert process.poll() is None, (folder / "prometheus.log").read_text()
        yield server
    finally:
        process.terminate()
        process.wait(30)
