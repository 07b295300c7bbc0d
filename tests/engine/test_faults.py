"""What dies or stumbles during a run costs time, never a pair: the same rows, bit for bit."""

from __future__ import annotations

import itertools
import os
import time
import zlib
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from deblend_batch.catalog import records
from deblend_batch.catalog.ledger import Ledger
from deblend_batch.catalog.output import Output
from deblend_batch.engine.account.reader import read_status
from deblend_batch.engine.audit.verify import verify_run
from deblend_batch.engine.inputs.work import RunContext
from deblend_batch.engine.run import process_field, retry_run
from deblend_batch.engine.worker import cut, measurer
from deblend_batch.engine.worker.exchange import load_run_model
from deblend_batch.errors import RunStoppedError
from deblend_batch.tiling.reader import read_tile
from tests.engine.killing_models import Poisoned, first_time, saboteur
from tests.support import SmallField, same_rows, shards_of


def test_a_bug_stops_the_run_at_once_and_shows_itself(
    small_field: SmallField, tmp_path: Path
) -> None:
    output = tmp_path / "out"
    with pytest.raises(KeyError, match="bug"):
        process_field(small_field.config(str(output)), loader=saboteur(tmp_path, "bug", None))
    run = Ledger(Output(str(output))).read_run()
    assert run["state"] == "failed"
    assert Output(str(output)).quarantined() == []
    assert "KeyError" in (run["error"] or "")


@pytest.mark.parametrize("deed", ["raise", pytest.param("exit", marks=pytest.mark.slow)])
def test_a_pair_that_spoils_its_tile_is_left_out_alone(
    undisturbed: dict[str, bytes], small_field: SmallField, tmp_path: Path, deed: str
) -> None:
    """One pair of the field crashes the model, or makes it raise, whenever it is in a batch."""
    shard = "y0001x0001.parquet"
    output = tmp_path / "out"
    rows = pq.read_table(pa.BufferReader(undisturbed[shard]))
    blend, flux = rows["blend_id"][4].as_py(), float(rows["flux_h"][4].as_py())

    def load(context: RunContext, device: str) -> Any:
        return Poisoned(load_run_model(context, device), flux, deed, tmp_path / "network")

    config = small_field.config(str(output), engine={"actors": 1, "attempts": 3})
    summary = process_field(config, loader=load)
    assert (tmp_path / "network").exists() == (deed == "exit")
    assert summary.exit_code == 3
    assert summary.totals["pairs"]["quarantined"] == 1
    record = Ledger(Output(str(output))).read_quarantine("y0001x0001")
    assert [pair[0] for pair in record.pairs] == [blend]
    assert ("spoilt by" if deed == "raise" else "died unexpectedly") in record.reason
    kept = pq.read_table(output / "shards" / shard)
    assert same_rows(kept, rows.filter(pc.not_equal(rows["blend_id"], blend)))
    found = shards_of(output)
    assert {name: found[name] for name in found if name != shard} == {
        name: content for name, content in undisturbed.items() if name != shard
    }
    assert verify_run(Output(str(output))).exit_code == 3
    assert retry_run(Output(str(output))).exit_code == 0
    assert shards_of(output) == undisturbed
    assert verify_run(Output(str(output))).exit_code == 0


@pytest.mark.parametrize("step", ["create_shard", "create_receipt", "read_quarantine"])
def test_an_actor_that_dies_in_a_commit_leaves_each_pair_in_one_place(
    undisturbed: dict[str, bytes], small_field: SmallField, tmp_path: Path, step: str
) -> None:
    """A pair fails once; its actor dies after record, shard or receipt, and the next one takes over."""
    output, died = tmp_path / "out", tmp_path / "died"
    rows = pq.read_table(pa.BufferReader(undisturbed["y0001x0001.parquet"]))
    flux = float(rows["flux_h"][4].as_py())

    def load(context: RunContext, device: str) -> Any:
        real = getattr(Ledger, step)

        def die_first(self: Ledger, what: Any, *arguments: Any) -> Any:
            name = what if isinstance(what, str) else what.tile
            if name == "y0001x0001" and first_time(died):
                os._exit(1)
            return real(self, what, *arguments)

        setattr(Ledger, step, die_first)  # in the actor's process alone
        model = load_run_model(context, device)
        return model if died.exists() else Poisoned(model, flux, "raise", died)

    config = small_field.config(str(output), engine={"actors": 1})
    summary = process_field(config, loader=load)
    assert died.exists()
    left_out = step != "create_shard"  # the shard without the pair stood already
    assert summary.exit_code == (3 if left_out else 0)
    assert len(Ledger(Output(str(output))).output.quarantined()) == left_out
    assert verify_run(Output(str(output))).exit_code == summary.exit_code
    assert retry_run(Output(str(output))).exit_code == 0
    assert shards_of(output) == undisturbed
    assert verify_run(Output(str(output))).exit_code == 0


def test_a_tile_that_is_too_much_for_memory_is_done_in_pieces(
    undisturbed: dict[str, bytes], small_field: SmallField, tmp_path: Path
) -> None:
    """Its pixels do not fit, those of a quarter of its pairs do."""
    output = tmp_path / "out"

    def load(context: RunContext, device: str) -> Any:
        read = read_tile

        def read_little(field: Any, box: Any) -> Any:
            if np.prod(box.shape_yx) > 150 * 150:
                raise MemoryError("Unable to allocate 9 GiB")
            return read(field, box)

        cut.read_tile = read_little  # type: ignore[attr-defined]  # in the actor's process alone
        return load_run_model(context, device)

    config = small_field.config(str(output), engine={"actors": 1, "attempts": 1})
    summary = process_field(config, loader=load)
    assert summary.exit_code == 0
    assert shards_of(output) == undisturbed


def test_a_worker_that_dies_on_whole_tiles_alone_is_given_pieces(
    undisturbed: dict[str, bytes], small_field: SmallField, tmp_path: Path
) -> None:
    """The pairs that kill are searched for once; there are none, so nothing is blamed."""
    output, deaths = tmp_path / "out", tmp_path / "deaths"

    def load(context: RunContext, device: str) -> Any:
        cut_parts = cut.cut_parts

        def cut_little(spec: Any, blends: Any, context: Any) -> Any:
            if spec.name == "y0001x0001" and len(blends) == spec.n_blends:
                with deaths.open("a") as file:
                    file.write("died\n")
                os._exit(1)
            return cut_parts(spec, blends, context)

        measurer.cut_parts = cut_little  # type: ignore[attr-defined]  # in the actor's process alone
        return load_run_model(context, device)

    config = small_field.config(str(output), engine={"actors": 1, "attempts": 2})
    summary = process_field(config, loader=load)
    assert summary.exit_code == 0
    assert len(deaths.read_text().splitlines()) == 3  # two attempts, and one after the search
    assert shards_of(output) == undisturbed


def test_a_bug_that_most_pairs_meet_stops_the_run(small_field: SmallField, tmp_path: Path) -> None:
    """Each tile has some pairs that work, so that none fails as a whole."""

    class Picky:
        def __init__(self, model: Any) -> None:
            self._model = model
            self.card, self.default_batch_size = model.card, model.default_batch_size

        def predict(self, stamps: Any, *arguments: Any) -> Any:
            if any(zlib.crc32(stamp.tobytes()) % 4 for stamp in stamps):
                raise ZeroDivisionError("three quarters of all pairs")
            return self._model.predict(stamps, *arguments)

    config = small_field.config(str(tmp_path / "out"), engine={"actors": 1, "max_failures": 3})
    with pytest.raises(RunStoppedError, match=r"3 tiles in a row failed, .*three quarters"):
        process_field(config, loader=lambda *given: Picky(load_run_model(*given)))
    assert Ledger(Output(str(tmp_path / "out"))).output.shards()


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
    assert len(Ledger(Output(str(tmp_path / "out"))).output.quarantined()) == 3


def test_a_clock_that_jumps_changes_no_row(
    undisturbed: dict[str, bytes],
    small_field: SmallField,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Every process's time of day leaps by a day and back."""
    jump_about(monkeypatch.setattr)
    output = tmp_path / "out"
    assert process_field(small_field.config(str(output)), loader=jumping).exit_code == 0
    assert shards_of(output) == undisturbed
    receipts = Ledger(Output(str(output))).read_receipts(
        Ledger(Output(str(output))).output.receipts()
    )
    written_at = [datetime.fromisoformat(receipt.written_at) for receipt in receipts]
    assert max(written_at) - min(written_at) > timedelta(hours=1)  # the clock did leap
    status = read_status(Output(str(output)))
    assert status.state == "complete"
    assert status.pairs_per_second >= 0
    assert verify_run(Output(str(output)), recompute=0).problems == ()


def jump_about(replace: Any) -> None:
    """Make the time of day of this process leap."""
    real, leaps = time.time, itertools.cycle([0, 86_400, -86_400, 3_600])

    class Leaping(datetime):
        @classmethod
        def now(cls, tz: Any = None) -> Any:
            return datetime.fromtimestamp(time.time(), tz)

    replace(time, "time", lambda: real() + next(leaps))
    replace(records, "datetime", Leaping)


def jumping(context: RunContext, device: str) -> Any:
    """Load the run's model in a process whose clock leaps."""
    jump_about(setattr)
    return load_run_model(context, device)
