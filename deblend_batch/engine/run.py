"""A run: config in, catalogue shards out."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from functools import partial
from typing import Any

import ray
import structlog

from deblend_batch import storage
from deblend_batch.catalog.ledger import Ledger, fingerprint
from deblend_batch.catalog.masks import MaskStore
from deblend_batch.catalog.records import QuarantineRecord, Receipt
from deblend_batch.cluster.connection import connected
from deblend_batch.cluster.failure import Failure, ask, one_line
from deblend_batch.cluster.metrics import published
from deblend_batch.config import RunConfig, load_config, make_config
from deblend_batch.engine.account.done import read_done, reopen
from deblend_batch.engine.account.metrics import RunMetrics
from deblend_batch.engine.account.record import RunRecord
from deblend_batch.engine.account.summary import RunSummary, notes_on
from deblend_batch.engine.account.tally import Tally
from deblend_batch.engine.driver.depth import GROWTH
from deblend_batch.engine.driver.events import Events
from deblend_batch.engine.driver.loop import Driver
from deblend_batch.engine.driver.signals import stop_signals
from deblend_batch.engine.inputs.access import check_output, check_places, check_tables
from deblend_batch.engine.inputs.fingerprint import fingerprint_parts
from deblend_batch.engine.inputs.index import FieldIndex, unused_url
from deblend_batch.engine.inputs.index_task import IndexTask, index_field, index_tasks
from deblend_batch.engine.inputs.reconcile import reconcile, unplaced_record
from deblend_batch.engine.inputs.survey import check_reachable, open_fields, tables_of
from deblend_batch.engine.inputs.weights import find_run_card
from deblend_batch.engine.inputs.work import RunContext
from deblend_batch.engine.inputs.workload import FieldTiles, Workload
from deblend_batch.engine.needs.memory import (
    MemoryUse,
    cluster_nodes,
    largest_batch,
    model_needs,
    project_run,
)
from deblend_batch.engine.needs.pool import ActorPool, plan_pool
from deblend_batch.engine.needs.projection import ModelNeeds, check_fits, most_that_fit
from deblend_batch.engine.worker.actor import ModelLoader, WorkerInfo, load_run_model
from deblend_batch.engine.worker.process import peak_rss_bytes
from deblend_batch.errors import InterruptedRunError, RunStoppedError, TransientStorageError
from deblend_batch.logs import chosen_format, tell_always
from deblend_batch.progress import ProgressMeter
from deblend_batch.tiling.tile import TileGrid

log = structlog.get_logger()

_INDEX_AHEAD = 4


def process_field(
    config: RunConfig | Mapping[str, Any] | str,
    *,
    progress: ProgressMeter | None = None,
    loader: ModelLoader = load_run_model,
) -> RunSummary:
    """Process a field or a survey: the main job.

    Run it again to resume: finished tiles are not done again.

    Parameters
    ----------
    config : RunConfig, mapping, or str
        The config, or the path or URL of its YAML file.
    progress : ProgressMeter, optional
        Told of every finished tile; one on the standard error if None.
    loader : callable, optional
        Makes the model in each actor; benchmarks give a stub of fixed speed here.

    Returns
    -------
    RunSummary
        How it ended.

    Raises
    ------
    UserError
        If an input, an option or the output cannot be used.
    RunStoppedError
        If going on would only repeat the same failure.
    InterruptedRunError
        On SIGINT or SIGTERM; running again resumes.
    """
    run = _Run(settle(config), progress or ProgressMeter("pairs"), loader)
    return run.execute()


def retry_run(output: str, options: dict[str, Any] | None = None) -> RunSummary:
    """Process the quarantined tiles of a run again, with the config it was started with.

    Parameters
    ----------
    output : str
        Output folder.
    options : dict, optional
        Storage options; ``run.json`` keeps none.

    Returns
    -------
    RunSummary
        How it ended.

    Raises
    ------
    CatalogError
        If the folder holds no run.
    UserError
        If its inputs cannot be used or have changed; the quarantine is then left as it is.
    InterruptedRunError
        On SIGINT or SIGTERM; running again resumes.
    """
    started_with = Ledger(output, options).read_run()["config"]
    config = make_config({**started_with, "output": output, "storage_options": options or {}})
    return _Run(config, ProgressMeter("pairs"), load_run_model, retry=True).execute()


def settle(config: RunConfig | Mapping[str, Any] | str) -> RunConfig:
    """Return a config from whatever a caller has: a config, a mapping, or a file's URL."""
    if isinstance(config, RunConfig):
        return config.with_absolute_paths()
    return load_config(config) if isinstance(config, str) else make_config(config)


class _Run:
    def __init__(
        self, config: RunConfig, meter: ProgressMeter, loader: ModelLoader, *, retry: bool = False
    ) -> None:
        self._config = config
        self._meter = meter
        self._loader = loader
        self._retry = retry
        self._ledger = Ledger(config.output, config.storage_options)
        self._tally = Tally()
        self._unused: list[str] = []
        self._unflagged: list[str] = []
        self._began: float | None = None
        self._seconds = 0.0

    def execute(self) -> RunSummary:
        with closing(self._meter), stop_signals():
            try:
                self._prepare()
            except KeyboardInterrupt as stop:
                raise self._interrupted() from stop
            try:
                # Ray puts a handler of its own in our handler's place.
                with connected() as resources, stop_signals():
                    self._process(resources)
                return self._finish()
            except (KeyboardInterrupt, SystemExit) as stop:
                self._record.abandon("interrupted", self._tally)
                raise self._interrupted() from stop
            except BaseException as error:
                self._record.abandon("failed", self._tally, error)
                raise

    def _interrupted(self) -> InterruptedRunError:
        pairs = self._tally.pairs
        how_far = f"with {pairs.pending:,} of {pairs.expected:,} pairs still to do"
        return InterruptedRunError(
            f"{self._config.output}: interrupted "
            f"{how_far if self._tally.counted else 'before its first tile'}; "
            "run the same command again to resume"
        )

    def _prepare(self) -> None:
        """Look at every input, and take the output: whatever is wrong is said before any work."""
        config = self._config
        check_reachable(config)
        opened = open_fields(config)
        check_places(config, [entry for entry, _ in opened])
        detections = [entry.detections_url for entry, _ in opened]
        check_tables(tables_of(config, detections), config.storage_options)
        self._entries = [entry for entry, _ in opened]
        self._fields = [field for _, field in opened]
        self._grids = [TileGrid(field.shape_yx, config.tiles.size) for field in self._fields]
        self._card = card = find_run_card(config)
        parts = fingerprint_parts(config, self._entries, card.sha256)
        self._context = RunContext(
            output=config.output,
            model=config.model,
            stamp_size=card.stamp_size,
            batch_size=config.engine.batch_size,
            masks=config.masks,
            fingerprint=fingerprint(parts),
            model_sha256=card.sha256,
            options=config.storage_options,
            log_format=chosen_format(),
        )
        check_output(config.output, config.storage_options)
        run = self._context.run
        tell_always(run=run)
        self._record = RunRecord.claim(self._ledger, config, parts)
        self._metrics = RunMetrics(run, self._tally, self._meter, config.engine.deadline)
        if config.masks:
            MaskStore(config.output, config.storage_options).create()

    def _process(self, resources: Mapping[str, float]) -> None:
        engine = self._config.engine
        pool = plan_pool(engine, resources)
        events = Events(
            self._done,
            self._quarantined,
            self._left_out,
            self._retried,
            self._joined,
            partial(_warn_of_waiting, pool),
            self._tick,
        )
        self._record.begin(self._tally)
        driver = Driver(self._context, pool, engine, events, self._loader)
        self._metrics.watch(driver)
        with closing(driver), published(self._metrics.publish):
            driver.start()
            pending = self._plan(pool).pending()
            self._record.begin(self._tally)
            proven = self._tally.tiles.written > 0
            driver.run(pending, self._most_in_flight, proven=proven)
        self._seconds = 0.0 if self._began is None else time.monotonic() - self._began

    def _plan(self, pool: ActorPool) -> Workload:
        """Index every field, and count what is there and what is left."""
        tasks = index_tasks(self._config, self._entries, self._context.stamp_size)
        indexes = self._index(tasks)
        self._project(pool, model_needs(self._card, largest_batch(self._config, pool)), indexes)
        nowhere = ask(_on_cluster(reconcile).remote(tasks)) if len(tasks) > 1 else []
        workload = self._workload(indexes)
        tally = self._tally
        tally.pairs, tally.tiles = workload.count()
        for entry, index in zip(self._entries, indexes, strict=True):
            tally.add_index(index)
            if index.n_unused and entry.first_of_table:
                self._unused.append(unused_url(index.url))
        unplaced = [pair for index in indexes for pair in index.unplaced] + nowhere
        if unplaced:
            record = unplaced_record(unplaced)
            self._ledger.quarantine(record)
            tally.add_unplaced(record)
        tally.counted = True
        self._meter.expect(tally.pairs.expected, tally.pairs.expected - tally.pairs.pending)
        return workload

    def _project(self, pool: ActorPool, needs: ModelNeeds, indexes: Sequence[FieldIndex]) -> None:
        """Project the run's memory, and find how far prefetching may go where a store answers late."""
        config, nodes = self._config, cluster_nodes()
        project = partial(project_run, config, needs, self._fields, indexes, pool)
        check_fits(project(), pool, nodes)
        least = config.engine.tiles_in_flight
        far = any(not storage.is_local(field.url) for field in self._fields)
        most = GROWTH * least if far else least
        self._most_in_flight = most_that_fit(project, pool, nodes, least, most)
        self._memory = project(self._most_in_flight)

    def _index(self, tasks: Sequence[IndexTask]) -> list[FieldIndex]:
        """Index the fields on the cluster, a few at a time; of each only a number a tile comes back."""
        remote = _on_cluster(index_field)
        ahead: deque[Any] = deque()
        indexes: list[FieldIndex] = []
        for task in tasks:
            if len(ahead) == _INDEX_AHEAD:
                indexes.append(ask(ahead.popleft()))
            ahead.append(remote.remote(task))
        return indexes + [ask(ref) for ref in ahead]

    def _workload(self, indexes: Sequence[FieldIndex]) -> Workload:
        ledger = self._ledger
        if self._retry:
            reopen(ledger, MaskStore(ledger.output, ledger.options))
        finished, held = read_done(ledger)
        self._count_flags(finished)
        fields = [
            FieldTiles(entry.field_url, index, grid, field.n_bands)
            for entry, index, grid, field in zip(
                self._entries, indexes, self._grids, self._fields, strict=True
            )
        ]
        return Workload(fields, finished, held)

    def _count_flags(self, finished: set[str]) -> None:
        """Take the flags of finished tiles from ``run.json`` if it knows all, else from their receipts."""
        known = self._record.flags_of(len(finished))
        if known is None:
            self._unflagged = sorted(finished)
        else:
            self._tally.add_flags(known, len(finished))

    def _done(self, receipt: Receipt) -> None:
        self._tally.add_receipt(receipt)
        self._metrics.add_receipt(receipt)
        self._advance(receipt.pairs)

    def _advance(self, pairs: int) -> None:
        tiles = self._tally.tiles
        done = tiles.expected - tiles.pending
        self._meter.advance(pairs, f"tiles {done:,}/{tiles.expected:,}")

    def _quarantined(self, record: QuarantineRecord) -> None:
        self._ledger.quarantine(record)
        self._tally.add_quarantine(record)
        self._advance(len(record.pairs))
        _warn_of("quarantined", record)

    def _left_out(self, record: QuarantineRecord) -> None:
        self._tally.add_left_out(record)
        self._advance(len(record.pairs))
        _warn_of("left out", record)

    def _retried(self, tile: str, attempt: int, failure: Failure, reason: str) -> None:
        self._tally.retries[failure.value] += 1
        log.warning("retry", tile=tile, attempt=attempt, failure=failure.value, reason=reason)

    def _joined(self, worker: WorkerInfo) -> None:
        if self._began is None:
            self._meter.start()
            self._began = time.monotonic()
        if worker.gpu_ids and worker.device == "cpu":
            log.warning("torch cannot use the GPU that Ray gave", node=worker.node, pid=worker.pid)
        self._tally.workers.append(vars(worker))

    def _tick(self) -> None:
        self._meter.tick()
        if self._record.overdue():
            try:
                self._record.save("running", self._tally)
            except TransientStorageError as error:  # the ledger is what counts
                log.warning("run.json is not up to date", reason=one_line(error))

    def _finish(self) -> RunSummary:
        tally, pairs = self._tally, self._tally.pairs
        for receipt in self._ledger.read_receipts(self._unflagged):
            tally.add_flags(receipt.flags)
        if pairs.pending:
            raise RunStoppedError(
                f"{self._config.output}: the ledger does not add up: {pairs.expected} pairs "
                f"expected, {pairs.written} written, {pairs.quarantined} quarantined"
            )
        state = "complete_with_quarantine" if pairs.quarantined else "complete"
        memory = MemoryUse(tally.peak_rss, peak_rss_bytes(), self._memory)
        self._record.save(state, tally, memory=memory.to_dict() if tally.workers else None)
        return RunSummary(
            output=self._config.output,
            state=state,
            totals=tally.totals(),
            seconds=self._seconds,
            pairs_per_second=tally.pairs_here / self._seconds if self._seconds else 0.0,
            unused=tuple(self._unused),
            notes=notes_on(self._config, tally),
            memory=memory if tally.workers else None,
        )


def _warn_of_waiting(pool: ActorPool, n_actors: int) -> None:
    free, all_there_is = ray.available_resources(), ray.cluster_resources()
    kinds = ("CPU", "GPU")
    log.warning(
        "no model actor is ready yet",
        waiting_for=n_actors,
        each_needs=f"{pool.cpus:g} CPU, {pool.gpus:g} GPU",
        free=", ".join(f"{free.get(k, 0):g} of {all_there_is.get(k, 0):g} {k}" for k in kinds),
        mend="end what holds them, or ask for fewer or smaller actors (engine.actors, gpus_per_actor)",
    )


def _warn_of(event: str, record: QuarantineRecord) -> None:
    log.warning(
        event,
        tile=record.tile,
        attempt=record.attempts,
        pairs=len(record.pairs),
        error=record.error,
        reason=record.reason,
    )


def _on_cluster(work: Callable[..., Any]) -> Any:
    """Make a task of the preparation: it takes no core from the actors that start meanwhile."""
    return ray.remote(work).options(num_cpus=0)
