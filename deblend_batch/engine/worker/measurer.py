"""Measuring a tile's pairs: cut, infer, and leave out the few that cannot be measured."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np
import structlog
from numpy.typing import NDArray

from deblend_batch.catalog.shard import Measurement
from deblend_batch.engine.batching.batcher import Batcher, PredictionLike, Rows
from deblend_batch.engine.inputs.work import RunContext, TileSpec, open_field
from deblend_batch.engine.worker.bisection import Search
from deblend_batch.engine.worker.cut import cut_parts
from deblend_batch.engine.worker.poison import NO_DATA, Poison
from deblend_batch.engine.worker.reduce import Part, domain_flags, measurement, reduce
from deblend_batch.failure import POISONOUS, Failure, Fault, classify
from deblend_batch.models.card import Domain
from deblend_batch.tiling.pairs import Pairs
from deblend_batch.tiling.tile import compact_order

log = structlog.get_logger()

_HOPELESS = 64
_NO_PIXEL = "no usable pixel in its stamp, in any band"


@dataclass(frozen=True)
class Measured:
    """What is known of some pairs of a tile.

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
        taken = {f.name: getattr(self.measurement, f.name)[rows] for f in fields(Measurement)}
        return replace(
            self,
            measurement=Measurement(**taken),
            masks=None if self.masks is None else self.masks[rows],
        )

    @classmethod
    def concatenate(cls, parts: Sequence[Measured]) -> Measured:
        """Put parts end to end, and add their times up."""
        joined = {
            f.name: np.concatenate([getattr(part.measurement, f.name) for part in parts])
            for f in fields(Measurement)
        }
        masks = [part.masks for part in parts if part.masks is not None]
        seconds = {key: sum(part.seconds[key] for part in parts) for key in parts[0].seconds}
        return cls(Measurement(**joined), np.concatenate(masks) if masks else None, seconds)


class Measurer:
    """Measures pairs of one tile at a time; safe to use from several threads.

    Parameters
    ----------
    context : RunContext
        The run.
    batcher : Batcher
        Runs the model.
    domain : Domain
        Of the model's training.
    """

    def __init__(self, context: RunContext, batcher: Batcher, domain: Domain) -> None:
        self._context = context
        self._batcher = batcher
        self._domain = domain
        self._bug_shown = False

    def measure(self, spec: TileSpec, pairs: Pairs) -> Measured:
        """Measure pairs."""
        started = time.monotonic()
        opened = open_field(spec.field_url, self._context)
        answers = _Answers(opened.n_bands, keep_masks=self._context.masks)
        bits, sigma = [], []
        with self._batcher.producing():
            for stamps in cut_parts(spec, pairs, self._context):
                answers.expect(self._batcher.submit(Rows.of_bands(stamps)))
                bits.append(stamps.flags)
                sigma.append(stamps.sigma)
                del stamps  # before the next ones are cut
        cut = time.monotonic()
        found = measurement(np.concatenate(bits), answers.wait())
        seconds = {"cut": cut - started, "infer": time.monotonic() - cut}
        separation_px = np.linalg.norm(pairs.yx[:, 0] - pairs.yx[:, 1], axis=1)
        fwhm_px = [fwhm / opened.pixel_scale_arcsec for fwhm in opened.meta.psf_fwhm_arcsec]
        extra = domain_flags(found, separation_px, np.concatenate(sigma), fwhm_px, self._domain)
        masks = answers.masks() if self._context.masks else None
        return Measured(replace(found, flags=found.flags | extra), masks, seconds)

    def measure_sound(
        self, spec: TileSpec, pairs: Pairs, pieces: int = 1
    ) -> tuple[Measured, list[Poison]]:
        """Measure all pairs that can be measured; those without a usable pixel in any band cannot."""
        if pieces == 1:
            measured, poison = self._measure_apart(spec, pairs)
        else:
            measured, poison = self._measure_pieces(spec, pairs, pieces)
        blamed = {each.row for each in poison}
        sound = np.array([row for row in range(len(pairs)) if row not in blamed], np.int64)
        empty = np.isnan(measured.measurement.flux).all(axis=(1, 2))
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
        self, spec: TileSpec, pairs: Pairs, pieces: int
    ) -> tuple[Measured, list[Poison]]:
        found: list[tuple[NDArray[np.int64], Measured]] = []
        poison: list[Poison] = []
        failure: Exception | None = None
        for rows in np.array_split(compact_order(pairs.yx[:, 0]), min(pieces, len(pairs))):
            try:
                measured, spoilt = self._measure_apart(spec, pairs[rows])
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

    def _measure_apart(self, spec: TileSpec, pairs: Pairs) -> tuple[Measured, list[Poison]]:
        try:
            return self.measure(spec, pairs), []
        except Exception as error:
            if classify(error) not in POISONOUS:
                raise
            self._show_once(error)
            order = compact_order(pairs.yx[:, 0])
            found, poison = _apart(
                lambda rows: self.measure(spec, pairs[order[rows.start : rows.stop]]),
                len(pairs),
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

    def __init__(self, n_bands: int, *, keep_masks: bool) -> None:
        self._n_bands = n_bands
        self._keep_masks = keep_masks
        self._open: deque[Future[list[PredictionLike]]] = deque()
        self._parts: list[Part] = []

    def expect(self, answer: Future[list[PredictionLike]]) -> None:
        self._open.append(answer)
        while self._open and self._open[0].done():
            self._take()

    def wait(self) -> list[Part]:
        while self._open:
            self._take()
        return self._parts

    def masks(self) -> NDArray[np.uint8]:
        return np.concatenate([part.masks for part in self._parts if part.masks is not None])

    def _take(self) -> None:
        predictions: list[Any] = self._open.popleft().result()
        self._parts.append(reduce(predictions, self._n_bands, keep_masks=self._keep_masks))
