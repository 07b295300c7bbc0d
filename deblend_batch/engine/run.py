"""A run: config in, catalogue shards out."""

from __future__ import annotations

import platform
import signal
import threading
import time
from collections import Counter, deque
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from importlib import metadata
from types import FrameType
from typing import Any

import numpy as np
import ray
import structlog

from deblend_batch import flags, storage
from deblend_batch.catalog.ledger import (
    UNPLACED,
    Ledger,
    QuarantineRecord,
    Receipt,
    fingerprint,
    now,
)
from deblend_batch.config import RunConfig, SurveyField, load_config, make_config
from deblend_batch.engine.actor import ModelLoader, WorkerInfo, load_run_model
from deblend_batch.engine.cluster import connected, plan_pool
from deblend_batch.engine.driver import Driver, Events
from deblend_batch.engine.failure import Failure, one_line, root_cause
from deblend_batch.engine.index import (
    FieldIndex,
    IndexTask,
    UnplacedPair,
    index_field,
    unused_url,
)
from deblend_batch.engine.progress import ProgressMeter
from deblend_batch.engine.reconcile import reconcile
from deblend_batch.engine.survey import SurveyEntry, field_identity, open_fields
from deblend_batch.engine.work import RunContext, TileSpec
from deblend_batch.errors import ConfigError, DeblendError, InterruptedRunError, RunStoppedError
from deblend_batch.models import find_card
from deblend_batch.tiling.pairs import blend_ids
from deblend_batch.tiling.tile import TileGrid
from deblend_batch.version import __version__

log = structlog.get_logger()

_INDEX_AHEAD = 4
_SAVE_SECONDS = 30.0


@dataclass(frozen=True)
class RunSummary:
    """How a run ended.

    Parameters
    ----------
    output : str
        Where the catalogue is.
    state : str
        ``complete`` or ``complete_with_quarantine``.
    totals : dict
        As in ``run.json``.
    seconds : float
        Wall time of the tiles, from the first ready actor on.
    pairs_per_second : float
        Rate of this call; 0 where nothing was left to do.
    unused : tuple of str
        Files that list detections which could not be used.
    """

    output: str
    state: str
    totals: dict[str, Any]
    seconds: float
    pairs_per_second: float
    unused: tuple[str, ...]

    def to_dict(self) -> dict[str, Any]:
        """Return the summary as JSON-able values."""
        return asdict(self)

    def to_rows(self) -> list[tuple[str, str]]:
        """Return the summary as names and texts."""
        pairs, tiles, found = (self.totals[key] for key in ("pairs", "tiles", "detections"))
        rows = [
            ("state", self.state.replace("_", " ")),
            ("detections", f"{found.get('used', 0):,} used of {found.get('read', 0):,}"),
            ("pairs", f"{pairs['written']:,} written, {pairs['quarantined']:,} quarantined"),
            ("shards", f"{tiles['written']:,} with {self.totals['rows']:,} rows"),
            (
                "flags",
                ", ".join(f"{name} {n:,}" for name, n in self.totals["flags"].items()) or "none",
            ),
            ("rate", f"{self.pairs_per_second:,.0f} pairs/s over {self.seconds:.1f} s"),
            ("catalogue", storage.join(self.output, "shards")),
        ]
        return rows + [("not used", f"detections listed in {url}") for url in self.unused]

    @property
    def exit_code(self) -> int:
        """0, or 3 where something is in quarantine."""
        return 3 if self.totals["pairs"]["quarantined"] else 0


@dataclass
class _Tally:
    """Running totals; what ``run.json`` says."""

    pairs_expected: int = 0
    pairs_written: int = 0
    pairs_quarantined: int = 0
    tiles_expected: int = 0
    tiles_written: int = 0
    tiles_quarantined: int = 0
    pairs_left: int = 0
    pairs_here: int = 0
    fields_indexed: int = 0
    retries: Counter[str] = field(default_factory=Counter)
    flags: dict[str, int] = field(default_factory=dict)
    detections: Counter[str] = field(default_factory=Counter)
    unused: list[str] = field(default_factory=list)
    workers: list[dict[str, Any]] = field(default_factory=list)

    def totals(self) -> dict[str, Any]:
        return {
            "pairs": {
                "expected": self.pairs_expected,
                "written": self.pairs_written,
                "quarantined": self.pairs_quarantined,
            },
            "rows": 2 * self.pairs_written,
            "tiles": {
                "expected": self.tiles_expected,
                "written": self.tiles_written,
                "quarantined": self.tiles_quarantined,
            },
            "detections": dict(self.detections),
            "retries": dict(self.retries),
            "flags": self.flags,
        }


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
    settled = settle(config)
    run = _Run(settled, progress or ProgressMeter("pairs"), loader)
    return run.execute()


def settle(config: RunConfig | Mapping[str, Any] | str) -> RunConfig:
    """Return a config from whatever a caller has: a config, a mapping, or a file's URL."""
    if isinstance(config, RunConfig):
        return config.with_absolute_paths()
    return load_config(config) if isinstance(config, str) else make_config(config)


def index_tasks(config: RunConfig, entries: list[SurveyEntry], stamp_size: int) -> list[IndexTask]:
    """Describe the indexing of each field of a run."""
    return [
        IndexTask(
            entry,
            storage.join(config.output, "index", f"{entry.index_name()}.parquet"),
            config.tiles.size,
            stamp_size,
            config.pairs,
            config.columns,
            config.storage_options,
        )
        for entry in entries
    ]


def fingerprint_parts(
    config: RunConfig, entries: list[SurveyEntry], model_sha256: str
) -> dict[str, Any]:
    """Collect what decides the rows of a run: options, inputs, weights.

    Parameters
    ----------
    config : RunConfig
        The config.
    entries : list of SurveyEntry
        Its fields.
    model_sha256 : str
        Of the weights.

    Returns
    -------
    dict
        Named parts, so that a mismatch can say which one differs.
    """
    options = config.storage_options
    tables = dict.fromkeys(entry.detections_url for entry in entries)
    return {
        "fields": [field_identity(entry.field_url, options) for entry in entries],
        "detections": [storage.identity(url, options) for url in tables],
        "pairs": config.pairs.model_dump(mode="json", exclude={"table"}),
        "pairs.table": storage.identity(config.pairs.table, options)
        if config.pairs.table
        else None,
        "columns": config.columns,
        "tiles": config.tiles.model_dump(mode="json"),
        "model": model_sha256,
    }


class _Run:
    def __init__(self, config: RunConfig, meter: ProgressMeter, loader: ModelLoader) -> None:
        self._config = config
        self._meter = meter
        self._loader = loader
        self._ledger = Ledger(config.output, config.storage_options)
        self._tally = _Tally()
        self._saved = self._started = time.monotonic()

    def execute(self) -> RunSummary:
        config = self._config
        _check_reachable(config)
        opened = open_fields(config)
        self._entries = [entry for entry, _ in opened]
        self._fields = {entry.field_url: field for entry, field in opened}
        card = find_card(config.model, config.storage_options)
        parts = fingerprint_parts(config, self._entries, card.sha256)
        self._context = RunContext(
            output=config.output,
            model=config.model,
            stamp_size=card.stamp_size,
            batch_size=config.engine.batch_size,
            fingerprint=fingerprint(parts),
            model_sha256=card.sha256,
            options=config.storage_options,
        )
        self._record = self._ledger.claim(_new_record(config, parts, self._context.fingerprint))
        with connected() as resources, _stop_signals():
            return self._execute_on(resources)

    def _execute_on(self, resources: Mapping[str, float]) -> RunSummary:
        self._finished = set(self._ledger.receipts()) & set(self._ledger.shards())
        self._in_quarantine = set(self._ledger.quarantined()) - self._finished
        events = Events(self._done, self._quarantined, self._retried, self._joined, self._tick)
        self._save("running")
        try:
            pool = plan_pool(self._config.engine, resources)
            Driver(self._context, pool, self._config.engine, events, self._loader).run(
                self._tiles()
            )
        except (KeyboardInterrupt, SystemExit) as stop:
            self._save("interrupted")
            raise InterruptedRunError(
                f"{self._config.output}: interrupted after {self._tally.tiles_written} tiles; "
                "run the same command again to resume"
            ) from stop
        except BaseException as error:
            self._save("failed", error)
            raise
        finally:
            self._meter.close()
        return self._finish()

    def _tiles(self) -> Iterator[TileSpec]:
        """Yield the tiles that are left, field by field, once every field is indexed."""
        tasks = index_tasks(self._config, self._entries, self._context.stamp_size)
        indexes = self._index(tasks)
        if len(tasks) > 1:
            self._quarantine_unplaced("", _ask(ray.remote(reconcile).remote(tasks)))
        for task, index in zip(tasks, indexes, strict=True):
            yield from self._tiles_of(task, index)

    def _index(self, tasks: Sequence[IndexTask]) -> list[FieldIndex]:
        """Index the fields on the cluster, a few at a time; of each only a number a tile comes back."""
        remote = ray.remote(index_field).options(num_cpus=0)
        ahead: deque[Any] = deque()
        indexes: list[FieldIndex] = []
        for task in tasks:
            if len(ahead) == _INDEX_AHEAD:
                indexes.append(_ask(ahead.popleft()))
            ahead.append(remote.remote(task))
        return indexes + [_ask(ref) for ref in ahead]

    def _tiles_of(self, task: IndexTask, index: FieldIndex) -> list[TileSpec]:
        """Count a field's tiles, and return those that are left."""
        self._count_index(task, index)
        grid = TileGrid(self._fields[task.entry.field_url].shape_yx, self._config.tiles.size)
        tally, left = self._tally, []
        bounds = zip(index.starts[:-1].tolist(), index.starts[1:].tolist(), strict=True)
        for number, name, (start, stop) in zip(
            index.tiles.tolist(), index.tile_names, bounds, strict=True
        ):
            tally.tiles_expected += 1
            tally.pairs_expected += stop - start
            if name in self._finished:
                tally.tiles_written += 1
                tally.pairs_written += stop - start
            elif name in self._in_quarantine:
                tally.tiles_quarantined += 1
                tally.pairs_quarantined += stop - start
            else:
                field_url, core = task.entry.field_url, grid.core(number)
                left.append(
                    TileSpec(name, field_url, index.url, core, start, stop, index.noise_sigma)
                )
        tally.pairs_left += sum(spec.n_pairs for spec in left)
        tally.fields_indexed += 1
        self._meter.expect(tally.pairs_left * len(self._entries) // tally.fields_indexed)
        return left

    def _count_index(self, task: IndexTask, index: FieldIndex) -> None:
        tally = self._tally
        tally.detections.update(index.detections)
        lost = index.detections.get("not_finite", 0) + index.detections.get("outside", 0)
        if lost and task.entry.first_of_table:
            tally.unused.append(unused_url(index.url))
        self._quarantine_unplaced(task.entry.prefix, index.unplaced)

    def _quarantine_unplaced(self, prefix: str, unplaced: Sequence[UnplacedPair]) -> None:
        if not unplaced:
            return
        ids = np.array([(pair.central_id, pair.companion_id) for pair in unplaced], np.int64)
        blends = blend_ids(ids[:, 0], ids[:, 1])
        members = [
            (int(blend), int(central), int(companion))
            for blend, (central, companion) in zip(blends, ids, strict=True)
        ]
        reason = "; ".join(sorted({pair.reason for pair in unplaced}))
        record = QuarantineRecord(f"{prefix}{UNPLACED}", reason, "UnplacedPair", 0, members)
        self._ledger.quarantine(record)
        self._tally.pairs_expected += len(members)
        self._tally.pairs_quarantined += len(members)

    def _done(self, receipt: Receipt) -> None:
        tally = self._tally
        tally.pairs_here += receipt.pairs
        tally.pairs_written += receipt.pairs
        tally.tiles_written += 1
        tally.flags = flags.add_counts([tally.flags, receipt.flags])
        self._meter.advance(
            receipt.pairs, f"tiles {tally.tiles_written:,}/{tally.tiles_expected:,}"
        )

    def _quarantined(self, record: QuarantineRecord) -> None:
        self._ledger.quarantine(record)
        self._tally.pairs_quarantined += len(record.pairs)
        self._tally.tiles_quarantined += 1
        log.warning("quarantined", tile=record.tile, pairs=len(record.pairs), reason=record.reason)

    def _retried(self, tile: str, failure: Failure, reason: str) -> None:
        self._tally.retries[failure.value] += 1
        log.warning("retry", tile=tile, failure=failure.value, reason=reason)

    def _joined(self, worker: WorkerInfo) -> None:
        if not self._tally.workers:
            self._meter.start()
            self._started = time.monotonic()
        self._tally.workers.append(vars(worker))

    def _tick(self) -> None:
        self._meter.tick()
        if time.monotonic() - self._saved > _SAVE_SECONDS:
            self._save("running")

    def _save(self, state: str, error: BaseException | None = None) -> None:
        self._saved = time.monotonic()
        self._record |= {
            "state": state,
            "updated_at": now(),
            "totals": self._tally.totals(),
            "workers": self._tally.workers or self._record["workers"],
            "error": None if error is None else f"{type(error).__name__}: {one_line(error)}",
        }
        self._ledger.write_run(self._record)

    def _finish(self) -> RunSummary:
        tally = self._tally
        earlier = [receipt.flags for receipt in self._ledger.read_receipts(sorted(self._finished))]
        tally.flags = flags.add_counts([tally.flags, *earlier])
        seconds = time.monotonic() - self._started if tally.workers else 0.0
        if tally.pairs_written + tally.pairs_quarantined != tally.pairs_expected:
            raise RunStoppedError(
                f"{self._config.output}: the ledger does not add up: {tally.pairs_expected} pairs "
                f"expected, {tally.pairs_written} written, {tally.pairs_quarantined} quarantined"
            )
        state = "complete_with_quarantine" if tally.pairs_quarantined else "complete"
        self._save(state)
        return RunSummary(
            output=self._config.output,
            state=state,
            totals=tally.totals(),
            seconds=seconds,
            pairs_per_second=tally.pairs_here / seconds if seconds else 0.0,
            unused=tuple(tally.unused),
        )


def _ask(ref: Any) -> Any:
    """Wait for a task; raise what it raised, without Ray's wrapping."""
    try:
        return ray.get(ref)
    except Exception as error:  # noqa: BLE001  # raised again
        cause = root_cause(error)
        raise cause if isinstance(cause, DeblendError) else error from None


def _new_record(config: RunConfig, parts: dict[str, Any], run_fingerprint: str) -> dict[str, Any]:
    return {
        "deblend_batch_run": 1,
        "state": "running",
        "fingerprint": run_fingerprint,
        "fingerprint_of": parts,
        "config": config.public(),
        "versions": versions(),
        "created_at": now(),
        "updated_at": now(),
        "totals": _Tally().totals(),
        "workers": [],
        "error": None,
    }


def versions() -> dict[str, str]:
    """Return the versions of what made a catalogue."""
    packages = ("ray", "dask", "zarr", "torch", "numpy", "astropy", "pyarrow")
    return {
        "deblend_batch": __version__,
        "python": platform.python_version(),
        **{name: metadata.version(name) for name in packages},
    }


def _check_reachable(config: RunConfig) -> None:
    """Refuse stores that workers, which are other processes, could not see."""
    survey = config.survey if isinstance(config.survey, list) else [config.survey]
    fields = [each.field if isinstance(each, SurveyField) else each for each in survey]
    tables = [each.detections for each in survey if isinstance(each, SurveyField)]
    inputs = [config.field, config.detections, config.pairs.table, *fields, *tables]
    for url in [config.output, *inputs]:
        if url and storage.scheme_of(url) == "memory":
            raise ConfigError(
                f"{url}: memory:// lives in one process, and a run has several; give a path or s3://..."
            )
    if storage.scheme_of(config.output) in {"http", "https"}:
        raise ConfigError(f"output: {config.output}: http(s) is read-only; give a path or s3://...")


@contextmanager
def _stop_signals() -> Iterator[None]:
    """Let SIGTERM stop a run as SIGINT does (``ray job stop``, ``kill``, a batch system)."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def stop(number: int, _: FrameType | None) -> None:
        raise KeyboardInterrupt(signal.Signals(number).name)

    before = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
