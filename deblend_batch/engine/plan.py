"""What a run would do, without doing it."""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
import torch

from deblend_batch import storage
from deblend_batch.catalog.ledger import Ledger, fingerprint
from deblend_batch.config import RunConfig
from deblend_batch.engine.account.done import read_done
from deblend_batch.engine.account.record import RunRecord
from deblend_batch.engine.account.summary import no_pairs
from deblend_batch.engine.account.tally import Tally
from deblend_batch.engine.driver.depth import GROWTH
from deblend_batch.engine.inputs.access import check_output, check_places, check_tables
from deblend_batch.engine.inputs.fingerprint import fingerprint_parts
from deblend_batch.engine.inputs.index import FieldIndex
from deblend_batch.engine.inputs.index_task import IndexTask, index_field, index_tasks
from deblend_batch.engine.inputs.survey import check_reachable, list_fields, open_fields, tables_of
from deblend_batch.engine.inputs.weights import find_run_card
from deblend_batch.engine.inputs.work import RunContext
from deblend_batch.engine.inputs.workload import FieldTiles, Workload
from deblend_batch.engine.needs.memory import largest_batch, model_needs, project_run, this_machine
from deblend_batch.engine.needs.pool import ActorPool, plan_pool
from deblend_batch.engine.needs.projection import (
    Duration,
    Memory,
    NodeSize,
    check_fits,
    gigabytes,
    project_time,
)
from deblend_batch.engine.needs.sampling import SECONDS, Sample, sample_tiles
from deblend_batch.errors import ConfigError
from deblend_batch.field.layout import Field
from deblend_batch.models import ModelCard, load_model
from deblend_batch.progress import clock
from deblend_batch.tiling.tile import TileGrid

_PROBE_BATCHES = 2


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
    unplaced_pairs : int
        Pre-detected pairs that no tile holds.
    read_bytes : int
        Pixels that tiles will read, uncompressed: at most core and halo of each.
    actors : int
        Actors that the run will make.
    feed : str
        Whether they cut their own stamps, ``fused``, or CPU tasks do, ``split``.
    memory : Memory
        Projected peak memory of its processes.
    node_bytes : int
        Of the actors that this machine has room for, and the tasks that cut for them; 0 where it has none.
    sample : Sample
        Tiles that were read and cut to learn what that costs.
    stamps_per_second : float
        Of the model on the device of one actor.
    speed_is_given : bool
        Whether the user said so; else it was measured on this machine.
    duration : Duration
        Projected time and cost of what is left.
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
    unplaced_pairs: int
    read_bytes: int
    actors: int
    feed: str
    memory: Memory
    node_bytes: int
    sample: Sample
    stamps_per_second: float
    speed_is_given: bool
    duration: Duration
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
        rows = [
            ("output", self.output),
            ("model", self.model),
            ("fields", f"{self.fields:,}"),
            ("detections", f"{self.detections.get('used', 0):,} used, {unused:,} not"),
            ("pairs", f"{self.pairs:,} in tiles, {self.unplaced_pairs:,} that no tile holds"),
            (
                "tiles",
                f"{self.tiles:,} with pairs, {self.tiles_done:,} of them done{in_quarantine}",
            ),
            ("reads", f"{self.read_bytes / 1e6:,.0f} MB of pixels at most"),
            ("actors", f"{self.actors:,} ({self.feed})"),
            ("memory", f"{gigabytes(memory.actor)} per actor{here}"),
            ("driver", f"{gigabytes(memory.driver)}"),
            *self._cost_rows(),
        ]
        if memory.stamps:
            store = f"{gigabytes(memory.stamps)} of the object store per actor"
            rows.insert(10, ("stamps", store))
        return rows + [("note", note) for note in self.notes]

    def _cost_rows(self) -> list[tuple[str, str]]:
        """Return what the rest will cost; where nothing is left, nothing was measured."""
        if not self.pairs_left:
            return [("time", "none: nothing is left to do")]
        cost, sample = self.duration, self.sample
        took = 1e6 * sample.seconds_per_pair
        where = "as given" if self.speed_is_given else "measured here"
        hours = f", {cost.gpu_hours:,.2g} GPU-hours" if cost.gpu_hours else ""
        return [
            ("cutting", f"{took:,.0f} us a pair, from {sample.tiles:,} tiles read here"),
            ("speed", f"{self.stamps_per_second:,.0f} stamps/s per actor, {where}"),
            ("time", f"{clock(cost.seconds)}, {cost.core_hours:,.2g} core-hours{hours}"),
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
    check_reachable(config)
    opened = open_fields(config)
    check_places(config, [entry for entry, _ in opened])
    detections = [entry.detections_url for entry, _ in opened]
    check_tables(tables_of(config, detections), config.storage_options)
    fields = [field for _, field in opened]
    card = find_run_card(config)
    parts = fingerprint_parts(config, [entry for entry, _ in opened], card.sha256)
    check_output(config.output, config.storage_options)
    RunRecord.check(Ledger(config.output, config.storage_options), config, parts)
    machine = this_machine()
    pool = _pool(config, machine, gpus, speed)
    context = _context(config, card, fingerprint(parts))
    tasks = index_tasks(config, [entry for entry, _ in opened], card.stamp_size)
    indexes, sample = _look(config, fields, tasks, context)
    tally = Tally()
    left, stamps = _count(config, fields, indexes, tally)
    needs = model_needs(card, largest_batch(config, pool))
    memory = project_run(config, needs, fields, indexes, pool)
    elsewhere = gpus is not None or bool(os.environ.get("RAY_ADDRESS"))
    if not elsewhere:
        check_fits(memory, pool, [machine])
    rate = speed or (_speed(config, card.stamp_size, pool) if stamps else 0.0)
    cores = max(machine.cpus, pool.n_actors)
    unplaced = sum(len(index.unplaced) for index in indexes)
    return RunPlan(
        output=config.output,
        model=config.model,
        fields=len(fields),
        tiles=tally.tiles.expected,
        tiles_done=tally.tiles.written,
        tiles_quarantined=tally.tiles.quarantined,
        pairs=tally.pairs.expected,
        pairs_left=left,
        detections=dict(tally.detections),
        unplaced_pairs=unplaced,
        read_bytes=sum(map(_read_bytes, fields, indexes, tasks)),
        actors=pool.n_actors,
        feed=pool.feed,
        memory=memory,
        node_bytes=machine.needed(memory, pool),
        sample=sample,
        stamps_per_second=rate,
        speed_is_given=speed is not None,
        duration=project_time(left, stamps, pool, cores, rate, sample.seconds_per_pair),
        notes=_notes(config, tally, unplaced, sample, elsewhere=elsewhere),
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


def _context(config: RunConfig, card: ModelCard, run_fingerprint: str) -> RunContext:
    return RunContext(
        output=config.output,
        model=config.model,
        stamp_size=card.stamp_size,
        batch_size=config.engine.batch_size,
        masks=config.masks,
        fingerprint=run_fingerprint,
        model_sha256=card.sha256,
        options=config.storage_options,
    )


def _look(
    config: RunConfig, fields: Sequence[Field], tasks: Sequence[IndexTask], context: RunContext
) -> tuple[list[FieldIndex], Sample]:
    """Index the fields, each in a file that is removed again, and read a sample of their tiles."""
    indexes, sample = [], Sample()
    # A worker has one thread, and so has this while it is timed.
    torch.set_num_threads(1)
    for field, task in zip(fields, tasks, strict=True):
        with tempfile.TemporaryDirectory(prefix="deblend-batch-") as folder:
            url = storage.join(folder, "index.parquet")
            index = index_field(replace(task, url=url, keep_unused=False))
            grid = TileGrid(field.shape_yx, config.tiles.size)
            tiles = FieldTiles(field.url, index, grid, field.n_bands)
            if sample.seconds < SECONDS:
                sample += sample_tiles(tiles, context, SECONDS - sample.seconds)
        indexes.append(index)
    return indexes, sample


def _notes(
    config: RunConfig, tally: Tally, unplaced: int, sample: Sample, *, elsewhere: bool
) -> tuple[str, ...]:
    notes = [f"{what}; its pairs will go to quarantine" for what in sample.unreadable]
    if not tally.pairs.expected + unplaced:
        notes.append(no_pairs(config.pairs, tally.detections, tally.nearest_arcsec))
    if elsewhere:
        notes.append("the memory of the cluster's nodes is checked when the run starts")
    if not all(storage.is_local(url) for url, _ in list_fields(config)):
        notes.append(
            f"where the pixels' store is slow, an actor holds up to {GROWTH} times as many tiles, as far as "
            "its node's memory allows"
        )
    return tuple(notes)


def _count(
    config: RunConfig, fields: Sequence[Field], indexes: Sequence[FieldIndex], tally: Tally
) -> tuple[int, int]:
    """Count detections, pairs and tiles; return the pairs that are left, and their stamps in all bands."""
    finished, held = read_done(Ledger(config.output, config.storage_options))
    left = stamps = 0
    for field, index in zip(fields, indexes, strict=True):
        grid = TileGrid(field.shape_yx, config.tiles.size)
        work = Workload([FieldTiles(field.url, index, grid)], finished, held)
        pairs, tiles = work.count()
        left += pairs.pending
        stamps += field.n_bands * pairs.pending
        tally.add_index(index)
        tally.pairs, tally.tiles = tally.pairs + pairs, tally.tiles + tiles
    return left, stamps


def _read_bytes(field: Field, index: FieldIndex, task: IndexTask) -> int:
    pixel = 4 * field.n_bands * (1 if field.variance is None else 2)
    grid = TileGrid(field.shape_yx, task.tile_size)
    boxes = [
        grid.core(n).grown(task.stamp_size // 2 + 1).clipped(field.shape_yx)
        for n in index.tiles.tolist()
    ]
    return sum(box.shape_yx[0] * box.shape_yx[1] for box in boxes) * pixel


def _speed(config: RunConfig, stamp_size: int, pool: ActorPool) -> float:
    """Stamps per second of the model on the device of one actor, from two batches after one to warm up."""
    device = "cuda" if pool.gpus else "cpu"
    model = load_model(config.model, config.storage_options, device, config.model_sha256)
    n = config.engine.batch_size or model.default_batch_size
    stamps = np.random.default_rng(0).normal(1, 1, (n, stamp_size, stamp_size)).astype(np.float32)
    companion = np.full((n, 2), stamp_size / 2 + 8, np.float32)
    model.predict(stamps, companion)
    started = time.perf_counter()
    for _ in range(_PROBE_BATCHES):
        model.predict(stamps, companion)
    return _PROBE_BATCHES * n / (time.perf_counter() - started)
