"""A run seen from its files alone: what is counted once, and what damage is found."""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pytest

from deblend_batch import storage
from deblend_batch.catalog.ledger import Ledger, QuarantineRecord, Receipt, now
from deblend_batch.catalog.shard import Measurement, encode, make_rows
from deblend_batch.config import PairsConfig
from deblend_batch.engine.index import IndexReader
from deblend_batch.engine.index_task import IndexTask, index_field
from deblend_batch.engine.inspect import _recent_rate, read_status, verify_run
from deblend_batch.engine.survey import SurveyEntry
from deblend_batch.errors import CatalogError
from deblend_batch.tiling.pairs import Pairs
from tests.support import SmallField


def measured(pairs: Pairs) -> Measurement:
    """A measurement that no model made."""
    flux = np.ones((len(pairs), 1, 2), np.float32)
    nothing = np.full((len(pairs), 2), np.nan, np.float32)
    return Measurement(flux, flux, nothing, nothing, pairs.flags)


@pytest.fixture
def run(small_field: SmallField, tmp_path: Path) -> Ledger:
    """What a complete run of the small field leaves, without Ray and without a model."""
    ledger = Ledger(str(tmp_path / "out"))
    entry = SurveyEntry("", small_field.url, small_field.detections, shared_table=False)
    url = storage.join(ledger.output, "index", "field.parquet")
    index = index_field(IndexTask(entry, url, 200, 32, PairsConfig(), {}, {}))
    reader = IndexReader(url, {})
    for tile, start, stop in zip(
        index.tile_names, index.starts[:-1].tolist(), index.starts[1:].tolist(), strict=True
    ):
        pairs = reader.read(start, stop)
        shard = encode(make_rows(tile, pairs, measured(pairs), ["h"], [25.96]))
        digest = hashlib.sha256(shard).hexdigest()
        n = stop - start
        seconds = {"cut": 1.0, "infer": 1.0}
        receipt = Receipt(tile, n, 2 * n, len(shard), digest, "f", "m", {}, seconds, {}, now())
        ledger.commit(shard, receipt)
    counts = {"expected": index.n_pairs, "written": index.n_pairs, "quarantined": 0}
    totals = {"pairs": counts, "retries": {"worker": 2}}
    state = {"state": "complete", "updated_at": now(), "totals": totals}
    ledger.write_run({"deblend_batch_run": 1, "config": {}, **state})
    return ledger


def quarantine(ledger: Ledger, tile: str) -> None:
    """Put a tile in quarantine."""
    ledger.quarantine(QuarantineRecord(tile, "a chunk", "BadDataError", 1, []))


def test_a_complete_run_is_sound(run: Ledger) -> None:
    found, status = verify_run(run.output), read_status(run.output)
    assert (found.problems, found.exit_code, found.tiles) == ((), 0, 9)
    assert found.rows == 2 * found.pairs
    assert status.pairs_written == status.pairs_expected == found.pairs
    assert (status.eta_seconds, status.failures) == (None, {"retried, worker": 2})
    assert status.pairs_per_second > 0


@pytest.mark.parametrize("finished", [True, False], ids=["and has a shard", "and has none"])
def test_a_tile_in_quarantine_is_counted_once(run: Ledger, finished: bool) -> None:
    """A worker that was given up may still finish its tile: the shard is what counts."""
    tile = run.shards()[0]
    pairs = run.read_receipt(tile).pairs
    quarantine(run, tile)
    if not finished:
        storage.remove(run.shard_url(tile))
    status, found = read_status(run.output), verify_run(run.output)
    assert status.pairs_quarantined == found.quarantined == (0 if finished else pairs)
    assert status.pairs_written + status.pairs_quarantined == status.pairs_expected
    assert status.tiles_written + status.tiles_quarantined == status.tiles_expected
    assert found.exit_code == (0 if finished else 3)


def write_receipts_at(run: Ledger, offsets: Sequence[float]) -> list[int]:
    """Let the tiles, the last name first, be finished at these seconds; return their pairs."""
    began, pairs = datetime(2026, 1, 1, tzinfo=UTC), []
    for tile, offset in zip(reversed(run.receipts()), offsets, strict=True):
        at = began + timedelta(seconds=offset)
        receipt = replace(run.read_receipt(tile), written_at=at.isoformat())
        storage.remove(run.receipt_url(tile))
        run.commit(storage.read_bytes(run.shard_url(tile)), receipt)
        os.utime(run.receipt_url(tile), (at.timestamp(), at.timestamp()))
        pairs.append(receipt.pairs)
    return pairs


def test_the_rate_does_not_span_a_pause(run: Ledger) -> None:
    pairs = write_receipts_at(run, [0, 4, 8, 12, 5000, 5004, 5008, 5012, 5016])
    # Each tile took 2 s, so that the second start began 2 s before its first receipt.
    assert read_status(run.output).pairs_per_second == pytest.approx(sum(pairs[4:]) / 18)


def test_the_rate_is_of_the_last_receipts_not_of_the_last_names(run: Ledger) -> None:
    pairs = write_receipts_at(run, [0, 9, 18, 27, 36, 37, 38, 39, 40])
    rate = _recent_rate(run, set(run.receipts()), sample=4)
    assert rate == pytest.approx(sum(pairs[-4:]) / 5)


def test_tiles_that_finish_in_bursts_are_no_pause(run: Ledger) -> None:
    pairs = write_receipts_at(run, [0, 0, 0, 2, 2, 2, 4, 4, 4])
    assert read_status(run.output).pairs_per_second == pytest.approx(sum(pairs) / 6)


def _damage_receipt(run: Ledger, tile: str) -> None:
    storage.write_bytes(run.receipt_url(tile), b'{"tile": ')


def _wrong_rows(run: Ledger, tile: str) -> None:
    receipt = replace(run.read_receipt(tile), rows=1)
    storage.remove(run.receipt_url(tile))
    run.commit(storage.read_bytes(run.shard_url(tile)), receipt)


def _copy_of_another(run: Ledger, tile: str) -> None:
    other = run.shards()[1]
    receipt = replace(run.read_receipt(other), tile=tile)
    storage.remove(run.receipt_url(tile))
    run.commit(storage.read_bytes(run.shard_url(other)), receipt)


def _wrong_totals(run: Ledger, _: str) -> None:
    record = run.read_run()
    record["totals"]["pairs"]["written"] -= 1
    run.write_run(record)


@pytest.mark.parametrize(
    ("spoil", "problem"),
    [
        (_damage_receipt, r"ledger/y0000x0000.json: damaged \(.*\); remove it and run again"),
        (_wrong_rows, r"shard y0000x0000: \d+ rows for \d+ pairs"),
        (_copy_of_another, r"blend \d+: in 2 places"),
        (_wrong_totals, "run.json: totals do not add up"),
    ],
    ids=["receipt damaged", "wrong number of rows", "pairs twice", "totals"],
)
def test_verify_names_the_damage(
    run: Ledger, spoil: Callable[[Ledger, str], None], problem: str
) -> None:
    spoil(run, "y0000x0000")
    found = verify_run(run.output)
    assert found.exit_code == 2
    assert any(re.search(problem, line) for line in found.problems)
    assert ("verdict", f"{len(found.problems)} problems") in found.to_rows()


def test_a_damaged_index_is_one_line(run: Ledger) -> None:
    storage.write_bytes(storage.join(run.output, "index", "field.parquet"), b"PAR1")
    for look in (read_status, verify_run):
        with pytest.raises(
            CatalogError, match=r"index/field.parquet: damaged .*; remove it and run"
        ):
            look(run.output)
