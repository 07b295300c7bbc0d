"""The model actors of a run: made, made again, given up with their nodes."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import Any

import ray

from deblend_batch.cluster.connection import draining_nodes
from deblend_batch.cluster.failure import Failure, is_preempted, one_line
from deblend_batch.config import EngineConfig
from deblend_batch.engine.driver.depth import GROWTH
from deblend_batch.engine.driver.events import Events
from deblend_batch.engine.driver.workqueue import Work
from deblend_batch.engine.inputs.work import RunContext
from deblend_batch.engine.needs.pool import ActorPool, grown_pool
from deblend_batch.engine.worker.actor import ModelActor, ModelLoader
from deblend_batch.errors import RunStoppedError

_LOOK_SECONDS = 5.0
_WAITING_SECONDS = 30.0


@dataclass(eq=False)
class Actor:
    """A model actor as the driver sees it.

    Parameters
    ----------
    handle : ray.actor.ActorHandle
        Of a :class:`~deblend_batch.engine.worker.actor.ModelActor`.
    node : str
        Ray node id; empty until it is ready.
    held : list of Work
        Tiles that it was given.
    busy_seconds, up_seconds : float
        How long its model had computed, and how long there was something to do, at its last receipt.
    """

    handle: Any
    node: str = ""
    held: list[Work] = field(default_factory=list)
    busy_seconds: float = 0.0
    up_seconds: float = 0.0

    def room(self, limit: int) -> int:
        """Return how many more tiles it may be given; none beside a suspect."""
        if any(work.suspect for work in self.held):
            return 0
        return limit - len(self.held)


class Crew:
    """The model actors of a run.

    Parameters
    ----------
    context : RunContext
        The run.
    pool : ActorPool
        How many there are to be, and what each asks of the cluster.
    engine : EngineConfig
        Limits.
    events : Events
        Who is told.
    loader : callable
        Makes the model in each.

    Attributes
    ----------
    pool : ActorPool
        As given, or grown with the cluster.
    live : list of Actor
        Those that take tiles.
    leaving : list of Actor
        Those that finish what they have: their nodes will be taken away.
    booting : dict
        Those that have no node yet or load their model, by what tells that they are ready.
    """

    def __init__(
        self,
        context: RunContext,
        pool: ActorPool,
        engine: EngineConfig,
        events: Events,
        loader: ModelLoader,
    ) -> None:
        self.pool = pool
        self.live: list[Actor] = []
        self.leaving: list[Actor] = []
        self.booting: dict[Any, Actor] = {}
        self._context = context
        self._engine = engine
        self._events = events
        self._loader = loader
        self._boot_failures = 0
        self._looked = self._had_actors = time.monotonic()

    @property
    def n_ready(self) -> int:
        """Actors that take tiles, or finish those that they have."""
        return len(self.live) + len(self.leaving)

    def start(self) -> None:
        """Make the actors, which takes seconds."""
        for _ in range(self.pool.n_actors):
            self._spawn()

    def close(self) -> None:
        """Kill the actors."""
        for actor in [*self.live, *self.leaving, *self.booting.values()]:
            ray.kill(actor.handle)
        self.live.clear()
        self.leaving.clear()
        self.booting.clear()

    def _spawn(self) -> None:
        remote = ray.remote(ModelActor).options(
            num_cpus=self.pool.cpus,
            num_gpus=self.pool.gpus,
            max_restarts=0,
            max_task_retries=0,
            max_concurrency=GROWTH * self._engine.tiles_in_flight + 1,
        )
        actor = Actor(remote.remote(self._context, 1, self.pool.gpus, self._loader))
        self.booting[actor.handle.ready.remote()] = actor

    def look_at_nodes(self) -> None:
        """Use nodes that have joined since, and give nothing more to those that will be taken away."""
        if time.monotonic() - self._looked < _LOOK_SECONDS:
            return
        self._looked = time.monotonic()
        leaving = draining_nodes()
        for actor in [actor for actor in self.live if actor.node in leaving]:
            self.live.remove(actor)
            self.leaving.append(actor)
            self._spawn()
        for actor in [actor for actor in self.leaving if not actor.held]:
            self.leaving.remove(actor)
            ray.kill(actor.handle)
        self.pool = grown_pool(self.pool, self._engine, ray.cluster_resources())
        for _ in range(self.pool.n_actors - len(self.live) - len(self.booting)):
            self._spawn()

    def take_in(self, ref: Any) -> None:
        """Take an actor that is ready, or make another in the place of one that died before.

        Raises
        ------
        RunStoppedError
            If actor after actor dies.
        """
        actor = self.booting.pop(ref)
        try:
            info = ray.get(ref)
        except Exception as error:
            self._boot_failures += not is_preempted(error)
            if self._boot_failures >= self._engine.attempts * self.pool.n_actors:
                raise RunStoppedError(
                    f"model actors die before they are ready ({one_line(error)}); "
                    "run again with --debug, or see Ray's logs"
                ) from error
            self._spawn()
            return
        self._boot_failures = 0
        actor.node = info.node
        self.live.append(actor)
        self._events.joined(info)

    def say_waiting(self) -> None:
        """Tell every half minute that there is no actor yet."""
        if self.n_ready:
            self._had_actors = time.monotonic()
        elif time.monotonic() - self._had_actors > _WAITING_SECONDS:
            self._had_actors = time.monotonic()
            self._events.waiting(len(self.booting))

    def replace(self, actor: Actor, failure: Failure) -> None:
        """Put a new actor in the place of a dead or doubtful one, once, however many tiles it held.

        Parameters
        ----------
        actor : Actor
            The one in doubt.
        failure : Failure
            What was seen.
        """
        if actor not in self.live:
            return
        if failure is not Failure.DEVICE and _alive(actor):
            return  # a call was lost, not the actor
        self.live.remove(actor)
        ray.kill(actor.handle)
        self._spawn()


def _alive(actor: Actor) -> bool:
    try:
        ray.get(actor.handle.ready.remote(), timeout=5)
    except Exception:  # noqa: BLE001  # whatever it is, the actor does not answer
        return False
    return True
