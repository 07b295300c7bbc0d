"""The main job on a real Ray cluster: the bytes of a run without, pinned to GPUs, resumed on either side."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from deblend_batch.catalog.ledger import Ledger
from deblend_batch.catalog.output import Output
from deblend_batch.engine.audit.verify import verify_run
from deblend_batch.engine.run import process_field
from deblend_batch.errors import InterruptedRunError
from tests.engine.stopped import StoppedMeter
from tests.engine.test_overlaps import config_of, write_halves
from tests.support import SmallField, shards_of

pytestmark = pytest.mark.usefixtures("cluster")


def begin(config: dict[str, Any], output: Path) -> None:
    """Run until a user stops it in its third tile."""
    with pytest.raises(InterruptedRunError):
        process_field(config, progress=StoppedMeter("pairs"))
    assert shards_of(output)


def test_a_run_that_was_begun_without_ray_goes_on_there(
    undisturbed: dict[str, bytes], small_field: SmallField, tmp_path: Path
) -> None:
    """By two actors that share a GPU; in ``tests/jobs/test_submit.py`` each has its own."""
    output = Output(str(tmp_path / "out"))
    begin(small_field.config(output.url, engine={"actors": 1}), tmp_path / "out")
    assert len(shards_of(tmp_path / "out")) < len(undisturbed)
    summary = process_field(small_field.on_ray(output.url, engine={"gpus_per_actor": 0.5}))
    assert summary.exit_code == 0
    assert shards_of(tmp_path / "out") == undisturbed
    assert verify_run(output).problems == ()
    workers = [receipt.worker for receipt in Ledger(output).read_receipts(output.receipts())]
    assert {worker["torch_threads"] for worker in workers} == {1}
    assert {worker["node"] == "local" for worker in workers} == {True, False}


def test_a_run_that_was_begun_on_ray_goes_on_without(
    small_field: SmallField, tmp_path: Path
) -> None:
    """Of two fields, which are indexed by tasks there."""
    halves, output = write_halves(small_field, tmp_path), tmp_path / "out"
    begun = config_of(small_field, halves, output, engine={"where": "ray", "actors": 1})
    begin(begun, output)
    process_field(config_of(small_field, halves, tmp_path / "alone"))
    assert len(shards_of(output)) < len(shards_of(tmp_path / "alone"))
    process_field(config_of(small_field, halves, output))
    assert shards_of(output) == shards_of(tmp_path / "alone")
