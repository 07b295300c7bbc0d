"""How far a run is, seen from its files alone: each pair is counted once."""

from __future__ import annotations

import os
import shutil
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from deblend_batch import storage
from deblend_batch.catalog.ledger import Ledger
from deblend_batch.catalog.output import Output
from deblend_batch.catalog.records import QuarantineRecord
from deblend_batch.engine.account import reader as inspect
from deblend_batch.engine.account.reader import read_status
from deblend_batch.engine.audit.publication import publish_run
from deblend_batch.errors import CatalogError
from tests.engine.finished import finish_run, leave_out, read_rows
from tests.support import SmallField


@pytest.fixture(scope="module")
def template(small_field: SmallField, tmp_path_factory: pytest.TempPathFactory) -> Ledger:
    """A complete run, which tests leave as it is."""
    return finish_run(small_field, str(tmp_path_factory.mktemp("finished") / "out"))


@pytest.fixture
def run(template: Ledger, tmp_path: Path) -> Ledger:
    """A complete run of a test's own."""
    return Ledger(Output(str(shutil.copytree(template.output.url, tmp_path / "out"))))


def test_a_complete_run_has_written_all(run: Ledger) -> None:
    status = read_status(run.output)
    assert status.pairs_written == status.pairs_expected == 93
    assert status.tiles_written == status.tiles_expected == 9
    assert (status.eta_seconds, status.failures) == (None, {"retried, worker": 2})
    assert status.pairs_per_second > 0


@pytest.mark.parametrize("finished", [True, False], ids=["and has a shard", "and has none"])
def test_a_tile_in_quarantine_is_counted_once(run: Ledger, finished: bool) -> None:
    """A worker that was given up may still finish its tile: the shard is what counts."""
    tile = run.output.shards()[0]
    ids = read_rows(run, tile)["blend_id"].to_pylist()[::2]
    record = QuarantineRecord(tile, "a chunk", "BadDataError", 1, [(blend, 0, 0) for blend in ids])
    run.quarantine(record)
    if not finished:
        storage.remove(run.output.shard_url(tile))
    status = read_status(run.output)
    assert status.pairs_quarantined == (0 if finished else len(ids))
    assert status.pairs_written + status.pairs_quarantined == status.pairs_expected
    assert status.tiles_written + status.tiles_quarantined == status.tiles_expected
    assert status.failures.get("BadDataError", 0) == (0 if finished else 1)


def test_pairs_left_out_of_a_written_tile_are_in_quarantine(run: Ledger) -> None:
    leave_out(run, run.output.shards()[0], 2)
    status = read_status(run.output)
    assert (status.pairs_written, status.pairs_quarantined) == (91, 2)
    assert (status.tiles_written, status.tiles_quarantined) == (9, 0)
    assert status.failures["BadDataError"] == 1


def test_a_part_in_quarantine_without_a_shard_is_still_to_do(run: Ledger) -> None:
    tile = run.output.shards()[0]
    n_pairs = run.read_receipt(tile).pairs
    leave_out(run, tile, 2)
    storage.remove(run.output.receipt_url(tile))
    status = read_status(run.output)
    assert (status.pairs_written, status.pairs_quarantined) == (93 - n_pairs, 0)


def write_receipts_at(run: Ledger, offsets: Sequence[float]) -> list[int]:
    """Let the tiles, the last name first, be finished at these seconds; return their pairs."""
    began, pairs = datetime(2026, 1, 1, tzinfo=UTC), []
    for tile, offset in zip(reversed(run.output.receipts()), offsets, strict=True):
        at = began + timedelta(seconds=offset)
        receipt = replace(run.read_receipt(tile), written_at=at.isoformat())
        run.replace_receipt(receipt)
        os.utime(run.output.receipt_url(tile), (at.timestamp(), at.timestamp()))
        pairs.append(receipt.pairs)
    return pairs


def test_the_rate_does_not_span_a_pause(run: Ledger) -> None:
    pairs = write_receipts_at(run, [0, 4, 8, 12, 5000, 5004, 5008, 5012, 5016])
    # Each tile took 2 s, so that the second start began 2 s before its first receipt.
    assert read_status(run.output).pairs_per_second == pytest.approx(sum(pairs[4:]) / 18)


def test_the_rate_is_of_the_last_receipts_not_of_the_last_names(
    run: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    pairs = write_receipts_at(run, [0, 9, 18, 27, 36, 37, 38, 39, 40])
    monkeypatch.setattr(inspect, "_RATE_OF", 4)
    assert read_status(run.output).pairs_per_second == pytest.approx(sum(pairs[-4:]) / 5)


def test_tiles_that_finish_in_bursts_are_no_pause(run: Ledger) -> None:
    pairs = write_receipts_at(run, [0, 0, 0, 2, 2, 2, 4, 4, 4])
    assert read_status(run.output).pairs_per_second == pytest.approx(sum(pairs) / 6)


def test_a_damaged_index_is_one_line(run: Ledger) -> None:
    storage.write_bytes(storage.join(run.output.url, "index", "field.parquet"), b"PAR1")
    with pytest.raises(CatalogError, match=r"index/field.parquet: damaged .*; remove it and run"):
        read_status(run.output)


def test_a_lost_index_is_said_and_the_counts_are_those_of_the_record(run: Ledger) -> None:
    storage.remove_tree(storage.join(run.output.url, "index"))
    status = read_status(run.output)
    assert (status.pairs_written, status.pairs_expected) == (93, 93)
    assert (status.tiles_written, status.tiles_expected) == (9, 9)
    (problem,) = status.problems
    assert problem.startswith("index/: the index is missing")
    assert ("damaged", problem) in status.to_rows()


@pytest.mark.parametrize("kind", ["receipt", "quarantine"])
def test_an_empty_file_is_counted_and_named_and_the_rest_goes_on(run: Ledger, kind: str) -> None:
    tile = run.output.receipts()[0]
    n_pairs = run.read_receipt(tile).pairs
    url = getattr(run.output, f"{kind}_url")(tile)
    storage.write_bytes(url, b"")
    status = read_status(run.output)
    assert status.problems == (f"{url}: empty; run again to make it anew",)
    assert status.pairs_written == 93 - (n_pairs if kind == "receipt" else 0)
    assert "  damaged: 1  " in status.to_line()


def test_a_receipt_that_is_cut_is_named(run: Ledger) -> None:
    tile = run.output.receipts()[0]
    storage.write_bytes(run.output.receipt_url(tile), b'{"tile"')
    (problem,) = read_status(run.output).problems
    assert "damaged (" in problem
    assert problem.endswith("; remove it and run again")


def test_of_very_many_problems_only_the_first_are_printed(run: Ledger) -> None:
    for tile in run.output.receipts():
        storage.write_bytes(run.output.receipt_url(tile), b"")
    rows = [value for name, value in read_status(run.output).to_rows() if name == "damaged"]
    assert len(rows) == 6
    assert rows[-1] == "and 4 more (--json)"


def leave_running(run: Ledger, seconds_ago: float) -> str:
    """Let the last sign of the run's driver be so old; return when it was."""
    at = (datetime.now(UTC) - timedelta(seconds=seconds_ago)).isoformat(timespec="milliseconds")
    for tile in run.output.receipts():
        run.replace_receipt(replace(run.read_receipt(tile), written_at=at))
    storage.remove(run.output.receipt_url(run.output.receipts()[0]))
    run.write_run(run.read_run() | {"state": "running", "updated_at": at})
    return at


def test_a_run_that_has_long_given_no_sign_may_have_died(run: Ledger) -> None:
    at = leave_running(run, 3600)
    status = read_status(run.output)
    assert (status.stalled, status.pairs_per_second, status.eta_seconds) == (True, 0.0, None)
    rows = dict(status.to_rows())
    assert rows["state"].startswith(f"running, but nothing has moved since {at} (1:00:0")
    assert "its driver may have died; if so, run again to go on" in rows["state"]
    assert not {"rate", "ETA"} & rows.keys()
    assert "running (nothing new for 1:00:0" in status.to_line()
    assert "pairs/s" not in status.to_line()
    assert status.to_dict()["stalled"] is True


@pytest.mark.parametrize("sign", ["run.json", "receipt"])
def test_a_sign_of_life_is_the_record_or_a_receipt(run: Ledger, sign: str) -> None:
    leave_running(run, 3600)
    now = datetime.now(UTC).isoformat()
    if sign == "receipt":
        run.replace_receipt(replace(run.read_receipt(run.output.receipts()[0]), written_at=now))
    else:
        run.write_run(run.read_run() | {"updated_at": now})
    status = read_status(run.output)
    assert not status.stalled
    assert dict(status.to_rows())["state"].startswith("running, last update 0:00:0")


def test_a_damaged_run_is_not_published(run: Ledger) -> None:
    storage.remove(run.output.shard_url("y0000x0000"))
    with pytest.raises(CatalogError, match=r"tile y0000x0000: .* no shard; run again to make it"):
        publish_run(run.output)
