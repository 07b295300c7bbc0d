"""A finished run of the small field, made without Ray: the tiny model measures, tile by tile."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Sequence

import pyarrow as pa
import pyarrow.parquet as pq

from deblend_batch import flags, storage
from deblend_batch.catalog.ledger import Ledger
from deblend_batch.catalog.records import QuarantineRecord, Receipt, now
from deblend_batch.catalog.shard import encode, make_rows
from deblend_batch.config import make_config
from deblend_batch.engine.account.record import RunRecord
from deblend_batch.engine.account.tally import Tally
from deblend_batch.engine.batching.batcher import Batcher
from deblend_batch.engine.inputs.index.indexing import index_field
from deblend_batch.engine.inputs.prepare import prepare
from deblend_batch.engine.inputs.work import load_blends
from deblend_batch.engine.inputs.workload import Workload
from deblend_batch.engine.methods.choice import method_of
from deblend_batch.engine.worker.measurer import Measurer
from deblend_batch.models import load_model
from tests.support import SmallField


def finish_run(small_field: SmallField, output: str) -> Ledger:
    """Leave in ``output`` what a complete run leaves."""
    prepared = prepare(make_config(small_field.config(output)))
    ledger = Ledger(prepared.output)
    record = RunRecord.claim(ledger, prepared.config, prepared.fingerprint_parts)
    (index,) = [index_field(task) for task in prepared.index_tasks()]
    (tiles,) = prepared.tiles([index])
    meta, context = prepared.fields[0].meta, prepared.context
    model = load_model(prepared.config.model)
    method = method_of(model)
    measurer = Measurer(context, Batcher(method, 64), method)
    tally = Tally(counted=True)
    tally.add_index(index)
    tally.pairs, tally.tiles = Workload([tiles], frozenset()).count()
    tally.retries["worker"] = 2
    for spec in tiles.specs():
        blends = load_blends(spec, context)
        found = measurer.measure(spec, blends).measurement
        rows = make_rows(spec.name, blends, found, meta, context.model_name)
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
    storage.write_bytes(ledger.output.shard_url(tile), shard)
    ledger.replace_receipt(receipt)
    return receipt


def read_rows(ledger: Ledger, tile: str) -> pa.Table:
    """Read a tile's shard."""
    return pq.read_table(io.BytesIO(storage.read_bytes(ledger.output.shard_url(tile))))


def leave_out(ledger: Ledger, tile: str, n_pairs: int) -> None:
    """Move the first pairs of a tile from its shard to a quarantine record; run.json says so."""
    rows = read_rows(ledger, tile)
    ids = [rows[name].to_pylist() for name in ("blend_id", "source_id", "neighbour_id")]
    pairs = list(zip(*(column[: 2 * n_pairs : 2] for column in ids), strict=True))
    ledger.quarantine(QuarantineRecord(tile, "a chunk", "BadDataError", 1, pairs))
    commit(ledger, tile, rows.slice(2 * n_pairs), [blend for blend, *_ in pairs])
    run = ledger.read_run()
    totals = run["totals"]
    totals["pairs"]["written"] -= n_pairs
    totals["pairs"]["quarantined"] += n_pairs
    totals["rows"] -= 2 * n_pairs
    receipts = ledger.read_receipts(ledger.output.receipts())
    totals["flags"] = flags.add_counts(receipt.flags for receipt in receipts)
    ledger.write_run({**run, "state": "complete_with_quarantine"})
