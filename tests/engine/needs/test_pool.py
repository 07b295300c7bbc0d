"""The pool of actors: what fits on a cluster."""

from __future__ import annotations

from dataclasses import dataclass, field

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from deblend_batch.config import EngineConfig
from deblend_batch.engine.needs.pool import ActorPool, grown_pool, plan_pool
from deblend_batch.errors import ConfigError


@dataclass(frozen=True)
class Case:
    """A cluster, the user's wishes, and the pool they call for."""

    id: str
    resources: dict[str, float]
    pool: ActorPool
    engine: dict[str, object] = field(default_factory=dict)


CASES = [
    Case("one core", {"CPU": 1}, ActorPool(1, 0.0, 1.0)),
    Case("laptop", {"CPU": 8}, ActorPool(8, 0.0, 1.0)),
    Case("laptop, fewer", {"CPU": 8}, ActorPool(3, 0.0, 1.0), {"actors": 3}),
    Case("GPU, two cores", {"CPU": 2, "GPU": 1}, ActorPool(1, 1.0, 1.0)),
    Case("GPU, sixteen cores", {"CPU": 16, "GPU": 1}, ActorPool(1, 1.0, 1.0)),
    Case("eight GPUs, 16 cores", {"CPU": 16, "GPU": 8}, ActorPool(8, 1.0, 1.0)),
    Case("eight GPUs, 24 cores", {"CPU": 24, "GPU": 8}, ActorPool(8, 1.0, 1.0)),
    Case("more GPUs than cores", {"CPU": 2, "GPU": 4}, ActorPool(4, 1.0, 0.0)),
    Case(
        "four actors on a GPU",
        {"CPU": 8, "GPU": 1},
        ActorPool(4, 0.25, 1.0),
        {"gpus_per_actor": 0.25},
    ),
    Case(
        "two GPUs an actor",
        {"CPU": 16, "GPU": 4},
        ActorPool(2, 2.0, 1.0),
        {"gpus_per_actor": 2},
    ),
    Case(
        "a head without anything, that grows",
        {},
        ActorPool(2, 1.0, 1.0),
        {"actors": 2, "autoscale": True},
    ),
    Case(
        "one GPU with few cores, that grows",
        {"CPU": 2, "GPU": 1},
        ActorPool(2, 1.0, 1.0),
        {"actors": 2, "autoscale": True},
    ),
    Case(
        "grown already",
        {"CPU": 4, "GPU": 2},
        ActorPool(2, 1.0, 1.0),
        {"actors": 2, "autoscale": True},
    ),
    Case(
        "GPUs left alone",
        {"CPU": 4, "GPU": 2},
        ActorPool(4, 0.0, 1.0),
        {"gpus_per_actor": 0},
    ),
]


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.id)
def test_the_pool_follows_from_the_cluster(case: Case) -> None:
    assert plan_pool(EngineConfig(**case.engine), case.resources) == case.pool


@pytest.mark.parametrize(
    ("engine", "resources", "message"),
    [
        ({"actors": 5}, {"CPU": 4}, r"engine.actors: 5 .* with 4 CPUs; give at most 4"),
        (
            {"actors": 2},
            {"CPU": 4, "GPU": 1},
            r"1 GPUs of which each takes 1; give at most 1",
        ),
        (
            {"actors": 5, "gpus_per_actor": 0.25},
            {"CPU": 9, "GPU": 1},
            r"each takes 0.25; give at most 4",
        ),
        (
            {"gpus_per_actor": 1.5},
            {"CPU": 4, "GPU": 3},
            r"engine.gpus_per_actor: 1.5 .*; give a whole number, or at most 1",
        ),
        (
            {"gpus_per_actor": 2},
            {"CPU": 4, "GPU": 1},
            r"engine.gpus_per_actor: 2, and the cluster has 1; give at most that, or 0",
        ),
    ],
    ids=["cores", "GPUs", "shares of a GPU", "one GPU and a half", "too few GPUs"],
)
def test_what_does_not_fit_is_refused(
    engine: dict[str, object], resources: dict[str, float], message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        plan_pool(EngineConfig(**engine), resources)


@given(
    cpus=st.integers(1, 200),
    gpus=st.integers(0, 16),
    gpus_per_actor=st.sampled_from([0.0, 0.1, 0.25, 0.5, 1.0, 2.0]),
)
def test_actors_fit(cpus: int, gpus: int, gpus_per_actor: float) -> None:
    """A run never waits for ever: every actor is placed."""
    assume(gpus == 0 or gpus >= gpus_per_actor)
    engine = EngineConfig(gpus_per_actor=gpus_per_actor)
    pool = plan_pool(engine, {"CPU": float(cpus), "GPU": float(gpus)})
    assert pool.n_actors >= 1
    assert pool.n_actors * pool.gpus <= gpus + 1e-9
    assert pool.n_actors * pool.cpus <= cpus


@pytest.mark.parametrize(
    ("engine", "resources", "n_actors"),
    [
        ({"actors": 2, "autoscale": True}, {"CPU": 9.0, "GPU": 9.0}, 2),
        ({}, {"CPU": 9.0, "GPU": 3.0}, 3),
        ({}, {}, 1),
        ({"gpus_per_actor": 0}, {"CPU": 9.0, "GPU": 3.0}, 9),
    ],
    ids=["asked for", "GPUs join", "nodes leave", "cores join"],
)
def test_the_pool_grows_with_the_cluster_unless_a_number_was_asked_for(
    engine: dict[str, object], resources: dict[str, float], n_actors: int
) -> None:
    asked = EngineConfig(**engine)
    pool = plan_pool(asked, {"CPU": 1.0, "GPU": 1.0})
    assert grown_pool(pool, asked, resources).n_actors == n_actors
