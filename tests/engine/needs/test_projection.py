"""What a run will need: memory and time as pure functions of what is known before it."""

from __future__ import annotations

from dataclasses import replace

import pytest

from deblend_batch.engine.needs.pool import ActorPool
from deblend_batch.engine.needs.projection import (
    Memory,
    ModelNeeds,
    NodeSize,
    TileNeeds,
    check_fits,
    most_that_fit,
    project_memory,
    project_time,
)
from deblend_batch.errors import ConfigError

TILE = TileNeeds(pixels=2112**2, bands=1, variance=False, mask=False, pairs=1000)
MODEL = ModelNeeds(
    weight_bytes=4_000_000, activation_bytes=90_000_000, stamp_size=64, batch_size=64
)
ON_CPU = ActorPool(2, 0.0, 1.0)
ON_GPU = ActorPool(2, 1.0, 1.0)


def project(
    tile: TileNeeds = TILE, pool: ActorPool = ON_CPU, in_flight: int = 3, *, masks: bool = False
) -> Memory:
    """Project a run of 100 tiles."""
    return project_memory(tile, MODEL, pool, in_flight, 100, masks=masks)


# Peak resident memory of actors, MB, in runs of simulated fields on two cores (docs/performance.md): tile,
# model (parameters, bytes of activations a stamp, stamp), tiles in flight, masks.
_BLEND2FLUX = (1_736_497, 974_856, 128)
_BLEND2MASK2FLUX = (1_101_490, 2_118_664, 80)
_UNET = (1_085_844, 1_290_240, 64)
MEASURED = {
    "200 px": (630, TileNeeds(328**2, 1, False, False, 10), _BLEND2FLUX, 2, False),
    "512 px": (681, TileNeeds(640**2, 1, False, False, 158), _BLEND2FLUX, 2, False),
    "2048 px": (803, TileNeeds(2176**2, 1, False, False, 433), _BLEND2FLUX, 2, False),
    "8 in flight": (809, TileNeeds(1152**2, 1, False, False, 127), _BLEND2FLUX, 8, False),
    "36 tiles": (791, TileNeeds(2176**2, 1, False, False, 98), _BLEND2FLUX, 2, False),
    "3 bands": (1167, TileNeeds(2176**2, 3, True, True, 213), _BLEND2FLUX, 2, False),
    "masks": (711, TileNeeds(2128**2, 1, False, False, 214), _BLEND2MASK2FLUX, 2, True),
    "U-Net": (678, TileNeeds(2112**2, 1, False, False, 274), _UNET, 2, False),
    "4096 px": (939, TileNeeds(4224**2, 1, False, False, 222), _BLEND2FLUX, 2, False),
    "unsharded": (1009, TileNeeds(4224**2, 1, False, False, 222), _BLEND2FLUX, 2, False),
    "5 bands": (3530, TileNeeds(4224**2, 5, True, True, 81), _BLEND2FLUX, 2, False),
}


@pytest.mark.parametrize("name", MEASURED)
def test_what_was_measured_is_within_the_projection_and_a_quarter(name: str) -> None:
    measured, tile, (parameters, activations, stamp), in_flight, masks = MEASURED[name]
    rows = 64 * (activations + 10 * 4 * stamp**2)
    model = ModelNeeds(4 * parameters, rows, stamp, 64)
    found = project_memory(tile, model, ON_CPU, in_flight, 4, masks=masks).actor / 1e6
    assert measured <= found <= 1.25 * measured


@pytest.mark.parametrize(
    "larger",
    [
        project(replace(TILE, pixels=4160**2)),
        project(replace(TILE, bands=3)),
        project(replace(TILE, variance=True)),
        project(replace(TILE, mask=True)),
        project(in_flight=4),
        project(masks=True),
        project(pool=ON_GPU),
    ],
    ids=["tile", "bands", "variance", "mask", "in flight", "masks", "GPU"],
)
def test_what_makes_an_actor_larger(larger: Memory) -> None:
    assert larger.actor > project().actor


def test_the_driver_keeps_a_little_of_each_tile() -> None:
    few, many = (
        project_memory(TILE, MODEL, ON_CPU, 3, n_tiles, masks=False) for n_tiles in (10, 100_010)
    )
    assert many.driver - few.driver == 100_000 * 600


@pytest.mark.parametrize(
    ("pool", "cores", "seconds", "core_hours", "gpu_hours"),
    [
        (ON_CPU, 2, (1000 + 100) / 2, 1100 / 3600, 0),
        (ON_GPU, 2, 1000 / 2, 100 / 3600, 1000 / 3600),
    ],
    ids=["CPU", "GPU"],
)
def test_time(
    pool: ActorPool, cores: float, seconds: float, core_hours: float, gpu_hours: float
) -> None:
    found = project_time(100_000, 100_000, pool, cores, 100.0, 1e-3, 25.0)
    assert found.seconds == pytest.approx(25 + seconds)
    assert found.start_seconds == 25
    assert found.core_hours == pytest.approx(core_hours)
    assert found.gpu_hours == pytest.approx(gpu_hours)


def test_gpus_wait_for_cores_that_are_too_few() -> None:
    found = project_time(100_000, 100_000, ON_GPU, 2, 1e6, 1e-3, 0.0)
    assert found.seconds == pytest.approx(100 / 2)


def test_nothing_left_takes_no_time() -> None:
    assert project_time(0, 0, ON_CPU, 2, 0.0, 0.0, 25.0).seconds == 0


@pytest.mark.parametrize(
    ("pool", "node", "actors"),
    [
        (ON_CPU, NodeSize("n", 8, 0, 0), 2),
        (ON_CPU, NodeSize("n", 1, 0, 0), 1),
        (ON_GPU, NodeSize("n", 8, 1, 0), 1),
        (ON_GPU, NodeSize("n", 8, 0, 0), 0),
        (ActorPool(4, 0.5, 0.0), NodeSize("n", 1, 1, 0), 2),
        (ActorPool(4, 0.0, 0.0), NodeSize("n", 3, 0, 0), 3),
    ],
)
def test_actors_of_a_node(pool: ActorPool, node: NodeSize, actors: int) -> None:
    assert node.actors(pool) == actors


def test_a_run_that_cannot_fit_is_refused_with_the_numbers() -> None:
    memory = Memory(actor=900_000_000, driver=0)
    check_fits(memory, ON_CPU, [NodeSize("a", 2, 0, 1_800_000_000), NodeSize("b", 0, 0, 0)])
    with pytest.raises(
        ConfigError,
        match=r"2 actors need 1.80 GB on node b, which has 1.79 GB \(0.90 GB an actor\); give a smaller "
        r"tiles.size, engine.tiles_in_flight or engine.batch_size, or fewer engine.actors",
    ):
        check_fits(memory, ON_CPU, [NodeSize("node b", 2, 0, 1_790_000_000)])


@pytest.mark.parametrize(("room", "tiles"), [(0.5, 3), (1.0, 4), (4.5, 7), (100.0, 12)])
def test_actors_hold_as_many_tiles_as_the_smallest_node_has_memory_for(
    room: float, tiles: int
) -> None:
    """``room`` is for that many tiles beyond those of the projection; fewer than three are never held."""
    each = project(in_flight=4).actor - project(in_flight=3).actor
    memory = int(2 * (project().actor + room * each))
    nodes = [NodeSize("large", 2, 0, 10**12), NodeSize("small", 2, 0, memory)]
    found = most_that_fit(lambda n: project(in_flight=n), ON_CPU, nodes, 3, 12)
    assert found == tiles
    if found > 3:
        check_fits(project(in_flight=found), ON_CPU, nodes)
