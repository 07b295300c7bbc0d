"""The driver's loop: hands tiles to workers, and carries out what recovery decides.

Ray itself retries nothing here: tasks sent to an actor that Ray restarts can hang until it is placed, and an
error may be raised for work that was done (docs/decisions/004-exactly-once.md). A tile is instead given to
another actor; its shard has one name and one content, so doing it twice is harmless.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

from deblend_batch.catalog.records import QuarantineRecord, Receipt
from deblend_batch.config import EngineConfig
from deblend_batch.engine.crew.crew import Answer, Call, Crew
from deblend_batch.engine.driver.depth import Depth
from deblend_batch.engine.driver.events import Events
from deblend_batch.engine.driver.recovery import (
    WORKER_IN_DOUBT,
    Again,
    Course,
    Doubt,
    InPieces,
    Quarantine,
    Searching,
    WithoutKillers,
    decide,
)
from deblend_batch.engine.driver.roster import Actor, Roster
from deblend_batch.engine.driver.workqueue import Work, WorkQueue
from deblend_batch.engine.inputs.work import RunContext, TileSpec, load_blends
from deblend_batch.engine.needs.pool import ActorPool
from deblend_batch.engine.worker.exchange import TileOutcome
from deblend_batch.engine.worker.poison import Poison, quarantine_record
from deblend_batch.errors import RunStoppedError
from deblend_batch.failure import Failure, Fault

_TICK_SECONDS = 0.5


class Driver:
    """Runs tiles on workers until none is left.

    Parameters
    ----------
    context : RunContext
        The run.
    crew : Crew
        Makes the workers.
    pool : ActorPool
        How many there are to be.
    engine : EngineConfig
        Limits.
    events : Events
        Who is told.
    at_first : int, optional
        Workers to start with; the others are made if these do not keep up for a while. All if None.
    """

    def __init__(
        self,
        context: RunContext,
        crew: Crew,
        pool: ActorPool,
        engine: EngineConfig,
        events: Events,
        at_first: int | None = None,
    ) -> None:
        self._context = context
        self._crew = crew
        self._engine = engine
        self._events = events
        self._at_first = at_first
        self._roster = Roster(crew, pool, engine, events)
        self._depth = Depth(engine.tiles_in_flight)
        self._in_flight: dict[Call, tuple[Actor, Work]] = {}
        self._course = Course(engine.max_failures)
        self._doubted: list[tuple[Work, Quarantine, Exception]] = []
        self._emptied: Actor | None = None
        self._started = False

    def start(self) -> None:
        """Make the workers, which takes seconds: what else is to be done can be done meanwhile."""
        self._started = True
        self._roster.start(self._at_first)

    @property
    def tiles_in_flight(self) -> int:
        """Tiles that workers hold."""
        return len(self._in_flight)

    @property
    def actors_ready(self) -> int:
        """Workers that take tiles, or finish those that they have."""
        return self._roster.n_ready

    @property
    def actors_starting(self) -> int:
        """Workers that have no node yet, or still load their model."""
        return len(self._roster.booting)

    def run(self, tiles: Iterator[TileSpec], most_in_flight: int, *, proven: bool = False) -> None:
        """Run every tile of a lazy stream, and end the workers; :meth:`start` may have made them.

        Parameters
        ----------
        tiles : iterator of TileSpec
            The work; drawn only as workers have room.
        most_in_flight : int
            Tiles that a worker may come to hold while its model waits for pixels.
        proven : bool
            Whether an earlier start has finished tiles: a tile that fails is then a fault of its own.
        """
        self._queue = WorkQueue(tiles)
        self._depth.allow(most_in_flight)
        self._course = replace(self._course, proven=proven)
        try:
            if not self._started:
                self.start()
            while self._in_flight or self._queue.left():
                self._dispatch()
                self._roster.look_at_nodes(tiles_wait=self._queue.peek() is not None)
                for answer in self._crew.wait(_TICK_SECONDS):
                    self._take(answer)
                self._events.tick()
                self._roster.say_waiting()
            if self._doubted:
                raise self._doubted[0][2]
        finally:
            self.close()

    def close(self) -> None:
        """Kill the workers; what they held is done again by a later run."""
        self._crew.close()
        self._in_flight.clear()

    def _dispatch(self) -> None:
        self._dispatch_suspect()
        while (work := self._queue.peek()) is not None:
            limit = self._depth.tiles
            free = [
                actor
                for actor in self._roster.live
                if actor is not self._emptied and actor.room(limit) > 0
            ]
            if not free:
                return
            self._start(min(free, key=lambda actor: len(actor.held)), work)

    def _dispatch_suspect(self) -> None:
        """Give a suspect a worker to itself: one is given nothing else until it has nothing left."""
        work = self._queue.peek_suspect()
        live = self._roster.live
        if work is None or not live:
            self._emptied = None
            return
        if self._emptied not in live:
            self._emptied = min(live, key=lambda actor: len(actor.held))
        if self._emptied is not None and not self._emptied.held:
            self._start(self._emptied, work)
            self._emptied = None

    def _start(self, actor: Actor, work: Work) -> None:
        self._queue.take(work)
        actor.held.append(work)
        self._in_flight[self._send(actor, work)] = (actor, work)

    def _send(self, actor: Actor, work: Work) -> Call:
        spec, state, submit = work.spec, work.state, self._crew.submit
        if isinstance(state, Searching):
            rows = state.search.next
            assert rows is not None
            return submit(actor.worker, "probe", spec, rows.start, rows.stop)
        known: Sequence[Poison] = state.poison if isinstance(state, WithoutKillers) else ()
        pieces = state.pieces if isinstance(state, InPieces | WithoutKillers) else 1
        return submit(actor.worker, "process", spec, known, state.tries.attempts + 1, pieces)

    def _take(self, answer: Answer) -> None:
        if answer.call in self._roster.booting:
            self._roster.take_in(answer)
        elif answer.call in self._in_flight:
            actor, work = self._in_flight.pop(answer.call)
            actor.held.remove(work)
            if answer.fault is not None:
                self._failed(actor, work, answer.fault)
            elif isinstance(work.state, Searching):
                self._recover(work, None)
            else:
                self._learn(actor, answer.value.receipt)
                self._done(work, answer.value)

    def _learn(self, actor: Actor, receipt: Receipt | None) -> None:
        """Take note of what a worker's model did while the worker was given all that it may hold."""
        if receipt is None or self._queue.peek() is None:
            return
        busy = receipt.worker["busy_seconds"] - actor.busy_seconds
        up = receipt.worker["up_seconds"] - actor.up_seconds
        actor.busy_seconds += busy
        actor.up_seconds += up
        self._depth.learn(busy, up - busy, len(self._roster.live))

    def _done(self, work: Work, outcome: TileOutcome) -> None:
        receipt, record = outcome.receipt, outcome.record
        if receipt is not None:
            self._events.done(receipt)
        if record is not None:
            (self._events.left_out if receipt else self._events.quarantined)(record)
        if record is not None and 2 * outcome.failures >= work.spec.n_blends:
            self._count_failure(record)
        elif receipt is not None:
            self._course = self._course.worked()
            doubted, self._doubted = self._doubted, []
            for other, quarantine, _ in doubted:
                self._give_up(other, quarantine)

    def _failed(self, actor: Actor, work: Work, fault: Fault) -> None:
        if fault.failure in WORKER_IN_DOUBT:
            self._roster.replace(actor, fault.failure)
        if fault.failure is Failure.MEMORY:
            self._depth.lower()
        self._recover(work, fault)

    def _recover(self, work: Work, fault: Fault | None) -> None:
        """Carry out what is decided about a tile that failed, or of which a few pairs were tried."""
        n_blends, proven = work.spec.n_blends, self._course.proven
        decision = decide(work.state, n_blends, fault, self._engine.attempts, proven=proven)
        if isinstance(decision, Again):
            self._queue.put_back(work, decision.state, decision.delay_seconds)
            if fault is not None and decision.times:
                name, times = work.spec.name, decision.times
                self._events.retried(name, times, fault.failure, decision.reason)
        elif isinstance(decision, Quarantine):
            self._give_up(work, decision)
        elif fault is not None:
            if not isinstance(decision, Doubt):
                raise fault.exception
            self._course = self._course.doubted()
            self._doubted.append((work, decision.quarantine, fault.exception))
            if self._course.a_bug:
                raise self._doubted[0][2]

    def _give_up(self, work: Work, quarantine: Quarantine) -> None:
        pairs = load_blends(work.spec, self._context)
        poison, attempts = quarantine.poison, quarantine.attempts
        record = quarantine_record(work.spec.name, pairs, poison, attempts)
        self._events.quarantined(record)
        self._count_failure(record)

    def _count_failure(self, record: QuarantineRecord) -> None:
        """Stop where most of tile after tile fails, instead of putting a survey in quarantine."""
        self._course = self._course.failed()
        if self._course.hopeless:
            raise RunStoppedError(
                f"{self._course.in_a_row} tiles in a row failed, last {record.tile}: "
                f"{record.reason}; mend the cause, then: deblend-batch retry {self._context.output}"
            )
