"""Batches: full, of fixed shape, across tiles; every row answered, every failure heard."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from deblend_batch.engine.batching import batcher as batcher_module
from deblend_batch.engine.batching.batcher import Batcher
from deblend_batch.engine.methods.method import Arrays


@dataclass
class Recorder:
    """A model that answers with the first pixel of each stamp, and remembers what it was given."""

    sizes: list[int] = field(default_factory=list)
    fail_at: int | None = None
    poison: float | None = None
    room: int | None = None
    gate: threading.Event | None = None

    def answer(self, given: Arrays, rows_at_once: int) -> Arrays:
        stamps = given["pixels"]
        if self.gate is not None:
            self.gate.wait(10)
        self.sizes.append(len(stamps))
        if self.fail_at == len(self.sizes):
            raise FloatingPointError("this batch")
        if self.poison is not None and (stamps[:, 0, 0] == self.poison).any():
            raise FloatingPointError("this row")
        if self.room is not None and rows_at_once > self.room:
            raise RuntimeError("CUDA out of memory. Tried to allocate 2 GiB")
        first = stamps[:, 0, 0]
        return {"flux": np.stack([first, -first], axis=1)}


def rows_of(values: np.ndarray, size: int = 2) -> Arrays:
    """Stamps of few pixels."""
    n = len(values)
    pixels = np.broadcast_to(values.astype(np.float32)[:, None, None], (n, size, size)).copy()
    return {"pixels": pixels, "sigma": np.ones(n)}


def fluxes(future: Any) -> np.ndarray:
    """All rows of an answer."""
    parts = [part["flux"][:, 0] for part in future.result(20)]
    return np.concatenate(parts) if parts else np.empty(0)


@settings(max_examples=40, deadline=None)
@given(st.lists(st.integers(0, 40), min_size=1, max_size=8), st.integers(1, 16))
def test_every_row_comes_back_in_its_place(lengths: list[int], batch: int) -> None:
    model = Recorder()
    batcher = Batcher(model, batch)
    values = [np.arange(n) + 1000 * k for k, n in enumerate(lengths)]
    with batcher.producing():
        futures = [batcher.submit(rows_of(each)) for each in values]
    for future, each in zip(futures, values, strict=True):
        np.testing.assert_array_equal(fluxes(future), each)
    assert sum(model.sizes) == sum(lengths)
    assert max(model.sizes, default=0) <= batch


def test_batches_mix_tiles_and_only_the_last_is_not_full() -> None:
    model = Recorder()
    batcher = Batcher(model, 10)
    with batcher.producing():
        futures = [batcher.submit(rows_of(np.arange(4))) for _ in range(7)]
    for future in futures:
        fluxes(future)
    assert model.sizes == [10, 10, 8]


def test_rows_wait_while_more_are_on_their_way_and_not_after() -> None:
    model = Recorder()
    batcher = Batcher(model, 10)
    with batcher.producing():
        future = batcher.submit(rows_of(np.arange(3)))
        assert not model.sizes
    np.testing.assert_array_equal(fluxes(future), np.arange(3))
    assert model.sizes == [3]


def test_submitting_blocks_when_the_queue_is_full() -> None:
    gate = threading.Event()
    batcher = Batcher(Recorder(gate=gate), 4, n_batches=3)
    with ThreadPoolExecutor(1) as pool, batcher.producing():
        for _ in range(3):
            batcher.submit(rows_of(np.arange(4)))
        blocked = pool.submit(batcher.submit, rows_of(np.arange(4)))
        with pytest.raises(TimeoutError):
            blocked.result(0.2)
        gate.set()
        np.testing.assert_array_equal(fluxes(blocked.result(10)), np.arange(4))


def test_a_failed_batch_fails_its_tiles_and_no_other() -> None:
    model = Recorder(fail_at=2)
    batcher = Batcher(model, 4)
    with batcher.producing():
        futures = [batcher.submit(rows_of(np.arange(4) + k)) for k in range(3)]
    np.testing.assert_array_equal(fluxes(futures[0]), np.arange(4))
    with pytest.raises(FloatingPointError, match="this batch"):
        futures[1].result(10)
    np.testing.assert_array_equal(fluxes(futures[2]), np.arange(4) + 2)


def test_a_row_that_spoils_a_batch_fails_its_own_tile_alone() -> None:
    batcher = Batcher(Recorder(poison=5.0), 64)
    with batcher.producing():
        futures = [batcher.submit(rows_of(np.arange(3) + 3 * k)) for k in range(4)]
    for number, future in enumerate(futures):
        if number == 1:
            with pytest.raises(FloatingPointError, match="this row"):
                future.result(10)
        else:
            np.testing.assert_array_equal(fluxes(future), np.arange(3) + 3 * number)


def test_where_memory_does_not_suffice_batches_become_smaller() -> None:
    batcher = Batcher(Recorder(room=20), 64)
    with batcher.producing():
        future = batcher.submit(rows_of(np.arange(200)))
    np.testing.assert_array_equal(fluxes(future), np.arange(200))
    assert batcher.rows_at_once == 16


def test_memory_that_holds_no_row_is_an_error() -> None:
    batcher = Batcher(Recorder(room=0), 64)
    with batcher.producing():
        future = batcher.submit(rows_of(np.arange(3)))
    with pytest.raises(RuntimeError, match="out of memory"):
        future.result(10)


@settings(max_examples=40, deadline=None)
@given(
    sizes=st.lists(st.integers(1, 6), min_size=1, max_size=12),
    batch=st.integers(1, 8),
    n_batches=st.integers(1, 4),
    threads=st.integers(1, 2),
)
def test_rows_of_any_number_of_shapes_find_room(
    sizes: list[int], batch: int, n_batches: int, threads: int
) -> None:
    """More shapes than buffers, several producers: nobody waits for ever, and no shapes are mixed."""
    batcher = Batcher(Recorder(), batch, n_batches, threads)

    def produce(number: int) -> list[tuple[Any, np.ndarray]]:
        values = [np.arange(size + number) + 100 * k for k, size in enumerate(sizes)]
        with batcher.producing():
            return [
                (batcher.submit(rows_of(each, size)), each)
                for each, size in zip(values, sizes, strict=True)
            ]

    with ThreadPoolExecutor(3) as pool:
        told = [each for many in pool.map(produce, range(3), timeout=20) for each in many]
    for future, values in told:
        np.testing.assert_array_equal(fluxes(future), values)
    batcher.close()


def test_a_buffer_that_finds_no_memory_is_made_later(monkeypatch: pytest.MonkeyPatch) -> None:
    make, left = batcher_module._Batch.for_rows_like, [MemoryError()] * 3

    def fail_first(rows: Arrays, size: int) -> Any:
        if left:
            raise left.pop()
        return make(rows, size)

    batcher = Batcher(Recorder(), 4, n_batches=3)
    monkeypatch.setattr(batcher_module._Batch, "for_rows_like", fail_first)
    for _ in range(3):
        with batcher.producing(), pytest.raises(MemoryError):
            batcher.submit(rows_of(np.arange(4)))
    with ThreadPoolExecutor(1) as pool, batcher.producing():
        answer = pool.submit(batcher.submit, rows_of(np.arange(4))).result(10)
    np.testing.assert_array_equal(fluxes(answer), np.arange(4))
    batcher.close()
