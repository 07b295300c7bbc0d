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


@pytest.fixture(scope="module")
def finished(small_field: SmallField, tmp_path_factory: pytest.TempPathFactory) -> str:
    """A complete run of the small field, without Ray."""
    output = str(tmp_path_factory.mktemp("run") / "out")
    assert process_field(small_field.config(output)).exit_code == 0
    return output


@pytest.mark.parametrize("gpus", [0, 0.5], ids=["on CPUs", "two actors on a logical GPU"])
def test_the_bytes_are_those_of_a_run_without_ray(
    finished: str, small_field: SmallField, tmp_path: Path, gpus: float
) -> None:
    output = str(tmp_path / "out")
    summary = process_field(small_field.on_ray(output, engine={"gpus_per_actor": gpus}))
    assert summary.exit_code == 0
    assert shards_of(Path(output)) == shards_of(Path(finished))
    assert verify_run(Output(output)).problems == ()


def test_actors_are_pinned_to_gpus(small_field: SmallField, tmp_path: Path) -> None:
    output = str(tmp_path / "out")
    engine = {"gpus_per_actor": 1, "tiles_in_flight": 1}
    process_field(small_field.on_ray(output, tiles={"size": 64}, engine=engine))
    receipts = list(Ledger(Output(output)).read_receipts(Ledger(Output(output)).output.receipts()))
    seen = {
        (r.worker["pid"], tuple(r.worker["gpu_ids"]), r.worker["cuda_visible_devices"])
        for r in receipts
    }
    assert {gpus for _, gpus, _ in seen} == {(0,), (1,)}
    assert {visible for _, _, visible in seen} == {"0", "1"}
    assert len({pid for pid, _, _ in seen}) == 2
    assert {r.worker["torch_threads"] for r in receipts} == {1}


@pytest.mark.parametrize("first", ["local", "ray"])
def test_a_run_goes_on_elsewhere(
    finished: str, small_field: SmallField, tmp_path: Path, first: str
) -> None:
    """On Ray what was begun without, and the other way round: the same bytes."""
    output, places = str(tmp_path / "out"), {"local": "ray", "ray": "local"}
    begun = small_field.config(output, engine={"where": first, "actors": 1})
    with pytest.raises(InterruptedRunError):
        process_field(begun, progress=StoppedMeter("pairs"))
    assert 0 < len(list(Path(output, "shards").iterdir())) < 9
    process_field(small_field.config(output, engine={"where": places[first], "actors": 1}))
    names = {path.name for path in Path(finished, "shards").iterdir()}
    assert names == {path.name for path in Path(output, "shards").iterdir()}
    for name in names:
        assert (
            Path(output, "shards", name).read_bytes() == Path(finished, "shards", name).read_bytes()
        )
