"""Which place a run takes: a Ray cluster, or a few processes of this machine (imports next to nothing)."""

from __future__ import annotations

from typing import Literal

from deblend_batch.cluster.naming import is_named
from deblend_batch.config import EngineConfig
from deblend_batch.engine.needs.pool import ActorPool
from deblend_batch.errors import ConfigError

# From the start of a run to its first tile, imports included, on two cores (docs/performance.md).
_LOCAL_START_SECONDS = 6.0
_ON_RAY_START_SECONDS = 10.0
RAY_START_SECONDS = 20.0
"""What starting Ray adds to a run on one machine (docs/performance.md)."""
_MOST_OF_A_RUN = 0.03
# What a shipped model measures in a second on one core, and on one GPU: enough to tell minutes from hours.
_STAMPS_PER_CORE_SECOND = 400.0
_STAMPS_PER_GPU_SECOND = 20_000.0
_FIT_SLOWER = 4.0  # a fit takes about so much longer over a stamp

Where = Literal["ray", "local"]


def named_place(engine: EngineConfig) -> Where | None:
    """Return where a run is to be, or None where its work decides: see :func:`worth_ray`.

    Returns
    -------
    {"ray", "local"} or None
        The place.
    """
    if engine.autoscale and engine.where == "local":
        raise ConfigError(
            "engine.autoscale: it is Ray's autoscaler that brings nodes; give engine.where: ray"
        )
    if engine.where != "auto":
        return engine.where
    return "ray" if engine.autoscale or is_named() else None


def worth_ray(n_stamps: int, pool: ActorPool, *, takes_pairs: bool = True) -> bool:
    """Tell whether a run on one machine is long enough that Ray's start does not matter.

    Ray then watches over the machine's memory, and its dashboard and metrics show the run.
    """
    rate = _STAMPS_PER_GPU_SECOND * pool.gpus if pool.gpus else _STAMPS_PER_CORE_SECOND
    rate /= 1.0 if takes_pairs else _FIT_SLOWER
    return _MOST_OF_A_RUN * n_stamps / (rate * pool.n_actors) > RAY_START_SECONDS


def place_of(
    engine: EngineConfig, n_stamps: int, pool: ActorPool, *, takes_pairs: bool = True
) -> Where:
    """Return where a run of so many stamps of single bands will be: see :func:`named_place`."""
    long = worth_ray(n_stamps, pool, takes_pairs=takes_pairs)
    return named_place(engine) or ("ray" if long else "local")


def start_seconds(where: Where) -> float:
    """Return what passes, about, before a run's first tile.

    Returns
    -------
    float
        Seconds, without the indexing of its detections.
    """
    if where == "local":
        return _LOCAL_START_SECONDS
    return _ON_RAY_START_SECONDS + (0.0 if is_named() else RAY_START_SECONDS)
