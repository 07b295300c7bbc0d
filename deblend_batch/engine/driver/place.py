"""Where a run's workers live: on a Ray cluster, or in a few processes of this machine."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from deblend_batch.cluster.workers import Workers
from deblend_batch.config import EngineConfig
from deblend_batch.engine.driver.crew import Crew
from deblend_batch.engine.inputs.work import RunContext
from deblend_batch.engine.needs.pool import ActorPool
from deblend_batch.engine.needs.projection import NodeSize
from deblend_batch.engine.worker.exchange import ModelLoader
from deblend_batch.errors import ConfigError

RAY_START_SECONDS = 20.0
"""What starting Ray adds to a run on one machine (docs/performance.md)."""
_MOST_OF_A_RUN = 0.03
# What a shipped model measures in a second on one core, and on one GPU: enough to tell minutes from hours.
_STAMPS_PER_CORE_SECOND = 400.0
_STAMPS_PER_GPU_SECOND = 20_000.0

Where = Literal["ray", "local"]
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
    metered : bool
        Whether something takes metrics.
    """

    resources: Mapping[str, float]
    nodes: Sequence[NodeSize]
    workers: Workers
    make_crew: CrewMaker
    metered: bool


def named_place(engine: EngineConfig) -> Where | None:
    """Return where a run is to be, or None where its work decides: see :func:`worth_ray`.

    Parameters
    ----------
    engine : EngineConfig
        The user's wishes. ``auto`` takes a Ray cluster that is named: by ``RAY_ADDRESS``, by the Ray job that
        this is, or because this process has joined it.

    Returns
    -------
    {"ray", "local"} or None
        The place.

    Raises
    ------
    ConfigError
        If a run on this machine alone is to grow.
    """
    if engine.autoscale and engine.where == "local":
        raise ConfigError(
            "engine.autoscale: it is Ray's autoscaler that brings nodes; give engine.where: ray"
        )
    if engine.where != "auto":
        return engine.where
    named = any(os.environ.get(name) for name in ("RAY_ADDRESS", "RAY_JOB_CONFIG_JSON_ENV_VAR"))
    return "ray" if named or engine.autoscale or _has_joined() else None


def _has_joined() -> bool:
    ray = sys.modules.get("ray")
    return ray is not None and bool(ray.is_initialized())


def worth_ray(n_stamps: int, pool: ActorPool) -> bool:
    """Tell whether a run on one machine is long enough that Ray's start does not matter.

    Ray then watches over the machine's memory, and its dashboard and metrics show the run.

    Parameters
    ----------
    n_stamps : int
        Stamps of single bands that are left.
    pool : ActorPool
        The workers.

    Returns
    -------
    bool
        Whether the start is a small share of it.
    """
    rate = _STAMPS_PER_GPU_SECOND * pool.gpus if pool.gpus else _STAMPS_PER_CORE_SECOND
    return _MOST_OF_A_RUN * n_stamps / (rate * pool.n_actors) > RAY_START_SECONDS
