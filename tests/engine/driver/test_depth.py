"""Tiles in flight: more of them while models wait, never more than memory allows."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from deblend_batch.engine.driver.depth import Depth


def learn(depth: Depth, tiles: int, idle: float, actors: int = 1) -> None:
    """Finish tiles whose actors' models were idle for a share of the time."""
    for _ in range(tiles):
        depth.learn(1 - idle, idle, actors)


def test_it_doubles_until_models_are_busy() -> None:
    depth = Depth(3)
    depth.allow(12)
    learn(depth, 5, idle=0.5)
    assert depth.tiles == 3  # of too few tiles to say
    learn(depth, 1, idle=0.5)
    assert depth.tiles == 6
    learn(depth, 6, idle=0.5)  # begun while there were three
    learn(depth, 6, idle=0.05)
    assert depth.tiles == 6
    learn(depth, 12, idle=0.5)
    assert depth.tiles == 12
    learn(depth, 48, idle=1.0)
    assert depth.tiles == 12


def test_several_actors_are_heard_together() -> None:
    depth = Depth(2)
    depth.allow(8)
    learn(depth, 15, idle=0.5, actors=4)
    assert depth.tiles == 2
    learn(depth, 1, idle=0.5, actors=4)
    assert depth.tiles == 4


def test_a_store_at_hand_changes_nothing() -> None:
    depth = Depth(3)
    learn(depth, 100, idle=1.0)
    assert depth.tiles == 3


def test_what_memory_took_does_not_come_back() -> None:
    depth = Depth(3)
    depth.allow(12)
    learn(depth, 6, idle=1.0)
    depth.lower()
    assert depth.tiles == 5
    learn(depth, 100, idle=1.0)
    assert depth.tiles == 5


@given(
    first=st.integers(1, 8),
    growth=st.integers(1, 4),
    idle=st.lists(st.floats(0, 1), max_size=200),
    actors=st.integers(0, 4),
)
def test_it_stays_within_its_bounds(
    first: int, growth: int, idle: list[float], actors: int
) -> None:
    depth = Depth(first)
    depth.allow(first * growth)
    for share in idle:
        before = depth.tiles
        depth.learn(1 - share, share, actors)
        assert before <= depth.tiles <= first * growth


@pytest.mark.parametrize("tiles", [1, 2])
def test_one_tile_is_the_least(tiles: int) -> None:
    depth = Depth(tiles)
    depth.lower()
    depth.lower()
    assert depth.tiles == 1
