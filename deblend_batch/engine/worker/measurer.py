"""Measuring a tile's blends: cut, infer, and leave out the few that cannot be measured."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import structlog
from numpy.typing import NDArray

from deblend_batch.catalog.shard import Measurement
from deblend_batch.engine.batching.batcher import Batcher
from deblend_batch.engine.inputs.work import RunContext, TileSpec, open_field
from deblend_batch.engine.methods.method import Arrays, Method, joined
from deblend_batch.engine.worker.bisection import Search
from deblend_batch.engine.worker.cut import cut_parts
from deblend_batch.engine.worker.poison import NO_DATA, Poison
from deblend_batch.failure import POISONOUS, Failure, Fault, classify
from deblend_batch.field.layout import Field
from deblend_batch.tiling.blends import Blends
from deblend_batch.tiling.stamps import Cut
from deblend_batch.tiling.tile import compact_order

log = structlog.get_logger()

_HOPELESS = 64
_NO_PIXEL = "no usable pixel that its light reaches, in any band"


@dataclass(frozen=True)
class Measured:
    """What is known of some blends of a tile.

    Parameters
    ----------
    measurement : Measurement
        Fluxes, areas and flags.
    masks : ndarray of uint8, shape (n, 3, y, x), or None
        Where they are kept.
    seconds : dict of str to float
        Wall time of ``cut`` (read and cut) and ``infer`` (waiting for the model).
    """

    measurement: Measurement
    masks: NDArray[np.uint8] | None
    seconds: dict[str, float]

    def take(self, rows: NDArray[np.int64]) -> Measured:
        """Return some rows, in the order asked for."""
        masks = None if self.masks is None else self.masks[rows]
        return replace(self, measurement=self.measurement.take(rows), masks=masks)

    @classmethod
    def concatenate(cls, parts: Sequence[Measured]) -> Measured:
        """Put parts end to end, and add their times up."""
        measurement = Measurement(joined([part.measurement.columns for part in parts]))
        masks = [part.masks for part in parts if part.masks is not None]
        seconds = {key: sum(part.seconds[key] for part in parts) for key in parts[0].seconds}
        return cls(measurement, np.concatenate(masks) if masks else None, seconds)


class Measurer:
    """Measures blends of one tile at a time; safe to use from several threads.

    Parameters
    ----------
    context : RunContext
        The run.
    batcher : Batcher
        Runs the method's model.
    method : Method
        How the run's model measures.
    """

    def __init__(self, context: RunContext, batcher: Batcher, method: Method) -> None:
        self._context = context
        self._batcher = batcher
        self._method = method
        self._bug_shown = False

    def measure(self, spec: TileSpec, blends: Blends) -> Measured:
        """Measure blends; those that need a larger stamp than they had are cut and measured again."""
        answers, seconds = self._measure_once(spec, blends)
        columns, size = answers.columns(), answers.needed_sizes()
        while len(rows := np.flatnonzero(size > blends.stamp_size)):
            blends = replace(blends, stamp_size=size)
            answers, more = self._measure_once(spec, blends[rows])
            for name, values in answers.columns().items():
                columns[name][rows] = values
            size = size.copy()
            size[rows] = answers.needed_sizes()
            seconds = {name: seconds[name] + more[name] for name in seconds}
        masks = columns.pop("masks", None)
        return Measured(Measurement(columns), masks, seconds)

    def _measure_once(self, spec: TileSpec, blends: Blends) -> tuple[_Answers, dict[str, float]]:
        """Measure blends in the stamps that they have; return the wall time of cutting and of waiting."""
        started = time.monotonic()
        opened = open_field(spec.field_url, self._context)
        answers = _Answers(self._method, opened, blends.width)
        with self._batcher.producing():
            for rows, stamps in cut_parts(spec, blends, self._context):
                given = self._method.given(stamps, opened)
                answers.expect(rows, stamps.cut, self._batcher.submit(given))
                del stamps, given  # before the next ones are cut
        cut = time.monotonic()
        answers.wait()
        return answers, {"cut": cut - started, "infer": time.monotonic() - cut}

    def measure_sound(
        self, spec: TileSpec, blends: Blends, pieces: int = 1
    ) -> tuple[Measured, list[Poison]]:
        """Measure all blends that can be measured; those without a usable pixel in any band cannot."""
        if pieces == 1:
            measured, poison = self._measure_apart(spec, blends)
        else:
            measured, poison = self._measure_pieces(spec, blends, pieces)
        blamed = {each.row for each in poison}
        sound = np.array([row for row in range(len(blends)) if row not in blamed], np.int64)
        known = np.isfinite(measured.measurement.columns["flux"]).any(axis=1)
        empty = ~(known & blends.is_measured[sound]).any(axis=1)
        poison += [Poison(row, _NO_PIXEL, NO_DATA) for row in sound[empty].tolist()]
        if empty.any():
            measured = measured.take(np.flatnonzero(~empty))
        return measured, sorted(poison, key=lambda each: each.row)

    def _show_once(self, error: Exception) -> None:
        """Log where the first bug of this process is: a quarantine record has room for one line."""
        if classify(error) is Failure.BUG and not self._bug_shown:
            self._bug_shown = True
            log.error("unexpected", exc_info=error)

    def _measure_pieces(
        self, spec: TileSpec, blends: Blends, pieces: int
    ) -> tuple[Measured, list[Poison]]:
        found: list[tuple[NDArray[np.int64], Measured]] = []
        poison: list[Poison] = []
        failure: Exception | None = None
        for rows in np.array_split(compact_order(blends.yx[:, 0]), min(pieces, len(blends))):
            try:
                measured, spoilt = self._measure_apart(spec, blends[rows])
            except Exception as error:
                if classify(error) not in POISONOUS:
                    raise
                failure = error
                fault = Fault.of(error)
                poison += [Poison.of(int(row), fault) for row in rows]
                continue
            poison += [replace(each, row=int(rows[each.row])) for each in spoilt]
            found.append((np.delete(rows, [each.row for each in spoilt]), measured))
        if failure is not None and not found:
            raise failure
        order = np.argsort(np.concatenate([kept for kept, _ in found]))
        return Measured.concatenate([measured for _, measured in found]).take(order), poison

    def _measure_apart(self, spec: TileSpec, blends: Blends) -> tuple[Measured, list[Poison]]:
        try:
            return self.measure(spec, blends), []
        except Exception as error:
            if classify(error) not in POISONOUS:
                raise
            self._show_once(error)
            order = compact_order(blends.yx[:, 0])
            found, poison = _apart(
                lambda rows: self.measure(spec, blends[order[rows.start : rows.stop]]),
                len(blends),
                error,
            )
        place = np.concatenate([order[rows.start : rows.stop] for rows in found])
        measured = Measured.concatenate(list(found.values())).take(np.argsort(place))
        return measured, [replace(each, row=int(order[each.row])) for each in poison]


def _apart(
    measure: Callable[[range], Measured], n: int, error: Exception
) -> tuple[dict[range, Measured], list[Poison]]:
    """Measure ranges of rows, halved until only the poison fails."""
    found: dict[range, Measured] = {}
    search, count = Search.begin(range(n), Fault.of(error)), 0
    while (rows := search.next) is not None:
        count += 1
        try:
            found[rows] = measure(rows)
            search = search.tried(None)
        except Exception as failure:
            if classify(failure) not in POISONOUS or (count >= _HOPELESS and not found):
                raise
            search = search.tried(Fault.of(failure))
    if not found:
        raise error from None
    return found, list(search.blamed)


class _Answers:
    """The model's answers to a tile, reduced as they come: masks in full would need gigabytes."""

    def __init__(self, method: Method, opened: Field, width: int) -> None:
        self._method = method
        self._opened = opened
        self._width = width
        self._open: deque[tuple[Cut, Future[list[Arrays]]]] = deque()
        self._rows: list[NDArray[np.int64]] = []
        self._parts: list[dict[str, NDArray[Any]]] = []
        self._sizes: list[NDArray[np.int16]] = []

    def expect(self, rows: NDArray[np.int64], cut: Cut, answer: Future[list[Arrays]]) -> None:
        self._rows.append(rows)
        self._open.append((cut, answer))
        while self._open and self._open[0][1].done():
            self._take()

    def wait(self) -> None:
        """Take all answers."""
        while self._open:
            self._take()

    def columns(self) -> dict[str, NDArray[Any]]:
        """Return the columns of all blends, in the tile's order."""
        order = self._order()
        return {name: values[order] for name, values in joined(self._parts).items()}

    def needed_sizes(self) -> NDArray[np.int16]:
        """Return the stamps that the blends turned out to need, in the tile's order."""
        return np.concatenate(self._sizes)[self._order()]

    def _order(self) -> NDArray[np.int64]:
        return np.argsort(np.concatenate(self._rows))

    def _take(self) -> None:
        cut, answer = self._open.popleft()
        columns = self._method.measured(cut, answer.result(), self._opened)
        self._sizes.append(self._method.needed_sizes(cut, columns))
        self._parts.append(
            {name: _widened(name, values, self._width) for name, values in columns.items()}
        )


def _widened(name: str, values: NDArray[Any], width: int) -> NDArray[Any]:
    """Give a column, whose last axis counts members, room for those of the widest blend."""
    missing = width - values.shape[-1]
    if name == "masks" or not missing:
        return values
    nothing = np.nan if values.dtype.kind == "f" else 0
    room = [(0, 0)] * (values.ndim - 1) + [(0, missing)]
    return np.pad(values, room, constant_values=nothing)
