"""Batches of fixed shape across tiles: the meeting point of an actor's tile threads and its model."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, InvalidStateError
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, fields
from typing import Protocol

import numpy as np
import structlog
from numpy.typing import NDArray

from deblend_batch.engine.batching.model_work import ModelWork, WorkDone
from deblend_batch.failure import POISONOUS, classify, is_out_of_memory, one_line
from deblend_batch.models.batches import LEAST_ROWS
from deblend_batch.tiling.stamps import Stamps

log = structlog.get_logger()


class PredictionLike(Protocol):
    """What a model returns: see :class:`deblend_batch.models.Prediction`."""

    @property
    def flux(self) -> NDArray[np.float32]:
        """Flux of [central, companion], shape (n, 2)."""

    @property
    def flux_err(self) -> NDArray[np.float32]:
        """One-sigma errors, shape (n, 2)."""

    @property
    def masks(self) -> NDArray[np.float32] | None:
        """Probabilities, shape (n, 3, y, x), or None."""


class ModelLike(Protocol):
    """What the batcher needs of a model: see :class:`deblend_batch.models.Model`."""

    def predict(
        self,
        stamps: NDArray[np.float32],
        companion_yx: NDArray[np.float32],
        central_yx: NDArray[np.float32] | None = None,
        neighbours_yx: NDArray[np.float32] | None = None,
        sigma: NDArray[np.float32] | None = None,
        batch_size: int | None = None,
    ) -> PredictionLike:
        """Measure a batch."""


@dataclass(frozen=True)
class Rows:
    """Stamps of single bands, one a row, as a model takes them."""

    pixels: NDArray[np.float32]
    companion_yx: NDArray[np.float32]
    central_yx: NDArray[np.float32]
    neighbours_yx: NDArray[np.float32]
    sigma: NDArray[np.float32]

    @classmethod
    def of_bands(cls, stamps: Stamps) -> Rows:
        """Lay the bands of each stamp out as rows; bands vary fastest."""
        n, bands = stamps.pixels.shape[:2]
        return cls(
            stamps.pixels.reshape(n * bands, *stamps.pixels.shape[2:]),
            np.repeat(stamps.companion_yx, bands, axis=0),
            np.repeat(stamps.central_yx, bands, axis=0),
            np.repeat(stamps.neighbours_yx, bands, axis=0),
            stamps.sigma.ravel(),
        )

    def __len__(self) -> int:
        return len(self.pixels)


@dataclass
class _Request:
    """Rows that somebody waits for."""

    open_rows: int
    done: Future[list[PredictionLike]] = field(default_factory=Future)
    results: list[PredictionLike | None] = field(default_factory=list)


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

    arrays: dict[str, NDArray[np.float32]]
    pieces: list[_Piece] = field(default_factory=list)
    reserved: int = 0
    filled: int = 0

    @classmethod
    def for_rows_like(cls, rows: Rows, size: int) -> _Batch:
        shapes = {each.name: getattr(rows, each.name).shape[1:] for each in fields(rows)}
        return cls({name: np.empty((size, *shape), np.float32) for name, shape in shapes.items()})

    def copy(self, rows: Rows, start: int, piece: _Piece) -> None:
        stop = start + piece.stop - piece.start
        for name, target in self.arrays.items():
            target[piece.start : piece.stop] = getattr(rows, name)[start:stop]


class Batcher:
    """Runs a model in threads of its own on full batches, whatever tiles their rows come from.

    Whoever brings rows copies them to their place in a batch, so that the model's threads only compute. A
    batch that is not full is run only when nobody is still cutting: a row's result does not depend on the
    rows beside it, so how rows meet changes the speed alone.

    Parameters
    ----------
    model : ModelLike
        The model.
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
        self, model: ModelLike, batch_size: int, n_batches: int = 3, threads: int = 1
    ) -> None:
        self._model = model
        self._batch_size = batch_size
        self.rows_at_once = batch_size
        self._to_make = n_batches
        self._free: list[_Batch] = []
        self._filling: _Batch | None = None
        self._full: deque[_Batch] = deque()
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
            waiting = sum(batch.filled for batch in self._full)
            return self._work.so_far(waiting + (self._filling.filled if self._filling else 0))

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

    def submit(self, rows: Rows) -> Future[list[PredictionLike]]:
        """Queue rows; block while all batches are full. Call it within :meth:`producing`."""
        request = _Request(len(rows))
        if len(rows) == 0:
            request.done.set_result([])
        start = 0
        while start < len(rows):
            batch, piece = self._reserve(request, rows, len(rows) - start)
            batch.copy(rows, start, piece)
            start += piece.stop - piece.start
            self._fill(batch, piece)
        return request.done

    def _reserve(self, request: _Request, rows: Rows, wanted: int) -> tuple[_Batch, _Piece]:
        """Take room in the batch that is being filled for up to ``wanted`` rows."""
        with self._changed:
            self._changed.wait_for(lambda: self._filling or self._free or self._to_make)
            batch = self._filling or self._next(rows)
            start = batch.reserved
            batch.reserved = min(start + wanted, self._batch_size)
            self._filling = batch if batch.reserved < self._batch_size else None
            piece = _Piece(request, len(request.results), start, batch.reserved)
            request.results.append(None)
            batch.pieces.append(piece)
            return batch, piece

    def _next(self, rows: Rows) -> _Batch:
        if self._free:
            return self._free.pop()
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
                if not self._full and not self._left_over():
                    return
                batch = self._full.popleft() if self._full else self._take_left_over()
                self._work.begin()
            self._measure(batch)
            with self._changed:
                self._work.end(batch.filled, self._batch_size)
                batch.pieces, batch.reserved, batch.filled = [], 0, 0
                self._free.append(batch)
                self._changed.notify_all()

    def _left_over(self) -> bool:
        """Whether rows wait that nobody will add others to."""
        return self._filling is not None and self._producers == 0

    def _take_left_over(self) -> _Batch:
        batch, self._filling = self._filling, None
        assert batch is not None
        return batch

    def _measure(self, batch: _Batch) -> None:
        try:
            prediction = self._predict(batch, 0, batch.filled)
        except BaseException as error:  # noqa: BLE001  # whoever waits must hear of it
            self._measure_apart(batch, error)
            return
        for piece in batch.pieces:
            _answer(piece, _slice(prediction, piece.start, piece.stop))

    def _measure_apart(self, batch: _Batch, error: BaseException) -> None:
        """Measure each piece by itself after a failure that single rows may cause: it is then its own."""
        alone = len(batch.pieces) > 1 and classify(error) in POISONOUS
        for piece in batch.pieces:
            failure: BaseException | None = error
            if alone:
                try:
                    _answer(piece, self._predict(batch, piece.start, piece.stop))
                    failure = None
                except BaseException as own:  # noqa: BLE001
                    failure = own
            if failure is not None:
                with suppress(InvalidStateError):  # another piece has failed
                    piece.request.done.set_exception(failure)

    def _predict(self, batch: _Batch, start: int, stop: int) -> PredictionLike:
        """Run the model; where memory does not suffice, in smaller batches from then on."""
        from deblend_batch.models.device import release_device_memory

        rows = {name: array[start:stop] for name, array in batch.arrays.items()}
        while True:
            try:
                return self._model.predict(
                    rows["pixels"],
                    rows["companion_yx"],
                    rows["central_yx"],
                    rows["neighbours_yx"],
                    rows["sigma"],
                    self.rows_at_once,
                )
            except Exception as error:
                if not is_out_of_memory(error) or self.rows_at_once <= LEAST_ROWS:
                    raise
                self.rows_at_once = max(self.rows_at_once // 2, LEAST_ROWS)
                log.warning("batch halved", stamps=self.rows_at_once, reason=one_line(error))
            release_device_memory()


def _answer(piece: _Piece, result: PredictionLike) -> None:
    request = piece.request
    request.results[piece.number] = result
    request.open_rows -= piece.stop - piece.start
    if request.open_rows == 0:
        with suppress(InvalidStateError):
            request.done.set_result([part for part in request.results if part is not None])


@dataclass(frozen=True)
class _Slice:
    flux: NDArray[np.float32]
    flux_err: NDArray[np.float32]
    masks: NDArray[np.float32] | None


def _slice(prediction: PredictionLike, start: int, stop: int) -> PredictionLike:
    masks = prediction.masks
    return _Slice(
        prediction.flux[start:stop],
        prediction.flux_err[start:stop],
        None if masks is None else masks[start:stop],
    )
