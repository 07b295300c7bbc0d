"""Batches of fixed shape across tiles: the meeting point of an actor's tile threads and its model."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, InvalidStateError
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
import structlog
from numpy.typing import NDArray

from deblend_batch.engine.batching.model_work import ModelWork, WorkDone
from deblend_batch.engine.methods.method import Arrays
from deblend_batch.failure import POISONOUS, classify, is_out_of_memory, one_line
from deblend_batch.models.batches import LEAST_ROWS

log = structlog.get_logger()


Shape = tuple[Any, ...]
"""Names, shapes and kinds of the arrays of one row: rows of one shape meet in batches."""


class AnswerLike(Protocol):
    """What the batcher needs of a method: see :class:`deblend_batch.engine.methods.method.Method`."""

    def answer(self, given: Arrays, rows_at_once: int) -> Arrays:
        """Run the model."""


def shape_of(given: Arrays) -> Shape:
    """Return what rows must have in common to be in one batch."""
    return tuple((name, array.shape[1:], array.dtype.str) for name, array in given.items())


def count_rows(given: Arrays) -> int:
    """Count rows."""
    return len(next(iter(given.values())))


@dataclass
class _Request:
    """Rows that somebody waits for."""

    open_rows: int
    done: Future[list[Arrays]] = field(default_factory=Future)
    results: list[Arrays | None] = field(default_factory=list)


@dataclass(frozen=True)
class _Piece:
    """Some rows of a request: its ``number``-th piece, rows ``start`` to ``stop`` of a batch."""

    request: _Request
    number: int
    start: int
    stop: int


@dataclass
class _Batch:
    """One of the buffers in which rows meet; used again and again, so that its pages stay warm."""

    shape: Shape
    arrays: dict[str, NDArray[Any]]
    pieces: list[_Piece] = field(default_factory=list)
    reserved: int = 0
    filled: int = 0

    @classmethod
    def for_rows_like(cls, rows: Arrays, size: int) -> _Batch:
        arrays = {
            name: np.empty((size, *array.shape[1:]), array.dtype) for name, array in rows.items()
        }
        return cls(shape_of(rows), arrays)

    def copy(self, rows: Arrays, start: int, piece: _Piece) -> None:
        stop = start + piece.stop - piece.start
        for name, target in self.arrays.items():
            target[piece.start : piece.stop] = rows[name][start:stop]


class Batcher:
    """Runs a model in threads of its own on full batches, whatever tiles their rows come from.

    Whoever brings rows copies them to their place in a batch, so that the model's threads only compute. Rows
    meet only with rows of their shape. A batch that is not full is run only when nobody is still cutting, or
    when all buffers hold rows of other shapes than somebody brings: a row's result does not depend on the
    rows beside it, so how rows meet changes the speed alone.

    Parameters
    ----------
    method : AnswerLike
        Runs the model.
    batch_size : int
        Rows in a batch.
    n_batches : int
        Batches that are computed, full or being filled at one time; :meth:`submit` blocks beyond them.
    threads : int
        Batches that are computed at one time: with two a GPU gets the next one while the results of the
        one before are fetched.

    Attributes
    ----------
    rows_at_once : int
        Rows that the model computes together: ``batch_size``, halved each time that memory did not suffice.
    """

    def __init__(
        self, method: AnswerLike, batch_size: int, n_batches: int = 3, threads: int = 1
    ) -> None:
        self._method = method
        self._batch_size = batch_size
        self.rows_at_once = batch_size
        self._to_make = n_batches
        self._free: list[_Batch] = []
        self._filling: dict[Shape, _Batch] = {}
        self._full: deque[_Batch] = deque()
        self._starving = 0
        self._producers = 0
        self._closed = False
        self._work = ModelWork()
        self._changed = threading.Condition()
        for _ in range(threads):
            threading.Thread(target=self._run, name="batcher", daemon=True).start()

    def close(self) -> None:
        """End the model's threads, once what was submitted is done."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    def work(self) -> WorkDone:
        """Return what the model's threads have done so far, and the rows that wait for them."""
        with self._changed:
            waiting = [*self._full, *self._filling.values()]
            return self._work.so_far(sum(batch.filled for batch in waiting))

    @contextmanager
    def producing(self) -> Iterator[None]:
        """Tell that more rows are on their way, for as long as the context is open."""
        with self._changed:
            self._producers += 1
        try:
            yield
        finally:
            with self._changed:
                self._producers -= 1
                self._changed.notify_all()

    def submit(self, rows: Arrays) -> Future[list[Arrays]]:
        """Queue rows; block while all batches are full. Call it within :meth:`producing`."""
        n = count_rows(rows)
        request = _Request(n)
        if n == 0:
            request.done.set_result([])
        start = 0
        while start < n:
            batch, piece = self._reserve(request, rows, n - start)
            batch.copy(rows, start, piece)
            start += piece.stop - piece.start
            self._fill(batch, piece)
        return request.done

    def _reserve(self, request: _Request, rows: Arrays, wanted: int) -> tuple[_Batch, _Piece]:
        """Take room in the batch of their shape that is being filled for up to ``wanted`` rows."""
        shape = shape_of(rows)
        with self._changed:
            self._starving += 1
            self._changed.notify_all()  # whoever runs batches may have to make room
            self._changed.wait_for(lambda: shape in self._filling or self._free or self._to_make)
            self._starving -= 1
            batch = self._filling.pop(shape, None) or self._next(shape, rows)
            start = batch.reserved
            batch.reserved = min(start + wanted, self._batch_size)
            if batch.reserved < self._batch_size:
                self._filling[shape] = batch
            piece = _Piece(request, len(request.results), start, batch.reserved)
            request.results.append(None)
            batch.pieces.append(piece)
            return batch, piece

    def _next(self, shape: Shape, rows: Arrays) -> _Batch:
        """Return a buffer for rows of a shape; one of another shape gives way to it."""
        for number, batch in enumerate(self._free):
            if batch.shape == shape:
                return self._free.pop(number)
        if not self._to_make:
            self._free.pop(0)
            self._to_make += 1
        batch = _Batch.for_rows_like(rows, self._batch_size)  # may fail for want of memory
        self._to_make -= 1
        return batch

    def _fill(self, batch: _Batch, piece: _Piece) -> None:
        with self._changed:
            batch.filled += piece.stop - piece.start
            if batch.filled == self._batch_size:
                self._full.append(batch)
                self._changed.notify_all()

    def _run(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._full or self._left_over() or self._closed)
                batch = self._full.popleft() if self._full else self._take_left_over()
                if batch is None:
                    return
                self._work.begin()
            self._measure(batch)
            with self._changed:
                self._work.end(batch.filled, self._batch_size)
                batch.pieces, batch.reserved, batch.filled = [], 0, 0
                self._free.append(batch)
                self._changed.notify_all()

    def _left_over(self) -> _Batch | None:
        """Return the fullest batch whose rows wait for others that do not come, or that find no room."""
        room = self._free or self._to_make or self._full or self._work.is_busy
        if self._producers and (not self._starving or room):
            return None
        whole = [each for each in self._filling.values() if each.filled == each.reserved]
        return max(whole, key=lambda each: each.filled, default=None)

    def _take_left_over(self) -> _Batch | None:
        batch = self._left_over()
        return None if batch is None else self._filling.pop(batch.shape)

    def _measure(self, batch: _Batch) -> None:
        try:
            answer = self._answer(batch, 0, batch.filled)
        except BaseException as error:  # noqa: BLE001  # whoever waits must hear of it
            self._measure_apart(batch, error)
            return
        for piece in batch.pieces:
            _give(piece, _slice(answer, piece.start, piece.stop))

    def _measure_apart(self, batch: _Batch, error: BaseException) -> None:
        """Measure each piece by itself after a failure that single rows may cause: it is then its own."""
        alone = len(batch.pieces) > 1 and classify(error) in POISONOUS
        for piece in batch.pieces:
            failure: BaseException | None = error
            if alone:
                try:
                    _give(piece, self._answer(batch, piece.start, piece.stop))
                    failure = None
                except BaseException as own:  # noqa: BLE001
                    failure = own
            if failure is not None:
                with suppress(InvalidStateError):  # another piece has failed
                    piece.request.done.set_exception(failure)

    def _answer(self, batch: _Batch, start: int, stop: int) -> Arrays:
        """Run the model; where memory does not suffice, in smaller batches from then on."""
        from deblend_batch.models.device import release_device_memory

        rows = {name: array[start:stop] for name, array in batch.arrays.items()}
        while True:
            try:
                return self._method.answer(rows, self.rows_at_once)
            except Exception as error:
                if not is_out_of_memory(error) or self.rows_at_once <= LEAST_ROWS:
                    raise
                self.rows_at_once = max(self.rows_at_once // 2, LEAST_ROWS)
                log.warning("batch halved", stamps=self.rows_at_once, reason=one_line(error))
            release_device_memory()


def _give(piece: _Piece, result: Arrays) -> None:
    request = piece.request
    request.results[piece.number] = result
    request.open_rows -= piece.stop - piece.start
    if request.open_rows == 0:
        with suppress(InvalidStateError):
            request.done.set_result([part for part in request.results if part is not None])


def _slice(answer: Arrays, start: int, stop: int) -> Arrays:
    return {name: array[start:stop] for name, array in answer.items()}
