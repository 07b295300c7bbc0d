"""A run on Ray whose worker is killed: no row is lost; with ``--log-format json`` each line is an object."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest
import ray
import yaml

from deblend_batch.catalog.ledger import Ledger
from deblend_batch.catalog.output import Output
from deblend_batch.engine.audit.verify import verify_run
from tests.cli.test_json_logs import COMMAND, objects
from tests.support import SmallField, shards_of


def kill_the_first_worker(ledger: Ledger, process: subprocess.Popen[str]) -> None:
    """Kill the process that made the first tile."""
    while not ledger.output.receipts():
        assert process.poll() is None, process.communicate()
        time.sleep(0.01)
    os.kill(ledger.read_receipt(ledger.output.receipts()[0]).worker["pid"], signal.SIGKILL)


@pytest.fixture(scope="module")
def told(
    cluster: None, head: Any, small_field: SmallField, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Ledger, str, str]:
    """A run whose worker has half a GPU and is killed, with what it wrote to both streams."""
    folder = tmp_path_factory.mktemp("told")
    engine = {"actors": 1, "gpus_per_actor": 0.5, "batch_size": 1, "tiles_in_flight": 2}
    config = small_field.on_ray(str(folder / "out"), tiles={"size": 64}, engine=engine)
    (folder / "config.yaml").write_text(yaml.safe_dump(config))
    words = ["run", str(folder / "config.yaml"), "--json", "--log-format", "json"]
    process = subprocess.Popen(
        [*COMMAND, *words],
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=head.environment(),
    )
    ledger = Ledger(Output(str(folder / "out")))
    kill_the_first_worker(ledger, process)
    out, err = process.communicate()
    assert process.returncode == 0, err
    return ledger, out, err


def test_the_standard_output_is_the_result_alone(told: tuple[Ledger, str, str]) -> None:
    _, out, err = told
    assert json.loads(out)["totals"]["retries"] == {"worker": 2}
    (line,) = [each for each in objects(err) if each["event"] == "printed"]
    assert "A worker died or was killed" in line["text"]
    assert "\x1b" not in line["text"]


def test_the_rows_are_those_of_an_undisturbed_run(
    told: tuple[Ledger, str, str], undisturbed_small_tiles: dict[str, bytes]
) -> None:
    output = told[0].output
    assert shards_of(Path(output.url)) == undisturbed_small_tiles
    assert json.loads(told[1])["totals"]["pairs"]["quarantined"] == 0
    assert verify_run(output, recompute=0).problems == ()


def test_the_driver_takes_the_memory_that_was_projected(told: tuple[Ledger, str, str]) -> None:
    """It loads no torch, which would be 180 MB more."""
    memory = json.loads(told[1])["memory"]
    assert memory["driver"] < 1.2 * memory["projected"]["driver"]


def test_each_line_of_the_driver_is_an_object(told: tuple[Ledger, str, str]) -> None:
    ledger, _, err = told
    lines = objects(err)
    for line in lines:
        assert {"timestamp", "level", "event", "run"} <= set(line)
        assert line["run"] == ledger.read_run()["run"]
    retries = [line for line in lines if line["event"] == "retry"]
    tiles = set(ledger.output.receipts())
    assert {(line["failure"], line["attempt"], line["level"]) for line in retries} == {
        ("worker", 1, "warning")
    }
    assert {line["tile"] for line in retries} <= tiles
    progress = [line for line in lines if line["event"] == "progress"][-1]
    assert progress["done"] == progress["total"]
    assert progress["per_second"] > 0


def test_each_line_of_the_actors_is_an_object(told: tuple[Ledger, str, str]) -> None:
    ledger = told[0]
    logs = Path(ray._private.worker._global_node.get_session_dir_path(), "logs")
    run = ledger.read_run()["run"]
    texts = [path.read_text() for path in logs.glob("worker-*.err")]
    ours = "".join(text for text in texts if f'"run": "{run}"' in text)
    # Ray puts marks of its own into these files: ":job_id:02000000".
    lines = objects("\n".join(line for line in ours.splitlines() if line[0] != ":"))
    written = [line for line in lines if line["event"] == "written"]
    assert {line["tile"] for line in written} >= set(ledger.output.receipts())
    assert {line["attempt"] for line in written} == {1, 2}
    assert {line["run"] for line in lines} == {run}
    assert all(line["pairs"] > 0 and line["cut"] > 0 for line in written)
