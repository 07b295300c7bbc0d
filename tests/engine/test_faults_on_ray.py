"""What dies during a run on Ray costs time, never a pair: the bytes of a run that nothing disturbed.

Failures that any place knows are in ``test_local.py`` and ``test_faults.py``.
"""

from __future__ import annotations

import random
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import ray
import yaml

from deblend_batch.catalog.output import Output
from deblend_batch.engine import run as run_module
from deblend_batch.engine.audit.verify import verify_run
from deblend_batch.engine.driver import roster
from deblend_batch.engine.inputs.work import RunContext
from deblend_batch.engine.run import process_field
from tests.engine.killing_models import Saboteur, saboteur
from tests.support import SmallField, shards_of

pytestmark = pytest.mark.usefixtures("cluster")
BLOWS = 2  # benchmarks/soak.py goes on for as long as it is asked to


def exits_and_is_killed(marks: Path) -> Any:
    """Return a loader whose model ends its process once, and has Ray kill its actor once."""
    exits = saboteur(marks, "exit", 1)

    def load(context: RunContext, device: str) -> Saboteur:
        return Saboteur(exits(context, device), marks, "ray.kill", 1)

    return load


def test_the_rows_are_those_of_an_undisturbed_run(
    undisturbed: dict[str, bytes], small_field: SmallField, tmp_path: Path
) -> None:
    output = tmp_path / "out"
    config = small_field.on_ray(str(output), engine={"actors": 1})
    summary = process_field(config, loader=exits_and_is_killed(tmp_path))
    assert {mark.name for mark in tmp_path.glob("*-0")} == {"exit-0", "ray.kill-0"}
    assert shards_of(output) == undisturbed
    assert summary.totals["retries"]["worker"] >= 2
    assert summary.totals["pairs"]["quarantined"] == 0
    assert verify_run(Output(str(output)), recompute=0).problems == ()


def start_driver(config: Path, environment: dict[str, str]) -> subprocess.Popen[str]:
    """Start a run as its user would."""
    script = str(Path(sys.executable).parent / "deblend-batch")
    command = [script, "run", str(config)]
    return subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True)


def one_tile_at_a_time(small_field: SmallField, output: Path) -> dict[str, Any]:
    """A config of one actor that holds a tile, written beside the output too."""
    config = small_field.on_ray(str(output), engine={"actors": 1, "tiles_in_flight": 1})
    (output.parent / "config.yaml").write_text(yaml.safe_dump(config))
    return config


@pytest.mark.slow
def test_a_driver_killed_at_random_moments_loses_nothing(
    head: Any, undisturbed: dict[str, bytes], small_field: SmallField, tmp_path: Path
) -> None:
    """From the first import to the last tile; what is whole after each blow is as it should be."""
    rng, output = random.Random(20), tmp_path / "out"
    config = one_tile_at_a_time(small_field, output)
    for _ in range(BLOWS):
        process = start_driver(tmp_path / "config.yaml", head.environment())
        try:
            process.communicate(timeout=rng.uniform(2, 12))
        except subprocess.TimeoutExpired:
            process.kill()
            process.communicate()
        else:
            assert process.returncode == 0
        assert shards_of(output).items() <= undisturbed.items()
    assert process_field(config).exit_code == 0
    assert shards_of(output) == undisturbed
    assert verify_run(Output(str(output)), recompute=0).problems == ()


def test_a_run_that_waits_for_a_core_says_so_and_a_bug_then_stops_it_at_once(
    small_field: SmallField, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It shows itself as it is; no pair is to blame."""
    total = ray.cluster_resources()["CPU"]
    hog = ray.remote(num_cpus=total)(Hog).remote()
    assert ray.get(hog.holds.remote())
    monkeypatch.setattr(roster, "_WAITING_SECONDS", 1.0)
    said: list[dict[str, Any]] = []

    def release(**words: Any) -> None:
        said.append(words)
        ray.kill(hog)

    monkeypatch.setattr(run_module.log, "warning", lambda event, **words: release(**words))
    config = small_field.on_ray(str(tmp_path / "out"), engine={"actors": 1})
    with pytest.raises(KeyError, match="bug"):
        process_field(config, loader=saboteur(tmp_path, "bug", None))
    assert Output(str(tmp_path / "out")).quarantined() == []
    assert said[0]["each_needs"] == "1 CPU, 0 GPU"
    assert said[0]["free"].startswith(f"0 of {total:g} CPU")


class Hog:
    """Takes what cores there are."""

    def holds(self) -> bool:
        return True
