"""A finished run of the small field, made without Ray: the tiny model measures, tile by tile."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Sequence

import pyarrow as pa
import pyarrow.parquet as pq

from deblend_batch import flags, storage
from deblend_batch.catalog.ledger import Ledger, fingerprint
from deblend_batch.catalog.records import QuarantineRecord, Receipt, now
from deblend_batch.catalog.shard import encode, make_rows
from deblend_batch.config import make_config
from deblend_batch.engine.account.record import RunRecord
from deblend_batch.engine.account.tally import Tally
from deblend_batch.engine.inputs.fingerprint import fingerprint_parts
from deblend_batch.engine.inputs.index_task import index_field, index_tasks
from deblend_batch.engine.inputs.survey import open_fields
from deblend_batch.engine.inputs.weights import find_run_card
from deblend_batch.engine.inputs.work import RunContext, load_pairs
from deblend_batch.engine.inputs.workload import FieldTiles, Workload
from deblend_batch.engine.worker.batcher import Batcher
from deblend_batch.engine.worker.measurer import Measurer
from deblend_batch.models import load_model
from deblend_batch.tiling.tile import TileGrid
from tests.support import SmallField


def finish_run(small_field: SmallField, output: str) -> Ledger:
    """Leave in ``output`` what a complete run leaves."""
    config = make_config(small_field.config(output))
    ((entry, field),) = open_fields(config)
    card = find_run_card(config)
    parts = fingerprint_parts(config, [entry], card.sha256)
    ledger = Ledger(output)
    record = RunRecord.claim(ledger, config, parts)
    context = RunContext(
        output, config.model, card.stamp_size, None, False, fingerprint(parts), card.sha256
    )
    index = index_field(index_tasks(config, [entry], card.stamp_size)[0])
    tiles = FieldTiles(field.url, index, TileGrid(field.shape_yx, config.tiles.size), 1)
    model = load_model(config.model)
    measurer = Measurer(context, Batcher(model, 64), model.card.domain)
    tally = Tally(counted=True)
    tally.add_index(index)
    tally.pairs, tally.tiles = Workload([tiles], frozenset()).count()
    tally.retries["worker"] = 2
    for spec in tiles.specs():
        pairs = load_pairs(spec, context)
        found = measurer.measure(spec, pairs).measurement
        rows = make_rows(spec.name, pairs, found, field.meta.bands, field.meta.zero_point)
        tally.add_receipt(commit(ledger, spec.name, rows))
    record.save("complete", tally)
    return ledger


def commit(ledger: Ledger, tile: str, rows: pa.Table, left_out: Sequence[int] = ()) -> Receipt:
    """Write a tile's shard, and its receipt in the place of any earlier one."""
    shard, run = encode(rows), ledger.read_run()
    receipt = Receipt(
        tile,
        pairs=len(rows) // 2,
        rows=len(rows),
        bytes=len(shard),
        sha256=hashlib.sha256(shard).hexdigest(),
        fingerprint=run["fingerprint"],
        model_sha256=run["fingerprint_of"]["model"],
        flags=flags.count(rows["flags"].to_numpy()),
        seconds={"cut": 1.0, "infer": 1.0},
        worker={"device": "cpu"},
        written_at=now(),
        left_out=list(left_out),
    )
    storage.write_bytes(ledger.shard_url(tile), shard)
    ledger.replace_receipt(receipt)
    return receipt


def read_rows(ledger: Ledger, tile: str) -> pa.Table:
    """Read a tile's shard."""
    return pq.read_table(io.BytesIO(storage.read_bytes(ledger.shard_url(tile))))


def leave_out(ledger: Ledger, tile: str, n_pairs: int) -> None:
    """Move the first pairs of a tile from its shard to a quarantine record; run.json says so."""
    rows = read_rows(ledger, tile)
    ids = [rows[name].to_pylist() for name in ("blend_id", "source_id", "neighbour_id")]
    pairs = list(zip(*(column[: 2 * n_pairs : 2] for column in ids), strict=True))
    ledger.quarantine(QuarantineRecord(tile, "a chunk", "BadDataError", 1, pairs))
    commit(ledger, tile, rows.slice(2 * n_pairs), [blend for blend, _, _ in pairs])
    run = ledger.read_run()
    totals = run["totals"]
    totals["pairs"]["written"] -= n_pairs
    totals["pairs"]["quarantined"] += n_pairs
    totals["rows"] -= 2 * n_pairs
    receipts = ledger.read_receipts(ledger.receipts())
    totals["flags"] = flags.add_counts(receipt.flags for receipt in receipts)
    ledger.write_run({**run, "state": "complete_with_quarantine"})
