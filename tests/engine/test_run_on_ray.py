"""The main job on a real Ray cluster: the bytes of a run without, pinned to GPUs, resumed on either side."""

from __future__ import annotations

from pathlib import Path

import pytest

from deblend_batch.catalog.ledger import Ledger
from deblend_batch.catalog.output import Output
from deblend_batch.engine.audit.verify import verify_run
from deblend_batch.engine.run import process_field
from deblend_batch.errors import InterruptedRunError
from tests.engine.stopped import StoppedMeter
from tests.support import SmallField, shards_of

pytestmark = pytest.mark.usefixtures("cluster")


def test_the_bytes_are_those_of_a_run_without_ray(
    undisturbed: dict[str, bytes], small_field: SmallField, tmp_path: Path
) -> None:
    """By two actors that share a GPU; in ``tests/jobs/test_submit.py`` each has its own."""
    output = Output(str(tmp_path / "out"))
    summary = process_field(small_field.on_ray(output.url, engine={"gpus_per_actor": 0.5}))
    assert summary.exit_code == 0
    assert shards_of(tmp_path / "out") == undisturbed
    assert verify_run(output).problems == ()
    workers = [receipt.worker for receipt in Ledger(output).read_receipts(output.receipts())]
    assert {worker["torch_threads"] for worker in workers} == {1}


@pytest.mark.parametrize("first", ["local", "ray"])
def test_a_run_goes_on_elsewhere(
    undisturbed: dict[str, bytes], small_field: SmallField, tmp_path: Path, first: str
) -> None:
    """On Ray what was begun without, and the other way round: the same bytes."""
    output, places = tmp_path / "out", {"local": "ray", "ray": "local"}
    begun = small_field.config(str(output), engine={"where": first, "actors": 1})
    with pytest.raises(InterruptedRunError):
        process_field(begun, progress=StoppedMeter("pairs"))
    assert 0 < len(shards_of(output)) < len(undisturbed)
    process_field(small_field.config(str(output), engine={"where": places[first], "actors": 1}))
    assert shards_of(output) == undisturbed
