"""A run: config in, catalogue shards out."""

from __future__ import annotations

import time
from collections.abc import Mapping
from contextlib import ExitStack, closing
from dataclasses import dataclass
from functools import partial
from typing import Any

import structlog

from deblend_batch import storage
from deblend_batch.catalog.ledger import Ledger
from deblend_batch.catalog.masks import MaskStore
from deblend_batch.catalog.output import Output
from deblend_batch.catalog.records import QuarantineRecord, Receipt
from deblend_batch.cluster.metrics import published
from deblend_batch.cluster.workers import ALONE
from deblend_batch.config import RunConfig, load_config, make_config
from deblend_batch.engine.account.done import read_done, reopen
from deblend_batch.engine.account.metrics import RunMetrics
from deblend_batch.engine.account.record import RunRecord, config_of
from deblend_batch.engine.account.summary import RunSummary, notes_on
from deblend_batch.engine.account.tally import Tally
from deblend_batch.engine.crew.opening import open_place
from deblend_batch.engine.crew.place import Place
from deblend_batch.engine.crew.where import Where, named_place, worth_ray
from deblend_batch.engine.driver.depth import GROWTH
from deblend_batch.engine.driver.events import Events
from deblend_batch.engine.driver.loop import Driver
from deblend_batch.engine.driver.signals import stop_signals
from deblend_batch.engine.inputs.prepare import prepare
from deblend_batch.engine.inputs.reconcile import unplaced_record
from deblend_batch.engine.inputs.workload import Workload
from deblend_batch.engine.needs.admission import Examined, examine, fit
from deblend_batch.engine.needs.memory import MemoryUse
from deblend_batch.engine.needs.pool import ActorPool, plan_pool
from deblend_batch.engine.needs.projection import Memory, most_that_fit
from deblend_batch.engine.worker.exchange import ModelLoader, WorkerInfo, load_run_model
from deblend_batch.engine.worker.process import peak_rss_bytes
from deblend_batch.errors import (
    CatalogError,
    InterruptedRunError,
    RunStoppedError,
    TransientStorageError,
)
from deblend_batch.failure import Failure, one_line
from deblend_batch.logs import tell_always
from deblend_batch.progress import ProgressMeter

log = structlog.get_logger()


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


def retry_run(output: Output) -> RunSummary:
    """Process the quarantined tiles of a run again, with the config it was started with.

    Parameters
    ----------
    output : Output
        Output folder, with the storage options of the run: ``run.json`` keeps none.

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
    run = Ledger(output).read_run()
    if (parts := run.get("parts")) is not None:
        raise CatalogError(
            f"{output}: merged of {len(parts)} outputs; retry those that have pairs in quarantine, and merge "
            "again"
        )
    config = config_of(output, run)
    return _Run(config, ProgressMeter("pairs"), load_run_model, retry=True).execute()


def settle(config: RunConfig | Mapping[str, Any] | str) -> RunConfig:
    """Return a config from whatever a caller has.

    Parameters
    ----------
    config : RunConfig, mapping, or str
        The config, or the path or URL of its YAML file.

    Returns
    -------
    RunConfig
        The config, local paths made absolute.
    """
    if isinstance(config, RunConfig):
        return config.with_absolute_paths()
    return load_config(config) if isinstance(config, str) else make_config(config)


@dataclass(frozen=True)
class _Site:
    """A place with the driver of its workers."""

    place: Place
    pool: ActorPool
    driver: Driver


class _Run:
    def __init__(
        self, config: RunConfig, meter: ProgressMeter, loader: ModelLoader, *, retry: bool = False
    ) -> None:
        self._config = config
        self._meter = meter
        self._loader = loader
        self._retry = retry
        self._ledger = Ledger(Output(config.output, config.storage_options))
        self._tally = Tally()
        self._unused: list[str] = []
        self._notes: tuple[str, ...] = ()
        self._uncounted: list[str] = []
        self._metrics: RunMetrics | None = None
        self._memory: Memory | None = None
        self._began: float | None = None
        self._seconds = 0.0

    def execute(self) -> RunSummary:
        with closing(self._meter), stop_signals():
            try:
                self._prepare()
            except KeyboardInterrupt as stop:
                raise self._interrupted() from stop
            try:
                self._process()
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
        self._prepared = prepared = prepare(self._config)
        run = prepared.context.run
        tell_always(run=run)
        self._record = RunRecord.claim(self._ledger, self._config, prepared.fingerprint_parts)
        if self._config.masks:
            MaskStore(self._ledger.output).create()

    def _process(self) -> None:
        """Index the fields, and measure what is left where that pays: on Ray, or on this machine."""
        where = named_place(self._config.engine)
        with ExitStack() as stack:
            site = None
            if not self._record.counted_before:  # else nothing may be left
                site = self._site(stack, where or "local")
                site.driver.start()  # workers load their model while the fields are indexed
            workers = ALONE if site is None else site.place.workers
            examined = examine(self._prepared.index_tasks(), workers)
            work = self._count(examined)
            self._record.begin(self._tally)
            if self._tally.tiles.pending:
                site = self._settled(stack, site, where)
                self._project(site, examined)
                proven = self._tally.tiles.written > 0
                site.driver.run(work.pending(), self._most_in_flight, proven=proven)
                self._seconds = 0.0 if self._began is None else time.monotonic() - self._began

    def _settled(self, stack: ExitStack, site: _Site | None, where: Where | None) -> _Site:
        """Return where the tiles that are left are measured, now that it is known how many there are."""
        site = site or self._site(stack, where or "local")
        n_bands = max(field.n_bands for field in self._prepared.fields)
        n_stamps, takes_pairs = n_bands * self._tally.pairs.pending, self._prepared.card.takes_pairs
        if where is None and worth_ray(n_stamps, site.pool, takes_pairs=takes_pairs):
            site.driver.close()
            return self._site(stack, "ray")
        return site

    def _site(self, stack: ExitStack, where: Where) -> _Site:
        """Open a place, with a driver whose workers are not started yet; the stack ends both."""
        engine = self._config.engine
        place = stack.enter_context(open_place(where))
        stack.enter_context(stop_signals())  # Ray puts a handler of its own in our handler's place
        pool = plan_pool(engine, place.resources)
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
        context = self._prepared.context
        crew = place.make_crew(context, pool, GROWTH * engine.tiles_in_flight, self._loader)
        at_first = engine.actors or place.at_first
        driver = Driver(context, crew, pool, engine, events, at_first)
        stack.enter_context(closing(driver))
        if place.on_ray:
            self._metrics = RunMetrics(context.run, self._tally, self._meter, engine.deadline)
            self._metrics.watch(driver)
            stack.enter_context(published(self._metrics.publish))
        return _Site(place, pool, driver)

    def _count(self, examined: Examined) -> Workload:
        """Count what is there and what is left."""
        workload = self._workload(examined)
        prepared, tally = self._prepared, self._tally
        self._notes = examined.notes
        tally.pairs, tally.tiles = workload.count()
        for entry, index in zip(prepared.entries, examined.indexes, strict=True):
            tally.add_index(index)
            if index.n_unused and entry.first_of_table:
                self._unused.append(prepared.output.unused_url(entry.index_name()))
        if examined.unplaced:
            record = unplaced_record(examined.unplaced)
            self._ledger.quarantine(record)
            tally.add_unplaced(record)
        tally.counted = True
        self._meter.expect(tally.pairs.expected, tally.pairs.expected - tally.pairs.pending)
        return workload

    def _project(self, site: _Site, examined: Examined) -> None:
        """Project the run's memory, and find how far prefetching may go where a store answers late."""
        pool, nodes = site.pool, site.place.nodes
        project = fit(self._prepared, examined, pool, nodes, on_ray=site.place.on_ray)
        least = self._config.engine.tiles_in_flight
        far = any(not storage.is_local(field.url) for field in self._prepared.fields)
        most = GROWTH * least if far else least
        self._most_in_flight = most_that_fit(project, pool, nodes, least, most)
        self._memory = project(self._most_in_flight)

    def _workload(self, examined: Examined) -> Workload:
        ledger = self._ledger
        if self._retry:
            reopen(ledger, MaskStore(ledger.output))
        finished, held = read_done(ledger)
        self._count_rows(finished)
        return Workload(self._prepared.tiles(examined.indexes), finished, held)

    def _count_rows(self, finished: set[str]) -> None:
        """Take the rows of finished tiles from ``run.json`` if it knows all, else from their receipts."""
        known = self._record.counted_of(len(finished))
        if known is None:
            self._uncounted = sorted(finished)
        else:
            flagged, rows = known
            self._tally.add_rows(rows, flagged, len(finished))

    def _done(self, receipt: Receipt) -> None:
        self._tally.add_receipt(receipt)
        if self._metrics is not None:
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
            log.warning("torch cannot use the GPU that was given", node=worker.node, pid=worker.pid)
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
        for receipt in self._ledger.read_receipts(self._uncounted):
            tally.add_rows(receipt.rows, receipt.flags)
        if pairs.pending:
            raise RunStoppedError(
                f"{self._config.output}: the ledger does not add up: {pairs.expected} pairs "
                f"expected, {pairs.written} written, {pairs.quarantined} quarantined"
            )
        state = "complete_with_quarantine" if pairs.quarantined else "complete"
        memory = None
        if tally.workers and self._memory is not None:
            memory = MemoryUse(tally.peak_rss, peak_rss_bytes(), self._memory)
        self._record.save(state, tally, memory=None if memory is None else memory.to_dict())
        return RunSummary(
            output=self._config.output,
            state=state,
            totals=tally.totals(),
            seconds=self._seconds,
            pairs_per_second=tally.pairs_here / self._seconds if self._seconds else 0.0,
            unused=tuple(self._unused),
            notes=(*notes_on(self._config, tally), *self._notes),
            memory=memory,
        )


def _warn_of_waiting(pool: ActorPool, n_actors: int, why: Mapping[str, str]) -> None:
    log.warning(
        "no model actor is ready yet",
        waiting_for=n_actors,
        each_needs=f"{pool.cpus:g} CPU, {pool.gpus:g} GPU",
        **why,
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
