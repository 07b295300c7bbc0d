"""A run on a real Ray cluster whose driver is killed; in ``test_nodes.py`` one goes on there."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from deblend_batch.catalog.output import Output
from deblend_batch.engine.audit.verify import verify_run
from deblend_batch.engine.run import process_field
from tests.engine.test_overlaps import config_of, write_halves
from tests.support import SmallField, shards_of, wait_until

pytestmark = pytest.mark.usefixtures("cluster")


def start_driver(config: dict[str, Any], folder: Path, head: Any) -> subprocess.Popen[str]:
    """Start a run as its user would."""
    (folder / "config.yaml").write_text(yaml.safe_dump(config))
    script = str(Path(sys.executable).parent / "deblend-batch")
    command = [script, "run", str(folder / "config.yaml")]
    return subprocess.Popen(command, env=head.environment(), stderr=subprocess.PIPE, text=True)


def test_a_run_whose_driver_was_killed_on_ray_goes_on_without(
    head: Any, small_field: SmallField, tmp_path: Path
) -> None:
    """Of two fields, which are indexed by tasks there; what is whole after the blow is as it should be."""
    halves, output = write_halves(small_field, tmp_path), tmp_path / "out"
    tiles = {"size": 64}
    engine = {"where": "ray", "actors": 1, "tiles_in_flight": 1}
    begun = config_of(small_field, halves, output, tiles=tiles, engine=engine)
    driver = start_driver(begun, tmp_path, head)
    wait_until(lambda: bool(shards_of(output)) or driver.poll() is not None)
    driver.kill()
    _, said = driver.communicate()
    process_field(config_of(small_field, halves, tmp_path / "alone", tiles=tiles))
    undisturbed = shards_of(tmp_path / "alone")
    assert set() < shards_of(output).items() < undisturbed.items(), said
    process_field(config_of(small_field, halves, output, tiles=tiles))
    assert shards_of(output) == undisturbed
    assert verify_run(Output(str(output)), recompute=0).problems == ()
