"""What a run would do, without doing it."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
import psutil

from deblend_batch.catalog.ledger import Ledger
from deblend_batch.config import RunConfig
from deblend_batch.engine.index import FieldIndex
from deblend_batch.engine.index_task import IndexTask, build_index, index_tasks
from deblend_batch.engine.progress import clock
from deblend_batch.engine.record import RunRecord, fingerprint_parts
from deblend_batch.engine.summary import no_pairs
from deblend_batch.engine.survey import check_reachable, open_fields
from deblend_batch.engine.tally import Tally
from deblend_batch.engine.weights import find_run_card
from deblend_batch.engine.work import PART_PAIRS
from deblend_batch.engine.workload import FieldTiles, Workload
from deblend_batch.field.layout import Field
from deblend_batch.models import load_model
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
    tiles_done : int
        Of those, already in the output.
    detections : dict
        Rows ``read`` and ``used``, and why others are not.
    unplaced_pairs : int
        Pre-detected pairs that no tile holds.
    read_bytes : int
        Pixels that tiles will read, uncompressed: at most core and halo of each.
    actor_bytes : int
        Most that one actor holds at a time: pixels and stamps of its tiles in flight.
    stamps_per_second : float
        Of the model on one core of this machine, measured now.
    core_seconds : float
        Pairs left x bands at that speed: the model's time on one such core.
    notes : tuple of str
        What else a reader should know, one line each.
    """

    output: str
    model: str
    fields: int
    tiles: int
    tiles_done: int
    pairs: int
    detections: dict[str, int]
    unplaced_pairs: int
    read_bytes: int
    actor_bytes: int
    stamps_per_second: float
    core_seconds: float
    notes: tuple[str, ...]

    def to_dict(self) -> dict[str, Any]:
        """Return the plan as JSON-able values."""
        return asdict(self)

    def to_rows(self) -> list[tuple[str, str]]:
        """Return the plan as names and texts."""
        cores = psutil.cpu_count(logical=False) or 1
        unused = self.detections.get("read", 0) - self.detections.get("used", 0)
        rows = [
            ("output", self.output),
            ("model", self.model),
            ("fields", f"{self.fields:,}"),
            ("detections", f"{self.detections.get('used', 0):,} used, {unused:,} not"),
            ("pairs", f"{self.pairs:,} in tiles, {self.unplaced_pairs:,} that no tile holds"),
            ("tiles", f"{self.tiles:,} with pairs, {self.tiles_done:,} of them done"),
            ("reads", f"{self.read_bytes / 1e6:,.0f} MB of pixels at most"),
            ("memory", f"{self.actor_bytes / 1e6:,.0f} MB of pixels and stamps per actor at most"),
            ("speed", f"{self.stamps_per_second:,.0f} stamps/s per core, measured here"),
            ("time", f"{clock(self.core_seconds / cores)} on the {cores} cores of this machine"),
        ]
        return rows + [("note", note) for note in self.notes]


def plan_run(config: RunConfig) -> RunPlan:
    """Plan a run: everything that can be known without reading the pixels. Writes nothing.

    Parameters
    ----------
    config : RunConfig
        The config.

    Returns
    -------
    RunPlan
        The plan.

    Raises
    ------
    UserError
        If an input cannot be used.
    """
    check_reachable(config)
    opened = open_fields(config)
    card = find_run_card(config)
    entries = [entry for entry, _ in opened]
    RunRecord.check(
        Ledger(config.output, config.storage_options),
        config,
        fingerprint_parts(config, entries, card.sha256),
    )
    fields = [field for _, field in opened]
    stamp_size = card.stamp_size
    tasks = index_tasks(config, entries, stamp_size)
    indexes = [build_index(replace(task, keep_unused=False))[0] for task in tasks]
    tally = Tally()
    left = _count(config, fields, indexes, tally)
    unplaced = sum(len(index.unplaced) for index in indexes)
    found = tally.pairs.expected + unplaced
    speed = _speed(config, stamp_size) if left else 0.0
    return RunPlan(
        output=config.output,
        model=config.model,
        fields=len(fields),
        tiles=tally.tiles.expected,
        tiles_done=tally.tiles.written,
        pairs=tally.pairs.expected,
        detections=dict(tally.detections),
        unplaced_pairs=unplaced,
        read_bytes=sum(map(_read_bytes, fields, indexes, tasks)),
        actor_bytes=max(_held_bytes(field, config, stamp_size) for field in fields),
        stamps_per_second=speed,
        core_seconds=left / speed if speed else 0.0,
        notes=() if found else (no_pairs(config.pairs, tally.detections, tally.nearest_arcsec),),
    )


def _count(
    config: RunConfig, fields: Sequence[Field], indexes: Sequence[FieldIndex], tally: Tally
) -> int:
    """Count detections, pairs and tiles; return how many stamps are left, one a pair and band."""
    ledger = Ledger(config.output, config.storage_options)
    finished = ledger.finished()
    stamps = 0
    for field, index in zip(fields, indexes, strict=True):
        grid = TileGrid(field.shape_yx, config.tiles.size)
        work = Workload([FieldTiles(field.url, index, grid)], finished, frozenset())
        pairs, tiles = work.count()
        stamps += field.n_bands * pairs.pending
        tally.add_index(index)
        tally.pairs, tally.tiles = tally.pairs + pairs, tally.tiles + tiles
    return stamps


def _pixel_bytes(field: Field) -> int:
    """Bytes of one pixel over all bands: image and, where there is one, variance."""
    return 4 * field.n_bands * (1 if field.variance is None else 2)


def _read_bytes(field: Field, index: FieldIndex, task: IndexTask) -> int:
    grid = TileGrid(field.shape_yx, task.tile_size)
    boxes = [
        grid.core(n).grown(task.stamp_size // 2 + 1).clipped(field.shape_yx)
        for n in index.tiles.tolist()
    ]
    return sum(box.shape_yx[0] * box.shape_yx[1] for box in boxes) * _pixel_bytes(field)


def _held_bytes(field: Field, config: RunConfig, stamp_size: int) -> int:
    tile = min(config.tiles.size, max(field.shape_yx)) + stamp_size
    stamps = PART_PAIRS * field.n_bands * 4 * stamp_size**2
    return config.engine.tiles_in_flight * (tile**2 * _pixel_bytes(field) + 2 * stamps)


def _speed(config: RunConfig, stamp_size: int) -> float:
    """Stamps per second of the model on one core, from two batches after one to warm up."""
    import torch

    torch.set_num_threads(1)
    model = load_model(config.model, config.storage_options)
    n = config.engine.batch_size or model.default_batch_size
    stamps = np.random.default_rng(0).normal(1, 1, (n, stamp_size, stamp_size)).astype(np.float32)
    companion = np.full((n, 2), stamp_size / 2 + 8, np.float32)
    model.predict(stamps, companion)
    started = time.perf_counter()
    for _ in range(_PROBE_BATCHES):
        model.predict(stamps, companion)
    return _PROBE_BATCHES * n / (time.perf_counter() - started)
