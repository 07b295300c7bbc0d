"""How many model actors a run makes, and what each asks of the cluster (pure)."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Literal

from deblend_batch.config import EngineConfig
from deblend_batch.errors import ConfigError

_CPUS_PER_GPU_TO_SPLIT = 3.0
_SHARE_OF_STORE = 0.5  # beyond it Ray begins to spill to disk


@dataclass(frozen=True)
class ActorPool:
    """How many model actors a run makes, and what each asks of the cluster.

    Parameters
    ----------
    n_actors : int
        Number of actors.
    gpus, cpus : float
        Of one actor.
    feed : {"fused", "split"}
        Whether actors cut their own stamps or CPU tasks cut for them.
    store_bytes : float
        Stamps that may be in the object store at a time, where CPU tasks cut them.
    """

    n_actors: int
    gpus: float
    cpus: float
    feed: Literal["fused", "split"]
    store_bytes: float = math.inf


def plan_pool(engine: EngineConfig, resources: Mapping[str, float]) -> ActorPool:
    """Choose the actors of a run: one per GPU, or one per core where there is no GPU.

    The one place that chooses how actors are fed (docs/decisions/002-object-store.md): where three cores or
    more stand beside each GPU, or nodes are still to come, CPU tasks cut stamps for it; otherwise the actor
    cuts its own.

    Parameters
    ----------
    engine : EngineConfig
        The user's wishes.
    resources : mapping
        ``CPU`` and ``GPU`` totals of the cluster.

    Returns
    -------
    ActorPool
        The pool.

    Raises
    ------
    ConfigError
        If more actors are asked for than GPUs or cores can hold, or each is to have one GPU and a part.
    """
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
    feed = engine.feed
    # Ray tells of no node before it is there: what a growing cluster's nodes will have is not known.
    unknown = feed == "auto" and on_gpu and engine.autoscale and limit < (engine.actors or 0)
    if feed == "auto":
        many = cpus >= _CPUS_PER_GPU_TO_SPLIT * max(limit, 1)
        feed = "split" if on_gpu and (unknown or many) else "fused"
    if not on_gpu and feed == "split":
        limit = max(1, int(cpus) // 2)
    n_actors = engine.actors or limit
    if n_actors > limit and not engine.autoscale:
        what = (
            f"{gpus:g} GPUs of which each takes {engine.gpus_per_actor:g}"
            if on_gpu
            else f"{cpus:g} CPUs"
        )
        raise ConfigError(
            f"engine.actors: {n_actors} actors do not fit on a cluster with {what}; give at most {limit}"
        )
    # Where cores are few an actor asks for none of its own, so that a task always finds one.
    enough = cpus >= (2 * n_actors if feed == "split" else n_actors)
    own_core = not unknown and (engine.autoscale or enough)
    store = _SHARE_OF_STORE * resources.get("object_store_memory", math.inf)
    gpus_each = engine.gpus_per_actor if on_gpu else 0.0
    return ActorPool(n_actors, gpus_each, float(own_core), feed, store)


def grown_pool(pool: ActorPool, engine: EngineConfig, resources: Mapping[str, float]) -> ActorPool:
    """Return the pool with as many more actors as the nodes that have joined can hold.

    Parameters
    ----------
    pool : ActorPool
        The pool of now.
    engine : EngineConfig
        The user's wishes; a number of actors is kept.
    resources : mapping
        ``CPU`` and ``GPU`` totals of the cluster.

    Returns
    -------
    ActorPool
        The same kind of actors. Where nodes have left, the number stays: the missing actors wait for others.
    """
    store = _SHARE_OF_STORE * resources.get("object_store_memory", math.inf)
    if engine.actors is not None:
        return replace(pool, store_bytes=store)
    if pool.gpus:
        room = int(resources.get("GPU", 0.0) / pool.gpus)
    else:
        room = int(resources.get("CPU", 1.0)) // (2 if pool.feed == "split" else 1)
    return replace(pool, n_actors=max(pool.n_actors, room), store_bytes=store)
