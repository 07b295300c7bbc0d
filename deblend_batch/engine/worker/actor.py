"""The model actor: one process, one device, one model; several tiles at a time in its threads."""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Sequence
from dataclasses import replace
from functools import partial

import numpy as np
import pyarrow as pa
import structlog
from numpy.typing import NDArray

from deblend_batch import flags
from deblend_batch.catalog.ledger import Ledger
from deblend_batch.catalog.masks import MaskStore
from deblend_batch.catalog.records import QuarantineRecord, Receipt, now
from deblend_batch.catalog.shard import make_rows
from deblend_batch.engine.batching.batcher import Batcher
from deblend_batch.engine.batching.sizing import probe_gpu
from deblend_batch.engine.inputs.work import (
    RunContext,
    TileSpec,
    load_blends,
    load_carried,
    open_field,
)
from deblend_batch.engine.methods.choice import method_of
from deblend_batch.engine.worker.commit import Committer, TileResult
from deblend_batch.engine.worker.exchange import (
    ModelLoader,
    Seat,
    TileOutcome,
    WorkerInfo,
    load_run_model,
)
from deblend_batch.engine.worker.measurer import Measured, Measurer
from deblend_batch.engine.worker.poison import NO_DATA, Poison, quarantine_record
from deblend_batch.engine.worker.process import choose_device, limit_threads, peak_rss_bytes
from deblend_batch.failure import classify, one_line
from deblend_batch.logs import configure_logs
from deblend_batch.tiling.blends import Blends

log = structlog.get_logger()

_BATCHES_ON_GPU = 2


class ModelActor:
    """Measures tiles: one per GPU, or per core where there is none, as an actor of Ray or a process.

    Parameters
    ----------
    context : RunContext
        The run.
    seat : Seat
        What is its own.
    loader : callable
        Makes the model; benchmarks give a stub here.

    Attributes
    ----------
    batcher : Batcher
        Of its model.
    """

    def __init__(
        self, context: RunContext, seat: Seat, loader: ModelLoader = load_run_model
    ) -> None:
        configure_logs(context.log_format, run=context.run)
        limit_threads(seat.threads)
        device = choose_device(seat.gpu_ids)
        self._context = context
        self._model = loader(context, device)
        self._method = method_of(self._model, keep_masks=context.masks)
        n_ahead = 1 if device == "cpu" else _BATCHES_ON_GPU
        batch_size = self._batch_size(device, seat.share)
        n_batches = self._method.batches + n_ahead
        self.batcher = Batcher(self._method, batch_size, n_batches, n_ahead)
        self._measurer = Measurer(context, self.batcher, self._method)
        self._committer = Committer(Ledger(context.output), MaskStore(context.output))
        self._began: float | None = None
        self._info = WorkerInfo(
            seat.node,
            os.getpid(),
            device,
            seat.gpu_ids,
            os.environ.get("CUDA_VISIBLE_DEVICES"),
            seat.threads,
        )

    def _batch_size(self, device: str, share: float) -> int:
        if self._context.batch_size:
            return self._context.batch_size
        if device == "cpu":
            return self._method.default_rows
        return probe_gpu(self._method, share)

    def ready(self) -> WorkerInfo:
        """Return where the actor runs; resolves when it can take tiles."""
        return self._info

    def process(
        self,
        spec: TileSpec,
        known: Sequence[Poison] = (),
        attempt: int = 1,
        pieces: int = 1,
    ) -> TileOutcome:
        """Measure a tile and commit it; blends that cannot be measured go to the quarantine."""
        with structlog.contextvars.bound_contextvars(tile=spec.name, attempt=attempt):
            try:
                outcome = self._process(spec, known, pieces)
            except Exception as error:
                log.warning("failed", failure=classify(error).value, reason=one_line(error))
                raise
            receipt, record = outcome.receipt, outcome.record
            if receipt is not None:
                log.info("written", pairs=receipt.pairs, **receipt.seconds)
            if record is not None:
                log.warning("left out", pairs=len(record.pairs), reason=record.reason)
            return outcome

    def _process(self, spec: TileSpec, known: Sequence[Poison], pieces: int) -> TileOutcome:
        self._began = self._began or time.monotonic()
        blends = load_blends(spec, self._context)
        left = np.setdiff1d(np.arange(len(blends)), [poison.row for poison in known])
        measured, found = self._measurer.measure_sound(spec, blends[left], pieces)
        poison = [*known, *(replace(each, row=int(left[each.row])) for each in found)]
        poison.sort(key=lambda each: each.row)
        failures = sum(each.error != NO_DATA for each in poison)
        sound = np.setdiff1d(left, [each.row for each in poison])
        if not len(sound):
            return TileOutcome(None, quarantine_record(spec.name, blends, poison), failures)
        receipt, record = self._commit(spec, blends, sound, measured, poison)
        return TileOutcome(receipt, record, failures)

    def probe(self, spec: TileSpec, start: int, stop: int) -> None:
        """Measure some blends of a tile and forget them: to learn whether this process survives."""
        self._measurer.measure(spec, load_blends(spec, self._context)[start:stop])

    def _commit(
        self,
        spec: TileSpec,
        blends: Blends,
        sound: NDArray[np.int64],
        measured: Measured,
        poison: Sequence[Poison],
    ) -> tuple[Receipt, QuarantineRecord | None]:
        opened = open_field(spec.field_url, self._context)
        rows = make_rows(
            spec.name,
            blends[sound],
            measured.measurement,
            opened.meta,
            self._context.model_name,
            opened.pixel_scale_arcsec,
            load_carried(spec, self._context, sound, blends[sound]),
        )
        result = TileResult(spec, blends, rows, measured.masks, poison)
        describe = partial(self._receipt, spec.name, measured.seconds)
        return self._committer.commit(result, describe)

    def _receipt(
        self,
        tile: str,
        seconds: dict[str, float],
        rows: pa.Table,
        shard: bytes,
        left_out: list[int],
        masks_sha256: str | None,
    ) -> Receipt:
        return Receipt(
            tile=tile,
            pairs=len(rows["blend_id"].unique()),
            rows=len(rows),
            bytes=len(shard),
            sha256=hashlib.sha256(shard).hexdigest(),
            fingerprint=self._context.fingerprint,
            model_sha256=self._context.model_sha256,
            flags=flags.count(rows["flags"].to_numpy()),
            seconds={name: round(value, 4) for name, value in seconds.items()},
            worker={
                **vars(self._info),
                "batch_size": self.batcher.rows_at_once,
                "peak_rss": peak_rss_bytes(),
                **self._times(),
            },
            written_at=now(),
            left_out=left_out,
            masks_sha256=masks_sha256,
        )

    def _times(self) -> dict[str, float]:
        """Return how long the model has computed, and how long there has been something to do."""
        up = time.monotonic() - (self._began or time.monotonic())
        busy = self.batcher.work().busy_seconds
        return {"busy_seconds": round(busy, 4), "up_seconds": round(up, 4)}
