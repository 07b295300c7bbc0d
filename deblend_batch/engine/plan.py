"""What a run would do, without doing it."""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from deblend_batch import storage
from deblend_batch.catalog.ledger import Ledger
from deblend_batch.catalog.output import Output
from deblend_batch.cluster.workers import ALONE
from deblend_batch.config import RunConfig
from deblend_batch.engine.account.done import read_done
from deblend_batch.engine.account.record import RunRecord
from deblend_batch.engine.account.summary import no_pairs
from deblend_batch.engine.account.tally import Tally
from deblend_batch.engine.crew.where import Where, place_of, start_seconds
from deblend_batch.engine.driver.depth import GROWTH
from deblend_batch.engine.inputs.index.file import FieldIndex
from deblend_batch.engine.inputs.prepare import Prepared, prepare
from deblend_batch.engine.inputs.work import RunContext
from deblend_batch.engine.inputs.workload import FieldTiles, Workload
from deblend_batch.engine.methods.choice import method_of
from deblend_batch.engine.needs.admission import examine, fit
from deblend_batch.engine.needs.machine import this_machine
from deblend_batch.engine.needs.pool import ActorPool, plan_pool
from deblend_batch.engine.needs.projection import (
    Duration,
    Memory,
    NodeSize,
    gigabytes,
    project_time,
)
from deblend_batch.engine.needs.sampling import SECONDS, Sample, sample_tiles
from deblend_batch.errors import ConfigError
from deblend_batch.field.layout import Field
from deblend_batch.field.sky.level import describe_sky, sample_sky
from deblend_batch.models import load_model
from deblend_batch.progress import clock

_PROBE_BATCHES = 2
_CHECKED_FIELDS = 10
_SKY_FIELDS, _SKY_BANDS = 2, 6
_WHERE = {"ray": "on Ray", "local": "without Ray, in processes of this machine"}


@dataclass(frozen=True)
class RunPlan:
    """What a run would do.

    Parameters
    ----------
    output, model : str
        Where, and with which model.
    fields, tiles, pairs : int
        How many; tiles are those that hold pairs.
    tiles_done, tiles_quarantined, pairs_left : int
        Tiles that are already in the output, those in quarantine, and pairs of the others.
    detections : dict
        Rows ``read`` and ``used``, and why others are not.
    deferred : dict
        For each field that overlaps others how many of its sources it leaves to each of them.
    unplaced_pairs : int
        Pre-detected pairs that no tile holds.
    read_bytes : int
        Pixels that tiles will read, uncompressed: at most core and halo of each.
    where : {"ray", "local"}
        Whether the run will be on Ray, or in processes of this machine.
    actors : int
        Workers that the run will make, if there is work for all.
    memory : Memory
        Projected peak memory of its processes.
    node_bytes : int
        Of the actors that this machine has room for; 0 where it has none.
    sample : Sample
        Tiles that were read and cut to learn what that costs.
    stamps_per_second : float
        Of the model on the device of one actor.
    speed_is_given : bool
        Whether the user said so; else it was measured on this machine.
    duration : Duration
        Projected time and cost of what is left.
    backgrounds : tuple of str
        What the sky of a few fields' bands is, one line each.
    checks : tuple of str
        How the detections compare with the pixels, one line each.
    notes : tuple of str
        What else a reader should know, one line each.
    """

    output: str
    model: str
    fields: int
    tiles: int
    tiles_done: int
    tiles_quarantined: int
    pairs: int
    pairs_left: int
    detections: dict[str, int]
    deferred: dict[str, dict[str, int]]
    unplaced_pairs: int
    read_bytes: int
    where: Where
    actors: int
    memory: Memory
    node_bytes: int
    sample: Sample
    stamps_per_second: float
    speed_is_given: bool
    duration: Duration
    backgrounds: tuple[str, ...]
    checks: tuple[str, ...]
    notes: tuple[str, ...]

    def to_dict(self) -> dict[str, Any]:
        """Return the plan as JSON-able values."""
        return asdict(self)

    def to_rows(self) -> list[tuple[str, str]]:
        """Return the plan as names and texts."""
        unused = self.detections.get("read", 0) - self.detections.get("used", 0)
        memory, held = self.memory, self.tiles_quarantined
        in_quarantine = f", {held:,} in quarantine" if held else ""
        here = f", {gigabytes(self.node_bytes)} on this machine" if self.node_bytes else ""
        return [
            ("output", self.output),
            ("model", self.model),
            ("fields", f"{self.fields:,}"),
            ("detections", f"{self.detections.get('used', 0):,} used, {unused:,} not"),
            *self._overlap_rows(),
            ("pairs", f"{self.pairs:,} in tiles, {self.unplaced_pairs:,} that no tile holds"),
            (
                "tiles",
                f"{self.tiles:,} with pairs, {self.tiles_done:,} of them done{in_quarantine}",
            ),
            ("reads", f"{self.read_bytes / 1e6:,.0f} MB of pixels at most"),
            ("where", _WHERE[self.where]),
            ("actors", f"{self.actors:,}"),
            ("memory", f"{gigabytes(memory.actor)} per actor{here}"),
            ("driver", f"{gigabytes(memory.driver)}"),
            *self._cost_rows(),
            *(("background", line) for line in self.backgrounds),
            *(("check", line) for line in self.checks),
            *(("note", note) for note in self.notes),
        ]

    def _overlap_rows(self) -> list[tuple[str, str]]:
        """Return what fields leave to others; of very many fields only the first."""
        lines = [
            f"{field} leaves {', '.join(f'{n:,} sources to {other}' for other, n in to.items())}"
            for field, to in sorted(self.deferred.items())
        ]
        more = len(lines) - _CHECKED_FIELDS
        shown = [*lines[:_CHECKED_FIELDS], *([f"and {more:,} more fields (--json)"] * (more > 0))]
        return [("overlap", line) for line in shown]

    def _cost_rows(self) -> list[tuple[str, str]]:
        """Return what the rest will cost; where nothing is left, nothing was measured."""
        if not self.pairs_left:
            return [("time", "none: nothing is left to do")]
        cost, sample = self.duration, self.sample
        took = 1e6 * sample.seconds_per_pair
        where = "as given" if self.speed_is_given else "measured here"
        hours = f", {cost.gpu_hours:,.2g} GPU-hours" if cost.gpu_hours else ""
        length = f"{clock(cost.seconds)}, of which {clock(cost.start_seconds)} to start"
        return [
            ("cutting", f"{took:,.0f} us a pair, from {sample.tiles:,} tiles read here"),
            ("speed", f"{self.stamps_per_second:,.0f} stamps/s per actor, {where}"),
            ("time", f"{length}; {cost.core_hours:,.2g} core-hours{hours}"),
        ]


def plan_run(
    config: RunConfig, *, gpus: float | None = None, speed: float | None = None
) -> RunPlan:
    """Plan a run: metadata, and one tile in a hundred.

    Leaves nothing in the output; in a remote one an object is made and removed, to learn whether it may be.

    Parameters
    ----------
    config : RunConfig
        The config.
    gpus : float, optional
        GPUs of the cluster that the run will have; those of this machine if None.
    speed : float, optional
        Stamps per second of the model on the device of one actor; measured on this machine if None.

    Returns
    -------
    RunPlan
        The plan.

    Raises
    ------
    ConfigError
        If the run does not fit on this machine, or the speed of GPUs that are not here is not given.
    UserError
        If an input cannot be used.
    """
    prepared = prepare(config)
    ledger = Ledger(prepared.output)
    RunRecord.check(ledger, config, prepared.fingerprint_parts)
    machine = this_machine()
    pool = _pool(config, machine, gpus, speed)
    elsewhere = gpus is not None or bool(os.environ.get("RAY_ADDRESS"))
    with tempfile.TemporaryDirectory(prefix="deblend-batch-") as folder:
        scratch = Output(folder, config.storage_options)
        tasks = [
            replace(task, output=scratch, keep_unused=False) for task in prepared.index_tasks()
        ]
        began = time.monotonic()
        examined = examine(tasks, ALONE)
        indexing = time.monotonic() - began
        tiles = prepared.tiles(examined.indexes)
        sample = _sample(tiles, replace(prepared.context, output=scratch))
    tally = Tally()
    left, stamps = _count(ledger, prepared, tiles, tally)
    for index in examined.indexes:
        tally.add_index(index)
    nodes = [] if elsewhere or not left else [machine]
    where = place_of(config.engine, stamps, pool, takes_pairs=prepared.card.takes_pairs)
    memory = fit(prepared, examined, pool, nodes, on_ray=where == "ray")()
    unplaced = len(examined.unplaced)
    rate = speed or (_speed(config, pool) if stamps else 0.0)
    cores = max(machine.cpus, pool.n_actors)
    start = start_seconds(where) + indexing
    return RunPlan(
        output=config.output,
        model=config.model,
        fields=len(prepared.fields),
        tiles=tally.tiles.expected,
        tiles_done=tally.tiles.written,
        tiles_quarantined=tally.tiles.quarantined,
        pairs=tally.pairs.expected,
        pairs_left=left,
        detections=dict(tally.detections),
        deferred={index.field: index.deferred for index in examined.indexes if index.deferred},
        unplaced_pairs=unplaced,
        read_bytes=_read_bytes(prepared, examined.indexes),
        where=where,
        actors=pool.n_actors,
        memory=memory,
        node_bytes=machine.needed(memory, pool),
        sample=sample,
        stamps_per_second=rate,
        speed_is_given=speed is not None,
        duration=project_time(left, stamps, pool, cores, rate, sample.seconds_per_pair, start),
        backgrounds=_backgrounds(prepared.fields),
        checks=_checks(examined.indexes),
        notes=(
            *_notes(prepared, tally, unplaced, sample, elsewhere=elsewhere),
            *examined.notes,
        ),
    )


def _pool(
    config: RunConfig, machine: NodeSize, gpus: float | None, speed: float | None
) -> ActorPool:
    """Choose the actors of a cluster that need not be this machine: it has room for those asked for."""
    if gpus and speed is None and not machine.gpus:
        raise ConfigError(
            f"--gpus {gpus:g}: there is no GPU here to measure the model on; say how many stamps/s one "
            "computes (--speed)"
        )
    resources = {
        "CPU": max(machine.cpus, float(config.engine.actors or 0)),
        "GPU": machine.gpus if gpus is None else gpus,
    }
    return plan_pool(config.engine, resources)


def _sample(fields: Sequence[FieldTiles], context: RunContext) -> Sample:
    """Read and cut a few tiles of as many fields as there is time for."""
    from deblend_batch.models.device import one_thread  # torch, for which no mistake has to wait

    sample = Sample()
    with one_thread():  # as a worker does
        for tiles in fields:
            if sample.seconds < SECONDS:
                sample += sample_tiles(tiles, context, SECONDS - sample.seconds)
    return sample


def _checks(indexes: Sequence[FieldIndex]) -> tuple[str, ...]:
    """Say how detections compare with pixels, of a few fields; what cannot be has stopped the plan."""
    return tuple(
        f"{index.field} {line}".lstrip()
        for index in indexes[:_CHECKED_FIELDS]
        for line in index.said
    )


def _backgrounds(fields: Sequence[Field]) -> tuple[str, ...]:
    """Say what the sky of the first fields' bands is, from a few blocks of each."""
    return tuple(
        f"{field.meta.name} {band}: {describe_sky(sample_sky(field, number))}"
        for field in fields[:_SKY_FIELDS]
        for number, band in enumerate(field.meta.bands[:_SKY_BANDS])
    )


def _notes(
    prepared: Prepared, tally: Tally, unplaced: int, sample: Sample, *, elsewhere: bool
) -> tuple[str, ...]:
    notes = [f"{what}; its pairs will go to quarantine" for what in sample.unreadable]
    if not tally.pairs.expected + unplaced:
        notes.append(no_pairs(prepared.config.pairs, tally.detections, tally.nearest_arcsec))
    if elsewhere:
        notes.append("the memory of the cluster's nodes is checked when the run starts")
    if not all(storage.is_local(field.url) for field in prepared.fields):
        notes.append(
            f"where the pixels' store is slow, an actor holds up to {GROWTH} times as many tiles, as far as "
            "its node's memory allows"
        )
    return tuple(notes)


def _count(
    ledger: Ledger, prepared: Prepared, fields: Sequence[FieldTiles], tally: Tally
) -> tuple[int, int]:
    """Count pairs and tiles; return the pairs that are left, and their stamps in all bands."""
    finished, held = read_done(ledger)
    left = stamps = 0
    for field, tiles_of in zip(prepared.fields, fields, strict=True):
        pairs, tiles = Workload([tiles_of], finished, held).count()
        left += pairs.pending
        stamps += field.n_bands * pairs.pending
        tally.pairs, tally.tiles = tally.pairs + pairs, tally.tiles + tiles
    return left, stamps


def _read_bytes(prepared: Prepared, indexes: Sequence[FieldIndex]) -> int:
    """Bytes of the pixels that tiles will read: at most core and halo of each."""
    total = 0
    for field, grid, index in zip(prepared.fields, prepared.grids, indexes, strict=True):
        planes = field.n_bands * (1 if field.variance is None else 2)
        boxes = [grid.reach(tile, prepared.card.stamp_size) for tile in index.tiles.tolist()]
        total += 4 * planes * sum(box.shape_yx[0] * box.shape_yx[1] for box in boxes)
    return total


def _speed(config: RunConfig, pool: ActorPool) -> float:
    """Stamps per second of the model on the device of one actor, from two batches after one to warm up."""
    from deblend_batch.models.device import one_thread

    device = "cuda" if pool.gpus else "cpu"
    model = load_model(config.model, config.storage_options, device, config.model_sha256)
    method = method_of(model)
    n = config.engine.batch_size or method.default_rows
    rows = method.typical(n)
    with one_thread():  # as an actor does
        method.answer(rows, n)
        started = time.perf_counter()
        for _ in range(_PROBE_BATCHES):
            method.answer(rows, n)
        return _PROBE_BATCHES * n / (time.perf_counter() - started)
