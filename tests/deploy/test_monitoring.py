"""deploy/monitoring and docs/monitoring.md: what promtool says, and that every name in them exists."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from deblend_batch.cluster.metrics import METRICS, PREFIX
from tests.deploy.prometheus import MONITORING, alerts, dashboard, panel_queries, program
from tests.deploy.reading import KUBERNETES, ROOT, document

PAGE = ROOT / "docs" / "monitoring.md"
UNITS = {"Bps", "cps", "percentunit", "s", "short"}
"""Those of Grafana's identifiers of units that the dashboard uses; an unknown one is shown as a word."""
OVERLAYS = sorted(KUBERNETES.glob("overlays/*-cluster/config.yaml"))


def promtool(*words: str) -> subprocess.CompletedProcess[str]:
    """Run promtool."""
    command = [program("promtool"), *words]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)


@pytest.mark.parametrize(
    "words",
    [
        ("check", "config", str(MONITORING / "prometheus.yml")),
        ("check", "rules", str(MONITORING / "alerts.yml")),
        ("test", "rules", str(MONITORING / "alerts_test.yml")),
    ],
    ids=["config", "rules", "tests of the rules"],
)
def test_promtool_finds_nothing_wrong(words: tuple[str, ...]) -> None:
    ended = promtool(*words)
    assert ended.returncode == 0, ended.stdout + ended.stderr


@pytest.mark.parametrize("number", range(len(alerts())), ids=[rule["alert"] for rule in alerts()])
def test_an_alert_that_never_fires_fails_its_test(number: int, tmp_path: Path) -> None:
    shutil.copy(MONITORING / "alerts_test.yml", tmp_path)
    rules = document(MONITORING / "alerts.yml")
    rules["groups"][0]["rules"][number]["expr"] += " and on () vector(1) > 2"
    (tmp_path / "alerts.yml").write_text(yaml.safe_dump(rules))
    ended = promtool("test", "rules", str(tmp_path / "alerts_test.yml"))
    assert ended.returncode != 0
    assert alerts()[number]["alert"] in ended.stdout + ended.stderr


def names(text: str) -> set[str]:
    """Return the metrics that a query or a page names."""
    found = set(re.findall(rf"{PREFIX}(deblend_batch_\w+)", text))
    return {name.removesuffix("_bucket") if name not in METRICS else name for name in found}


def test_queries_name_metrics_that_exist_with_labels_that_they_have() -> None:
    queries = [*panel_queries().values(), *(rule["expr"] for rule in alerts())]
    named = set().union(*(names(query) for query in queries))
    assert named == set(METRICS), "a metric that is not looked at, or one that does not exist"
    for query in queries:
        for name, filters in re.findall(rf"{PREFIX}(\w+?)(?:_bucket)?\{{([^}}]*)\}}", query):
            asked = {each.split("=")[0].strip() for each in filters.split(",")}
            assert asked <= {"run", *METRICS[name].labels}


def test_the_dashboard_can_be_imported() -> None:
    """Grafana is not at hand: what it would refuse, or show wrongly, is looked for here."""
    content = dashboard()
    assert content["uid"]
    assert content["title"]
    variables = [each["name"] for each in content["templating"]["list"]]
    assert variables == ["datasource", "run"]
    source = {"type": "prometheus", "uid": "${datasource}"}
    panels = content["panels"]
    for key in ("id", "title", "description"):
        assert all(panel[key] for panel in panels)
        assert len({panel[key] for panel in panels}) == len(panels), f"two panels with one {key}"
    for panel in panels:
        assert panel["type"] in {"stat", "timeseries"}
        assert panel["fieldConfig"]["defaults"]["unit"] in UNITS
        assert panel["datasource"] == source
        assert all(target["datasource"] == source for target in panel["targets"])
        assert all('run=~"$run"' in target["expr"] for target in panel["targets"])
        letters = [target["refId"] for target in panel["targets"]]
        assert len(set(letters)) == len(letters) > 0
    known = re.compile(r"\$\{?(\w+)")
    used = set(known.findall(json.dumps(content)))
    assert {name for name in used if not name.startswith("__")} == set(variables)


def test_panels_fill_the_dashboard_and_none_lies_on_another() -> None:
    """Grafana moves what overlaps, and leaves gaps as they are."""
    places = [panel["gridPos"] for panel in dashboard()["panels"]]
    taken = [
        (x, y)
        for place in places
        for x in range(place["x"], place["x"] + place["w"])
        for y in range(place["y"], place["y"] + place["h"])
    ]
    height = max(y for _, y in taken) + 1
    assert sorted(taken) == [(x, y) for x in range(24) for y in range(height)]


def test_the_page_explains_every_metric_and_every_alert() -> None:
    text = PAGE.read_text()
    first_cells = set(re.findall(r"^\| `(\w+)[^|]*` \|", text, re.MULTILINE))
    assert first_cells == set(METRICS) | {rule["alert"] for rule in alerts()}


def test_the_page_turns_alerts_into_a_rule_of_the_operator() -> None:
    (pipe,) = re.findall(
        r"^(\{ printf .*?)\s*\| kubectl", PAGE.read_text(), re.MULTILINE | re.DOTALL
    )
    made = subprocess.run(
        ["/bin/sh", "-c", pipe], capture_output=True, text=True, check=True, cwd=ROOT
    )
    rule: dict[str, Any] = yaml.safe_load(made.stdout)
    assert rule["kind"] == "PrometheusRule"
    assert rule["metadata"]["namespace"] == "deblend-batch"
    assert rule["spec"] == document(MONITORING / "alerts.yml")


def test_the_pod_monitor_finds_the_pods_of_the_cluster() -> None:
    monitor = document(KUBERNETES / "components" / "monitoring" / "pod-monitor.yaml")["spec"]
    spec = document(KUBERNETES / "base" / "ray-cluster.yaml")["spec"]
    pods = [group["template"] for group in [spec["headGroupSpec"], *spec["workerGroupSpecs"]]]
    wanted = monitor["selector"]["matchLabels"].items()
    (endpoint,) = monitor["podMetricsEndpoints"]
    for pod in pods:
        assert wanted <= pod["metadata"]["labels"].items()
        ports = [port["name"] for port in pod["spec"]["containers"][0]["ports"]]
        assert endpoint["port"] in ports
    (scraped,) = document(MONITORING / "prometheus.yml")["scrape_configs"]
    assert endpoint["metricRelabelings"] == scraped["metric_relabel_configs"]


@pytest.mark.parametrize("path", OVERLAYS, ids=lambda path: path.parent.name)
def test_the_deadline_of_a_run_is_that_of_its_job(path: Path) -> None:
    job = document(KUBERNETES / "components" / "job" / "from-cluster" / "ray-job.yaml")
    assert document(path)["engine"]["deadline"] == job["spec"]["activeDeadlineSeconds"]
