"""Batches of fixed shape across tiles: the meeting point of an actor's tile threads and its model."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from deblend_batch.tiling.stamps import Stamps


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
    rows: Rows
    done: Future[list[PredictionLike]]
    taken: int = 0
    open_rows: int = 0
    results: list[tuple[int, PredictionLike]] = field(default_factory=list)


class Batcher:
    """Runs a model in a thread of its own on full batches, whatever tiles their rows come from.

    A batch that is not full is run only when nobody is still cutting: a row's result does not depend on the
    rows beside it, so how rows meet changes the speed alone.

    Parameters
    ----------
    model : ModelLike
        The model.
    batch_size : int
        Rows in a batch.
    capacity : int, optional
        Rows that may wait; :meth:`submit` blocks beyond it. Two batches if None.
    """

    def __init__(self, model: ModelLike, batch_size: int, capacity: int | None = None) -> None:
        self._model = model
        self._batch_size = batch_size
        self._capacity = capacity or 2 * batch_size
        self._requests: deque[_Request] = deque()
        self._waiting = 0
        self._producers = 0
        self._changed = threading.Condition()
        self._staging: dict[str, NDArray[np.float32]] = {}
        self.busy_seconds = 0.0
        self.rows_done = 0
        threading.Thread(target=self._run, name="batcher", daemon=True).start()

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
        """Queue rows; block while the queue is full.

        Parameters
        ----------
        rows : Rows
            What to measure.

        Returns
        -------
        concurrent.futures.Future
            Predictions whose rows, put end to end, are those of ``rows``.
        """
        request = _Request(rows, Future(), open_rows=len(rows))
        if len(rows) == 0:
            request.done.set_result([])
            return request.done
        with self._changed:
            self._changed.wait_for(lambda: self._waiting < max(self._capacity, self._batch_size))
            self._requests.append(request)
            self._waiting += len(rows)
            self._changed.notify_all()
        return request.done

    def _run(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(
                    lambda: (
                        self._waiting >= self._batch_size
                        or (self._waiting > 0 and self._producers == 0)
                    )
                )
                pieces = self._take()
            self._measure(pieces)

    def _take(self) -> list[tuple[_Request, int, int]]:
        """Take up to a batch of rows off the queue: (request, first row, last row + 1)."""
        pieces, room = [], self._batch_size
        while room and self._requests:
            request = self._requests[0]
            stop = min(request.taken + room, len(request.rows))
            pieces.append((request, request.taken, stop))
            room -= stop - request.taken
            request.taken = stop
            if stop == len(request.rows):
                self._requests.popleft()
        self._waiting -= self._batch_size - room
        self._changed.notify_all()
        return pieces

    def _measure(self, pieces: list[tuple[_Request, int, int]]) -> None:
        try:
            arrays = {name: self._stage(name, pieces) for name in Rows.__dataclass_fields__}
            prediction = self._model.predict(
                arrays["pixels"],
                arrays["companion_yx"],
                arrays["central_yx"],
                arrays["neighbours_yx"],
                arrays["sigma"],
                self._batch_size,
            )
        except BaseException as error:  # noqa: BLE001  # whoever waits must hear of it
            for request, _, _ in pieces:
                if not request.done.done():
                    request.done.set_exception(error)
            return
        at = 0
        for request, start, stop in pieces:
            part = _slice(prediction, at, at + stop - start)
            at += stop - start
            request.results.append((start, part))
            request.open_rows -= stop - start
            if request.open_rows == 0 and not request.done.done():
                request.done.set_result([result for _, result in request.results])
        self.rows_done += at

    def _stage(self, name: str, pieces: list[tuple[_Request, int, int]]) -> NDArray[np.float32]:
        """Gather rows in one buffer that is used again and again: the only copy after the cut."""
        parts = [getattr(request.rows, name)[start:stop] for request, start, stop in pieces]
        if len(parts) == 1:
            return parts[0]  # type: ignore[no-any-return]
        total = sum(len(part) for part in parts)
        buffer = self._staging.get(name)
        if buffer is None:
            buffer = np.empty((self._batch_size, *parts[0].shape[1:]), np.float32)
            self._staging[name] = buffer
        return np.concatenate(parts, out=buffer[:total])


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
