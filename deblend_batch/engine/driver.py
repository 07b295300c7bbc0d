"""The driver's loop: hands tiles to model actors, and owns every retry.

Ray itself retries nothing here: tasks sent to an actor that Ray restarts can hang until it is placed, and an
error may be raised for work that was done (docs/decisions/004-exactly-once.md). A tile is instead given to
another actor; its shard has one name and one content, so doing it twice is harmless.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import ray

from deblend_batch.catalog.ledger import QuarantineRecord, Receipt
from deblend_batch.config import EngineConfig
from deblend_batch.engine.actor import ModelActor, ModelLoader, WorkerInfo, cut_tile, load_run_model
from deblend_batch.engine.cluster import ActorPool
from deblend_batch.engine.failure import Failure, classify, one_line, root_cause, unwrap
from deblend_batch.engine.work import RunContext, TileSpec, load_pairs
from deblend_batch.errors import RunStoppedError

_BACKOFF_SECONDS = 0.5
_SUSPECT_AFTER = 2
_TICK_SECONDS = 0.5


@dataclass(frozen=True)
class Events:
    """What the loop tells, each to a function of its own.

    Parameters
    ----------
    done : callable
        A tile's receipt.
    quarantined : callable
        A quarantine record, to be written.
    retried : callable
        A tile's name, the failure's class and one line, when a tile is tried again.
    joined : callable
        A worker that became ready.
    tick : callable
        Called about twice a second.
    """

    done: Callable[[Receipt], None]
    quarantined: Callable[[QuarantineRecord], None]
    retried: Callable[[str, Failure, str], None]
    joined: Callable[[WorkerInfo], None]
    tick: Callable[[], None]


@dataclass
class _Work:
    """A tile on its way, and how often it has been tried."""

    spec: TileSpec
    attempts: int = 0
    not_before: float = 0.0

    @property
    def suspect(self) -> bool:
        """Whether it may be what kills its workers: it is then given an actor to itself."""
        return self.attempts >= _SUSPECT_AFTER


@dataclass
class _Actor:
    handle: Any
    held: list[_Work] = field(default_factory=list)

    def room(self, limit: int) -> int:
        if any(work.suspect for work in self.held):
            return 0
        return limit - len(self.held)


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
        self._pool = pool
        self._engine = engine
        self._events = events
        self._loader = loader
        self._live: list[_Actor] = []
        self._booting: dict[Any, _Actor] = {}
        self._in_flight: dict[Any, tuple[_Actor, _Work]] = {}
        self._again: deque[_Work] = deque()
        self._boot_failures = 0
        self._failures_in_a_row = 0

    def run(self, tiles: Iterator[TileSpec]) -> None:
        """Run every tile of a lazy stream.

        Parameters
        ----------
        tiles : iterator of TileSpec
            The work; drawn only as actors have room.

        Raises
        ------
        RunStoppedError
            If too many tiles fail in a row, or actors die before they are ready.
        UserError
            If something fails that the user must mend.
        """
        source = _Source(tiles, self._again)
        if source.peek() is None:
            return
        for _ in range(self._pool.n_actors):
            self._spawn()
        try:
            while self._in_flight or source.left():
                self._dispatch(source)
                self._collect()
                self._events.tick()
        finally:
            self.close()

    def close(self) -> None:
        """Kill the actors; what they held is done again by a later run."""
        for actor in [*self._live, *self._booting.values()]:
            ray.kill(actor.handle)
        self._live.clear()
        self._booting.clear()
        self._in_flight.clear()

    def _spawn(self) -> None:
        remote = ray.remote(ModelActor).options(
            num_cpus=self._pool.cpus,
            num_gpus=self._pool.gpus,
            max_restarts=0,
            max_task_retries=0,
            max_concurrency=self._engine.tiles_in_flight + 1,
        )
        actor = _Actor(remote.remote(self._context, 1, self._loader))
        self._booting[actor.handle.ready.remote()] = actor

    def _dispatch(self, source: _Source) -> None:
        limit = self._engine.tiles_in_flight
        while self._live and (work := source.peek()) is not None:
            idlest = min(self._live, key=lambda actor: len(actor.held))
            if idlest.room(limit) <= 0 or (work.suspect and idlest.held):
                return
            source.take(work)
            idlest.held.append(work)
            self._in_flight[self._send(idlest, work.spec)] = (idlest, work)

    def _send(self, actor: _Actor, spec: TileSpec) -> Any:
        if self._pool.feed == "fused":
            return actor.handle.process.remote(spec)
        task = ray.remote(cut_tile).options(num_cpus=1, max_retries=0, num_returns=spec.n_parts)
        parts = task.remote(spec, self._context)
        return actor.handle.process.remote(spec, *(parts if spec.n_parts > 1 else [parts]))

    def _collect(self) -> None:
        waiting = [*self._booting, *self._in_flight]
        if not waiting:
            time.sleep(_TICK_SECONDS)  # every tile left waits for its back-off
            return
        done, _ = ray.wait(waiting, num_returns=1, timeout=_TICK_SECONDS, fetch_local=False)
        for ref in done:
            if ref in self._booting:
                self._boot(ref)
            else:
                self._finish(ref)

    def _boot(self, ref: Any) -> None:
        actor = self._booting.pop(ref)
        try:
            info = ray.get(ref)
        except Exception as error:
            self._boot_failures += 1
            if self._boot_failures >= self._engine.attempts * self._pool.n_actors:
                raise RunStoppedError(
                    f"model actors die before they are ready ({one_line(error)}); "
                    "run again with --debug, or see Ray's logs"
                ) from error
            self._spawn()
            return
        self._live.append(actor)
        self._events.joined(info)

    def _finish(self, ref: Any) -> None:
        actor, work = self._in_flight.pop(ref)
        actor.held.remove(work)
        try:
            receipt: Receipt = ray.get(ref)
        except Exception as error:  # noqa: BLE001  # classed at once
            self._failed(actor, work, error)
        else:
            self._failures_in_a_row = 0
            self._events.done(receipt)

    def _failed(self, actor: _Actor, work: _Work, error: Exception) -> None:
        failure = classify(error)
        if failure in {Failure.USER, Failure.BUG}:
            raise unwrap(error)
        if failure in {Failure.WORKER, Failure.DEVICE}:
            self._replace(actor, failure)
        work.attempts += 1
        if failure is Failure.DATA or work.attempts >= self._engine.attempts:
            self._quarantine(work, error)
            return
        work.not_before = time.monotonic() + _BACKOFF_SECONDS * 2 ** (work.attempts - 1)
        self._again.append(work)
        self._events.retried(work.spec.name, failure, one_line(error))

    def _replace(self, actor: _Actor, failure: Failure) -> None:
        """Put a new actor in the place of a dead or doubtful one, once, however many tiles it held."""
        if actor not in self._live:
            return
        if failure is Failure.WORKER and _alive(actor):
            return  # a CPU task died, not the actor
        self._live.remove(actor)
        ray.kill(actor.handle)
        self._spawn()

    def _quarantine(self, work: _Work, error: Exception) -> None:
        pairs = load_pairs(work.spec, self._context)
        members = zip(pairs.blend_id.tolist(), pairs.source_id.tolist(), strict=True)
        record = QuarantineRecord(
            tile=work.spec.name,
            reason=one_line(error),
            error=type(root_cause(error)).__name__,
            attempts=work.attempts,
            pairs=[(blend, central, companion) for blend, (central, companion) in members],
        )
        self._events.quarantined(record)
        self._failures_in_a_row += 1
        if self._failures_in_a_row >= self._engine.max_failures:
            raise RunStoppedError(
                f"{self._failures_in_a_row} tiles in a row failed, last {work.spec.name}: "
                f"{one_line(error)}; mend the cause, then: deblend-batch retry {self._context.output}"
            )


def _alive(actor: _Actor) -> bool:
    try:
        ray.get(actor.handle.ready.remote(), timeout=5)
    except Exception:  # noqa: BLE001  # whatever it is, the actor does not answer
        return False
    return True


class _Source:
    """The stream of tiles with those to be tried again put in front, once their back-off is over."""

    def __init__(self, tiles: Iterator[TileSpec], again: deque[_Work]) -> None:
        self._tiles = tiles
        self._again = again
        self._next: _Work | None = None
        self._dry = False

    def peek(self) -> _Work | None:
        """Return the next tile that may start now."""
        if self._ready_again():
            return self._again[0]
        if self._next is None and not self._dry:
            spec = next(self._tiles, None)
            self._next = None if spec is None else _Work(spec)
            self._dry = spec is None
        return self._next

    def take(self, work: _Work) -> None:
        """Drop what :meth:`peek` returned."""
        if self._next is work:
            self._next = None
        else:
            self._again.remove(work)

    def left(self) -> bool:
        """Tell whether any tile has not started."""
        return bool(self._again) or self.peek() is not None

    def _ready_again(self) -> bool:
        return bool(self._again) and self._again[0].not_before <= time.monotonic()
