"""Where a run's workers live, with what makes them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from deblend_batch.cluster.workers import Workers
from deblend_batch.engine.crew.crew import Crew
from deblend_batch.engine.inputs.work import RunContext
from deblend_batch.engine.needs.pool import ActorPool
from deblend_batch.engine.needs.projection import NodeSize
from deblend_batch.engine.worker.exchange import ModelLoader

CrewMaker = Callable[[RunContext, ActorPool, int, ModelLoader], Crew]


@dataclass(frozen=True)
class Place:
    """Where a run's workers live.

    Parameters
    ----------
    resources : mapping
        ``CPU`` and ``GPU`` totals.
    nodes : sequence of NodeSize
        Its machines.
    workers : Workers
        What indexes fields.
    make_crew : callable
        Makes the crew of a run.
    on_ray : bool
        Whether that is a Ray cluster, which takes metrics, too.
    at_first : int, optional
        Workers that are started at once, the others when these do not keep up; None for all.
    """

    resources: Mapping[str, float]
    nodes: Sequence[NodeSize]
    workers: Workers
    make_crew: CrewMaker
    on_ray: bool
    at_first: int | None = None
