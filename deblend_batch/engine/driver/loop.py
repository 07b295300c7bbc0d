"""The driver's loop: hands tiles to model actors, and owns every retry.

Ray itself retries nothing here: tasks sent to an actor that Ray restarts can hang until it is placed, and an
error may be raised for work that was done (docs/decisions/004-exactly-once.md). A tile is instead given to
another actor; its shard has one name and one content, so doing it twice is harmless.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import ray

from deblend_batch.catalog.records import QuarantineRecord, Receipt
from deblend_batch.cluster.failure import (
    POISONOUS,
    Failure,
    classify,
    is_preempted,
    one_line,
    unwrap,
)
from deblend_batch.config import EngineConfig
from deblend_batch.engine.driver.crew import Actor, Crew
from deblend_batch.engine.driver.depth import Depth
from deblend_batch.engine.driver.events import Events
from deblend_batch.engine.driver.workqueue import Work, WorkQueue
from deblend_batch.engine.inputs.work import RunContext, TileSpec, load_pairs
from deblend_batch.engine.needs.pool import ActorPool
from deblend_batch.engine.worker.actor import ModelLoader, TileOutcome, load_run_model
from deblend_batch.engine.worker.bisection import halve
from deblend_batch.engine.worker.poison import Poison, quarantine_record
from deblend_batch.errors import RunStoppedError

_BACKOFF_SECONDS = 0.5
_TICK_SECONDS = 0.5
_MOST_DEATHS = 128
_MOST_PIECES = 64
_UNEXPLAINED = 3
_WORKER_IN_DOUBT = frozenset({Failure.WORKER, Failure.DEVICE, Failure.MEMORY})
_OF_THE_PAIRS = POISONOUS | {Failure.WORKER}


class Driver:
    """Runs tiles on actors until none is left.

    Parameters
    ----------
    context : RunContext
        The run.
    pool : ActorPool
        The actors to make.
    engine : EngineConfig
        Limits.
    events : Events
        Who is told.
    loader : callable
        Makes the model in each actor; benchmarks give a stub.
    """

    def __init__(
        self,
        context: RunContext,
        pool: ActorPool,
        engine: EngineConfig,
        events: Events,
        loader: ModelLoader = load_run_model,
    ) -> None:
        self._context = context
        self._engine = engine
        self._events = events
        self._crew = Crew(context, pool, engine, events, loader)
        self._depth = Depth(engine.tiles_in_flight)
        self._in_flight: dict[Any, tuple[Actor, Work]] = {}
        self._failures_in_a_row = 0
        self._anything_done = False
        self._unexplained: list[tuple[Work, Exception]] = []
        self._emptied: Actor | None = None

    def start(self) -> None:
        """Make the actors, which takes seconds: what else is to be done can be done meanwhile."""
        self._crew.start()

    @property
    def tiles_in_flight(self) -> int:
        """Tiles that actors hold."""
        return len(self._in_flight)

    @property
    def actors_ready(self) -> int:
        """Actors that take tiles, or finish those that they have."""
        return self._crew.n_ready

    @property
    def actors_starting(self) -> int:
        """Actors that have no node yet, or still load their model."""
        return len(self._crew.booting)

    def run(self, tiles: Iterator[TileSpec], most_in_flight: int, *, proven: bool = False) -> None:
        """Run every tile of a lazy stream, on the actors that :meth:`start` made, and end them.

        Parameters
        ----------
        tiles : iterator of TileSpec
            The work; drawn only as actors have room.
        most_in_flight : int
            Tiles that an actor may come to hold while its model waits for pixels.
        proven : bool
            Whether an earlier start has finished tiles: a tile that fails is then a fault of its own.

        Raises
        ------
        RunStoppedError
            If too many tiles fail in a row, or actors die before they are ready.
        UserError
            If something fails that the user must mend.
        """
        self._queue = WorkQueue(tiles)
        self._depth.allow(most_in_flight)
        self._anything_done = proven
        try:
            while self._in_flight or self._queue.left():
                self._crew.look_at_nodes()
                self._dispatch()
                self._collect()
                self._events.tick()
                self._crew.say_waiting()
            if self._unexplained:
                raise unwrap(self._unexplained[0][1])
        finally:
            self.close()

    def close(self) -> None:
        """Kill the actors; what they held is done again by a later run."""
        self._crew.close()
        self._in_flight.clear()

    def _dispatch(self) -> None:
        self._dispatch_suspect()
        while (work := self._queue.peek()) is not None:
            limit = self._depth.tiles
            free = [
                actor
                for actor in self._crew.live
                if actor is not self._emptied and actor.room(limit) > 0
            ]
            if not free:
                return
            self._start(min(free, key=lambda actor: len(actor.held)), work)

    def _dispatch_suspect(self) -> None:
        """Give a suspect an actor to itself: one is given nothing else until it has nothing left."""
        work = self._queue.peek_suspect()
        if work is None or not self._crew.live:
            self._emptied = None
            return
        if self._emptied not in self._crew.live:
            self._emptied = min(self._crew.live, key=lambda actor: len(actor.held))
        if self._emptied is not None and not self._emptied.held:
            self._start(self._emptied, work)
            self._emptied = None

    def _start(self, actor: Actor, work: Work) -> None:
        self._queue.take(work)
        actor.held.append(work)
        self._in_flight[self._send(actor, work)] = (actor, work)

    def _send(self, actor: Actor, work: Work) -> Any:
        if work.rows is not None:
            return actor.handle.probe.remote(work.spec, work.rows.start, work.rows.stop)
        return actor.handle.process.remote(work.spec, work.known, work.attempts + 1, work.pieces)

    def _collect(self) -> None:
        waiting = [*self._crew.booting, *self._in_flight]
        if not waiting:
            time.sleep(_TICK_SECONDS)  # every tile left waits for its back-off
            return
        done, _ = ray.wait(waiting, num_returns=1, timeout=_TICK_SECONDS, fetch_local=False)
        for ref in done:
            if ref in self._crew.booting:
                self._crew.take_in(ref)
            else:
                self._finish(ref)

    def _finish(self, ref: Any) -> None:
        actor, work = self._in_flight.pop(ref)
        actor.held.remove(work)
        try:
            outcome = ray.get(ref)
        except Exception as error:  # noqa: BLE001  # classed at once
            self._failed(actor, work, error)
            return
        if work.rows is not None:
            self._try_next(work, None)
        else:
            self._learn(actor, outcome.receipt)
            self._done(work, outcome)

    def _learn(self, actor: Actor, receipt: Receipt | None) -> None:
        """Take note of what the actor's model did while the actor was given all that it may hold."""
        if receipt is None or self._queue.peek() is None:
            return
        busy = receipt.worker["busy_seconds"] - actor.busy_seconds
        up = receipt.worker["up_seconds"] - actor.up_seconds
        actor.busy_seconds += busy
        actor.up_seconds += up
        self._depth.learn(busy, up - busy, len(self._crew.live))

    def _done(self, work: Work, outcome: TileOutcome) -> None:
        receipt, record = outcome.receipt, outcome.record
        if receipt is not None:
            self._events.done(receipt)
        if record is not None:
            (self._events.left_out if receipt else self._events.quarantined)(record)
        if record is not None and 2 * outcome.failures >= work.spec.n_pairs:
            self._count_failure(record)
        elif receipt is not None:
            self._works()

    def _works(self) -> None:
        """Take note of a tile of which most pairs could be measured: others fail for causes of their own."""
        self._failures_in_a_row = 0
        self._anything_done = True
        unexplained, self._unexplained = self._unexplained, []
        for work, error in unexplained:
            self._quarantine(work, error)

    def _failed(self, actor: Actor, work: Work, error: Exception) -> None:
        failure = classify(error)
        if failure is Failure.USER:
            raise unwrap(error)
        if failure in _WORKER_IN_DOUBT:
            self._crew.replace(actor, failure)
        if failure is Failure.MEMORY:
            self._depth.lower()
        if is_preempted(error):
            self._queue.put_back(work)
        elif work.rows is not None and failure in _OF_THE_PAIRS:
            self._try_next(work, error)
        elif failure in POISONOUS:
            self._spoilt(work, failure, error)
        else:
            self._try_again(work, failure, error)

    def _spoilt(self, work: Work, failure: Failure, error: Exception) -> None:
        """Deal with a tile of which no pair can be measured."""
        work.attempts += 1
        if failure is Failure.BUG and not self._anything_done:
            self._unexplained.append((work, error))
            if len(self._unexplained) >= min(_UNEXPLAINED, self._engine.max_failures):
                raise unwrap(self._unexplained[0][1])
        else:
            self._quarantine(work, error)

    def _try_again(self, work: Work, failure: Failure, error: Exception) -> None:
        if failure is Failure.TRANSIENT:
            work.refusals = times = work.refusals + 1
        else:
            work.attempts = times = work.attempts + 1
        if times < self._engine.attempts:
            self._queue.put_back(work, _BACKOFF_SECONDS * 2 ** (times - 1))
            self._events.retried(work.spec.name, times, failure, one_line(error))
        elif failure is Failure.TRANSIENT:
            raise unwrap(error)  # a store that is gone would quarantine what is sound
        elif work.rows is not None:
            self._try_next(work, error)
        else:
            self._exhausted(work, failure, error)

    def _exhausted(self, work: Work, failure: Failure, error: Exception) -> None:
        """Look for pairs that kill the worker, once; then do the tile in pieces; then give it up."""
        n_pairs, pieces = work.spec.n_pairs, 2 * work.pieces
        if failure is not Failure.MEMORY and not work.searched:
            work.searched = True
            work.tries = halve(range(n_pairs), error, _MOST_DEATHS, confirm=True)
            self._try_next(work, None)
        elif work.pieces < min(n_pairs, _MOST_PIECES):
            reason = f"{one_line(error)}; now in {pieces} pieces"
            self._events.retried(work.spec.name, work.attempts, failure, reason)
            work.pieces, work.attempts = pieces, 0
            self._queue.put_back(work, _BACKOFF_SECONDS)
        else:
            self._quarantine(work, error)

    def _try_next(self, work: Work, outcome: Exception | None) -> None:
        """Go on narrowing down which pairs kill the workers; then do the tile without them."""
        assert work.tries is not None
        work.attempts = work.refusals = 0  # of this try
        try:
            work.rows = work.tries.send(outcome)
        except StopIteration as end:
            poison: list[Poison] = end.value
            work.rows, work.tries, work.known = None, None, poison
            if len(poison) == work.spec.n_pairs:
                self._quarantine_pairs(work, poison)
                return
            work.attempts = self._engine.attempts - 1  # one try is left
        self._queue.put_back(work)

    def _quarantine(self, work: Work, error: Exception) -> None:
        self._quarantine_pairs(work, [Poison.of(row, error) for row in range(work.spec.n_pairs)])

    def _quarantine_pairs(self, work: Work, poison: list[Poison]) -> None:
        pairs = load_pairs(work.spec, self._context)
        record = quarantine_record(work.spec.name, pairs, poison, max(work.attempts, 1))
        self._events.quarantined(record)
        self._count_failure(record)

    def _count_failure(self, record: QuarantineRecord) -> None:
        """Stop where most of tile after tile fails, instead of putting a survey in quarantine."""
        self._failures_in_a_row += 1
        if self._failures_in_a_row >= self._engine.max_failures:
            raise RunStoppedError(
                f"{self._failures_in_a_row} tiles in a row failed, last {record.tile}: "
                f"{record.reason}; mend the cause, then: deblend-batch retry {self._context.output}"
            )
