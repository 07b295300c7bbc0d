"""Memory: what inputs say of it beforehand, what this machine has, what a process took."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import psutil
import pytest

from deblend_batch.config import make_config
from deblend_batch.engine.inputs.index.file import FieldIndex
from deblend_batch.engine.needs.machine import this_machine
from deblend_batch.engine.needs.memory import (
    MemoryUse,
    model_needs,
    project_run,
    tile_needs,
)
from deblend_batch.engine.needs.pool import ActorPool
from deblend_batch.engine.needs.projection import Memory
from deblend_batch.engine.worker.process import peak_rss_bytes
from deblend_batch.field.layout import Field
from deblend_batch.models import find_card
from tests.support import SmallField

INDEX = FieldIndex("", np.array([0, 4], np.int32), ("a", "b"), np.array([0, 7, 10]), (), {})


def test_the_peak_is_not_below_what_the_process_has_now() -> None:
    before = psutil.Process().memory_info().rss
    block = np.ones(30_000_000)
    assert peak_rss_bytes() >= before + block.nbytes / 2
    assert peak_rss_bytes() < 1e12


def test_the_largest_tile_counts(small_field: SmallField) -> None:
    field = Field.open(small_field.url)
    needs = tile_needs(field, INDEX, 200, 32)
    assert (needs.pixels, needs.pairs, needs.bands) == (232 * 232, 7, 1)
    assert tile_needs(field, INDEX, 4096, 32).pixels == (500 + 32) * (600 + 32)
    empty = replace(INDEX, tiles=INDEX.tiles[:0], tile_names=(), starts=np.array([0]))
    assert (tile_needs(field, empty, 200, 32).pixels, needs.variance) == (0, False)


def test_memory_grows_with_the_batch() -> None:
    card = find_card("blend2mask2flux-small", {})
    few, many = model_needs(card, 64), model_needs(card, 128)
    assert few.weight_bytes == pytest.approx(4 * card.parameters, rel=0.01)
    assert many.activation_bytes == 2 * few.activation_bytes
    assert 110e6 < few.activation_bytes < 200e6  # 94 MB measured with 64 px; now 80 px


def test_more_tiles_in_flight_take_more(small_field: SmallField) -> None:
    field, card = Field.open(small_field.url), find_card(small_field.model, {})
    pool = ActorPool(1, 0.0, 1.0)
    sizes = [
        project_run(
            make_config(small_field.config("/out", engine={"tiles_in_flight": n})),
            model_needs(card, 64),
            [field],
            [INDEX],
            pool,
        ).actor
        for n in (1, 3)
    ]
    held, cut = 2 * 4 * 232**2, 3 * 7 * 4 * 32**2
    assert sizes[1] - sizes[0] == 2 * (held + cut)


def test_what_a_run_took_stands_beside_what_was_projected() -> None:
    use = MemoryUse(815_000_000, 245_000_000, Memory(880_000_000, 250_000_000))
    assert str(use) == "actor 0.81 GB (0.88 GB projected), driver 0.24 GB (0.25 GB projected)"
    assert use.to_dict()["projected"]["actor"] == 880_000_000
    assert str(replace(use, actor=0)).startswith("driver")


def test_this_machine_has_cores_and_memory() -> None:
    machine = this_machine()
    assert machine.cpus >= 1
    assert 0 < machine.memory < psutil.virtual_memory().total
