"""How many model actors a run makes, and what each asks of the cluster (pure)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from deblend_batch.config import EngineConfig
from deblend_batch.errors import ConfigError


@dataclass(frozen=True)
class ActorPool:
    """How many model actors a run makes, and what each asks of the cluster.

    Parameters
    ----------
    n_actors : int
        Number of actors.
    gpus, cpus : float
        Of one actor.
    """

    n_actors: int
    gpus: float
    cpus: float


def plan_pool(engine: EngineConfig, resources: Mapping[str, float]) -> ActorPool:
    """Choose the actors of a run: one per GPU, or one per core where there is no GPU."""
    if engine.gpus_per_actor > 1 and engine.gpus_per_actor % 1:
        raise ConfigError(
            f"engine.gpus_per_actor: {engine.gpus_per_actor:g} is one GPU and a part of another; "
            "give a whole number, or at most 1"
        )
    if engine.autoscale and engine.actors is None:
        raise ConfigError(
            "engine.autoscale: say how many actors the cluster may grow to hold (engine.actors)"
        )
    cpus, gpus = max(resources.get("CPU", 1.0), 1.0), resources.get("GPU", 0.0)
    if 0 < gpus < engine.gpus_per_actor and not engine.autoscale:
        raise ConfigError(
            f"engine.gpus_per_actor: {engine.gpus_per_actor:g}, and the cluster has {gpus:g}; "
            "give at most that, or 0 to keep the models on CPUs"
        )
    on_gpu = engine.gpus_per_actor > 0 and (engine.autoscale or engine.gpus_per_actor <= gpus)
    limit = int(gpus / engine.gpus_per_actor) if on_gpu else int(cpus)
    n_actors = engine.actors or limit
    if n_actors > limit and not engine.autoscale:
        what = (
            f"{gpus:g} GPUs of which each takes {engine.gpus_per_actor:g}"
            if on_gpu
            else f"{cpus:g} CPUs"
        )
        raise ConfigError(
            f"engine.actors: {n_actors} actors do not fit on a cluster with {what}; give at most {limit}, "
            "or the address of a larger Ray cluster (RAY_ADDRESS)"
        )
    # Where there are more GPUs than cores an actor asks for no core of its own.
    own_core = engine.autoscale or cpus >= n_actors
    return ActorPool(n_actors, engine.gpus_per_actor if on_gpu else 0.0, float(own_core))


def grown_pool(pool: ActorPool, engine: EngineConfig, resources: Mapping[str, float]) -> ActorPool:
    """Return the pool with as many more actors as the nodes that have joined can hold."""
    if engine.actors is not None:
        return pool
    gpus = resources.get("GPU", 0.0)
    room = int(gpus / pool.gpus if pool.gpus else resources.get("CPU", 1.0))
    return replace(pool, n_actors=max(pool.n_actors, room))
