"""What dies or stumbles during a run costs time, never a pair: the same rows, bit for bit."""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import yaml

from deblend_batch.catalog.ledger import Ledger
from deblend_batch.engine.actor import load_run_model
from deblend_batch.engine.inspect import read_status, verify_run
from deblend_batch.engine.run import process_field
from deblend_batch.engine.work import RunContext
from deblend_batch.errors import RunStoppedError
from tests.support import SmallField

pytestmark = pytest.mark.usefixtures("cluster")


class Saboteur:
    """A real model that does something terrible on chosen calls, once for all processes: marks are files."""

    def __init__(self, model: Any, marks: Path, deed: str, times: int) -> None:
        self._model, self._marks, self._deed, self._times = model, marks, deed, times
        self.card, self.default_batch_size = model.card, model.default_batch_size

    def predict(self, *arguments: Any) -> Any:
        for number in range(self._times):
            try:
                (self._marks / f"{self._deed}-{number}").touch(exist_ok=False)
            except FileExistsError:
                continue
            self._act()
        return self._model.predict(*arguments)

    def _act(self) -> None:
        if self._deed == "exit":
            os._exit(1)
        if self._deed == "segfault":
            ctypes.string_at(0)
        if self._deed == "network":
            raise TransientStorageError("s3://x: reset; check the network")
        if self._deed == "cuda":
            raise RuntimeError("CUDA error: an illegal memory access was encountered")
        raise KeyError(self._deed)


from deblend_batch.errors import TransientStorageError


def saboteur(marks: Path, deed: str, times: int) -> Any:
    """Return a loader whose model misbehaves ``times`` times."""

    def load(context: RunContext, device: str) -> Saboteur:
        return Saboteur(load_run_model(context, device), marks, deed, times)

    return load


@pytest.fixture(scope="module")
def undisturbed(
    cluster: None, small_field: SmallField, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, bytes]:
    """The shards of a run that nothing disturbed."""
    output = tmp_path_factory.mktemp("undisturbed") / "out"
    process_field(small_field.config(str(output)))
    return shards_of(output)


def shards_of(output: Path) -> dict[str, bytes]:
    """Names and bytes of a run's shards."""
    return {path.name: path.read_bytes() for path in (output / "shards").iterdir()}


@pytest.mark.parametrize(
    ("deed", "times", "retried"),
    [
        ("exit", 2, "worker"),
        ("segfault", 1, "worker"),
        ("network", 3, "transient"),
        ("cuda", 1, "device"),
    ],
)
def test_the_rows_are_those_of_an_undisturbed_run(
    undisturbed: dict[str, bytes],
    small_field: SmallField,
    tmp_path: Path,
    deed: str,
    times: int,
    retried: str,
) -> None:
    output = tmp_path / "out"
    config = small_field.config(str(output), engine={"actors": 1})
    summary = process_field(config, loader=saboteur(tmp_path, deed, times))
    assert shards_of(output) == undisturbed
    assert summary.totals["retries"][retried] >= 1
    assert summary.totals["pairs"]["quarantined"] == 0
    assert verify_run(str(output)).problems == ()


def test_a_bug_stops_the_run_at_once_and_shows_itself(
    small_field: SmallField, tmp_path: Path
) -> None:
    output = tmp_path / "out"
    with pytest.raises(KeyError, match="bug"):
        process_field(small_field.config(str(output)), loader=saboteur(tmp_path, "bug", 1))
    assert Ledger(str(output)).read_run()["state"] == "failed"
    assert "KeyError" in Ledger(str(output)).read_run()["error"]


def test_a_tile_that_always_kills_its_worker_is_quarantined(
    undisturbed: dict[str, bytes], small_field: SmallField, tmp_path: Path
) -> None:
    """One pair of the field crashes the model whenever it is in a batch; its tile alone is lost."""
    import pyarrow.parquet as pq

    shard = "y0001x0001.parquet"
    output = tmp_path / "out"
    process_field(small_field.config(str(tmp_path / "reference")))
    rows = pq.read_table(tmp_path / "reference" / "shards" / shard)
    poison = float(rows["flux_h"][0].as_py())
    assert poison > 0

    def load(context: RunContext, device: str) -> Any:
        model = load_run_model(context, device)
        return Poisoned(model, poison)

    config = small_field.config(str(output), engine={"actors": 1, "attempts": 3})
    summary = process_field(config, loader=load)
    assert summary.exit_code == 3
    assert Ledger(str(output)).quarantined() == [shard.removesuffix(".parquet")]
    rest = {name: content for name, content in undisturbed.items() if name != shard}
    assert shards_of(output) == rest
    totals = summary.totals["pairs"]
    assert totals["written"] + totals["quarantined"] == totals["expected"]


class Poisoned:
    """A real model that dies when it meets the pair with a certain flux (nJy)."""

    def __init__(self, model: Any, poison_njy: float) -> None:
        self._model, self._poison = model, poison_njy
        self.card, self.default_batch_size = model.card, model.default_batch_size

    def predict(self, *arguments: Any) -> Any:
        found = self._model.predict(*arguments)
        njy = found.flux * 10 ** (0.4 * (31.4 - 25.96))
        if (abs(njy / self._poison - 1) < 1e-5).any():
            os._exit(1)
        return found


def test_many_failures_in_a_row_stop_the_run(small_field: SmallField, tmp_path: Path) -> None:
    import shutil

    copy = tmp_path / "field.zarr"
    shutil.copytree(small_field.url, copy)
    for chunk in (copy / "image" / "c").rglob("*"):
        if chunk.is_file():
            chunk.write_bytes(chunk.read_bytes()[: chunk.stat().st_size // 2])
    config = small_field.config(str(tmp_path / "out"), field=str(copy), engine={"max_failures": 3})
    with pytest.raises(RunStoppedError, match=r"3 tiles in a row failed, .* deblend-batch retry"):
        process_field(config)
    assert len(Ledger(str(tmp_path / "out")).quarantined()) == 3


@pytest.mark.slow
@pytest.mark.parametrize("blow", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_a_killed_driver_loses_nothing(
    head: Any,
    undisturbed: dict[str, bytes],
    small_field: SmallField,
    tmp_path: Path,
    blow: signal.Signals,
) -> None:
    output = tmp_path / "out"
    config = small_field.config(str(output), engine={"actors": 1, "tiles_in_flight": 1})
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(config))
    script = str(Path(sys.executable).parent / "deblend-batch")
    process = subprocess.Popen(
        [script, "run", str(tmp_path / "config.yaml")],
        env=head.environment(),
        stderr=subprocess.PIPE,
        text=True,
    )
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline and not list(output.glob("ledger/*.json")):
        time.sleep(0.01)
    process.send_signal(blow)
    _, errors = process.communicate(timeout=60)
    if blow is not signal.SIGKILL and read_status(str(output)).state != "complete":
        assert process.returncode == 130
        assert "run the same command again to resume" in errors
        assert read_status(str(output)).state == "interrupted"
    summary = process_field(config)
    assert summary.exit_code == 0
    assert shards_of(output) == undisturbed
    assert verify_run(str(output)).problems == ()
