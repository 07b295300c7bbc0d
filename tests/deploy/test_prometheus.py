"""A run on a real cluster, scraped by a real Prometheus: every panel and every alert has data."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import ray

from deblend_batch.catalog.ledger import Ledger, run_id
from deblend_batch.catalog.output import Output
from deblend_batch.cluster.metrics import METRICS, PREFIX
from deblend_batch.engine.inputs.work import RunContext
from deblend_batch.engine.run import process_field
from deblend_batch.engine.worker.exchange import load_run_model
from deblend_batch.errors import TransientStorageError
from tests.deploy.prometheus import (
    Prometheus,
    alerts,
    panel_queries,
    program,
    running,
    without_comparison,
)
from tests.support import SmallField

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("cluster")]
_BATCH_SECONDS = 0.2


class SlowModel:
    """A real model that takes its time, so that there is something to see, and stumbles once."""

    def __init__(self, model: Any) -> None:
        self._model = model
        self._stumbled = False
        self.card, self.default_batch_size = model.card, model.default_batch_size

    def predict(self, *arguments: Any) -> Any:
        time.sleep(_BATCH_SECONDS)
        if not self._stumbled:
            self._stumbled = True
            raise TransientStorageError("s3://x: reset; check the network")
        return self._model.predict(*arguments)


def load_slow_model(context: RunContext, device: str) -> SlowModel:
    return SlowModel(load_run_model(context, device))


@pytest.fixture(scope="module")
def scraped(
    small_field: SmallField, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[Prometheus, float, dict[str, Any]]]:
    """A Prometheus that has scraped a whole run, when the run began, and the content of run.json."""
    program("prometheus")
    folder = tmp_path_factory.mktemp("prometheus")
    session = Path(ray._private.worker._global_node.get_session_dir_path())
    engine = {"actors": 1, "batch_size": 4, "tiles_in_flight": 2, "deadline": 3600}
    config = small_field.on_ray(str(folder / "out"), tiles={"size": 100}, engine=engine)
    with running(folder, session / "prom_metrics_service_discovery.json") as server:
        began = time.time()
        summary = process_field(config, loader=load_slow_model)
        assert summary.exit_code == 0
        yield server, began, dict(Ledger(Output(config["output"])).read_run())


QUERIES = {
    **{f"panel {name}": query for name, query in panel_queries().items()},
    **{f"alert {rule['alert']}": without_comparison(rule["expr"]) for rule in alerts()},
    **{
        f"metric {name}": f"{PREFIX}{name}{'_bucket' if metric.kind == 'histogram' else ''}"
        for name, metric in METRICS.items()
    },
}


@pytest.mark.parametrize("query", QUERIES.values(), ids=QUERIES.keys())
def test_every_query_has_data(
    scraped: tuple[Prometheus, float, dict[str, Any]], query: str
) -> None:
    server, began, _ = scraped
    assert wait_for(lambda: server.values(query, began)), query


def wait_for(look: Any) -> Any:
    """Look until there is something, for some seconds: what the run said last is still on its way."""
    for _ in range(60):
        if found := look():
            return found
        time.sleep(0.5)
    return None


def test_what_is_told_is_what_the_run_has_done(
    scraped: tuple[Prometheus, float, dict[str, Any]],
) -> None:
    server, began, run = scraped
    name, totals = run_id(run["config"]["output"], run["fingerprint"]), run["totals"]

    def told(metric: str, **labels: str) -> list[float]:
        # Other runs have been on this cluster, and a metric of each process is a series of its own.
        chosen = ",".join(f'{key}="{value}"' for key, value in {"run": name, **labels}.items())
        return server.values(f"sum({PREFIX}deblend_batch_{metric}{{{chosen}}})", began) or [-1.0]

    expected = totals["pairs"]["expected"]
    assert totals["retries"]["transient"] > 0
    for metric, labels, value in [
        ("pairs", {"state": "written"}, expected),
        ("written_pairs_total", {}, expected),
        ("tiles", {"state": "written"}, totals["tiles"]["written"]),
        ("retries", {"failure": "transient"}, totals["retries"]["transient"]),
        ("retries", {"failure": "worker"}, 0),
    ]:
        assert wait_for(
            lambda ask=(metric, labels), value=value: told(ask[0], **ask[1])[-1] == value
        )
    stamps, busy = max(told("stamps_total")), max(told("busy_seconds_total"))
    assert 0 < stamps <= expected + 8  # its last seconds may be lost; a batch came twice
    assert stamps / 4 * _BATCH_SECONDS / 2 < busy  # told a moment apart
    assert max(told("read_bytes_total")) > 100_000


def test_prometheus_reaches_every_target(
    scraped: tuple[Prometheus, float, dict[str, Any]],
) -> None:
    server, _, _ = scraped

    def health() -> set[str]:
        return {target["health"] for target in server.targets()}

    assert wait_for(lambda: health() == {"up"}), server.targets()
    assert {target["labels"]["job"] for target in server.targets()} == {"ray"}
