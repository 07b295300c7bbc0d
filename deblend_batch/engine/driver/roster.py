"""The workers of a run: made, made again, given up with their nodes."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import Any

from deblend_batch.config import EngineConfig
from deblend_batch.engine.crew.crew import Answer, Call, Crew
from deblend_batch.engine.driver.events import Events
from deblend_batch.engine.driver.workqueue import Work
from deblend_batch.engine.needs.pool import ActorPool, grown_pool
from deblend_batch.errors import RunStoppedError
from deblend_batch.failure import Failure

_LOOK_SECONDS = 5.0
_WAITING_SECONDS = 30.0


@dataclass(eq=False)
class Actor:
    """A worker as the driver sees it.

    Parameters
    ----------
    worker : object
        As its crew knows it.
    node : str
        Node id.
    held : list of Work
        Tiles that it was given.
    busy_seconds, up_seconds : float
        How long its model had computed, and how long there was something to do, at its last receipt.
    """

    worker: Any
    node: str
    held: list[Work] = field(default_factory=list)
    busy_seconds: float = 0.0
    up_seconds: float = 0.0

    def room(self, limit: int) -> int:
        """Return how many more tiles it may be given; none beside a suspect."""
        if any(work.state.suspect for work in self.held):
            return 0
        return limit - len(self.held)


class Roster:
    """The workers of a run, and how many there are to be.

    Parameters
    ----------
    crew : Crew
        Makes them.
    pool : ActorPool
        How many there are to be, and what each asks for.
    engine : EngineConfig
        Limits.
    events : Events
        Who is told.

    Attributes
    ----------
    live : list of Actor
        Those that take tiles.
    leaving : list of Actor
        Those that finish what they have: their nodes will be taken away.
    booting : set of Call
        Of those that have no node yet or load their model: what tells that they are ready.
    """

    def __init__(self, crew: Crew, pool: ActorPool, engine: EngineConfig, events: Events) -> None:
        self.live: list[Actor] = []
        self.leaving: list[Actor] = []
        self.booting: set[Call] = set()
        self._crew = crew
        self._pool = pool
        self._engine = engine
        self._events = events
        self._boot_failures = 0
        self._looked = self._had_actors = time.monotonic()

    @property
    def n_ready(self) -> int:
        """Workers that take tiles, or finish those that they have."""
        return len(self.live) + len(self.leaving)

    def start(self, at_first: int | None) -> None:
        """Make the workers, which takes seconds: all, or as many as are to be tried at first."""
        n_actors = self._pool.n_actors
        for _ in range(n_actors if at_first is None else min(at_first, n_actors)):
            self._spawn()

    def _spawn(self) -> None:
        self.booting.add(self._crew.start())

    def look_at_nodes(self, *, tiles_wait: bool) -> None:
        """Make more workers where tiles wait, and give nothing more to nodes that will be taken away."""
        if time.monotonic() - self._looked < _LOOK_SECONDS:
            return
        self._looked = time.monotonic()
        nodes = self._crew.leaving()
        for actor in [actor for actor in self.live if actor.node in nodes]:
            self.live.remove(actor)
            self.leaving.append(actor)
            self._spawn()
        for actor in [actor for actor in self.leaving if not actor.held]:
            self.leaving.remove(actor)
            self._crew.kill(actor.worker)
        if not (self.live and tiles_wait):
            return
        self._pool = grown_pool(self._pool, self._engine, self._crew.resources())
        for _ in range(self._pool.n_actors - len(self.live) - len(self.booting)):
            self._spawn()

    def take_in(self, answer: Answer) -> None:
        """Take a worker that is ready, or make another in the place of one that died before."""
        self.booting.remove(answer.call)
        fault = answer.fault
        if fault is not None:
            self._boot_failures += not fault.preempted
            if self._boot_failures >= self._engine.attempts * self._pool.n_actors:
                raise RunStoppedError(
                    f"model actors die before they are ready ({fault.reason}); "
                    "run again with --debug, or see their logs (docs/monitoring.md)"
                ) from fault.exception
            self._spawn()
            return
        self._boot_failures = 0
        if not self.live:
            self._looked = time.monotonic()  # whether it is enough shows in a while
        self.live.append(Actor(answer.call.worker, answer.value.node))
        self._events.joined(answer.value)

    def say_waiting(self) -> None:
        """Tell every half minute that there is no worker yet."""
        if self.n_ready:
            self._had_actors = time.monotonic()
        elif time.monotonic() - self._had_actors > _WAITING_SECONDS:
            self._had_actors = time.monotonic()
            self._events.waiting(len(self.booting), self._crew.why_waiting())

    def replace(self, actor: Actor, failure: Failure) -> None:
        """Put a new worker in the place of a dead or doubtful one, once, however many tiles it held."""
        if actor not in self.live:
            return
        if failure is not Failure.DEVICE and self._crew.lives(actor.worker):
            return  # a call was lost, not the worker
        self.live.remove(actor)
        self._crew.kill(actor.worker)
        self._spawn()
