"""Tiles cover a field exactly once."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from deblend_batch.tiling.tile import Box, TileGrid

shapes = st.tuples(st.integers(1, 300), st.integers(1, 300))


@given(shapes, st.integers(64, 200))
def test_cores_cover_every_pixel_once(shape: tuple[int, int], size: int) -> None:
    grid = TileGrid(shape, size)
    seen = np.zeros(shape, int)
    for number in range(len(grid)):
        box = grid.core(number)
        seen[box.y0 : box.y1, box.x0 : box.x1] += 1
    assert (seen == 1).all()


@given(shapes, st.integers(64, 200), st.floats(-50, 350), st.floats(-50, 350))
def test_the_owner_of_a_position_holds_its_pixel(
    shape: tuple[int, int], size: int, y: float, x: float
) -> None:
    grid = TileGrid(shape, size)
    (owner,) = grid.owner(np.array([[y, x]]))
    box = grid.core(int(owner))
    row = min(max(np.floor(y + 0.5), 0), shape[0] - 1)
    column = min(max(np.floor(x + 0.5), 0), shape[1] - 1)
    assert box.y0 <= row < box.y1
    assert box.x0 <= column < box.x1


def test_names_are_unique_and_say_where() -> None:
    grid = TileGrid((500, 700), 100)
    names = [grid.name(number) for number in range(len(grid))]
    assert len(set(names)) == len(grid) == 35
    assert names[8] == "y0001x0001"


@pytest.mark.parametrize(
    ("box", "margin", "expected"),
    [
        (Box(10, 10, 20, 20), 5, Box(5, 5, 25, 25)),
        (Box(0, 0, 10, 10), 5, Box(0, 0, 15, 15)),
        (Box(90, 90, 100, 100), 50, Box(40, 40, 100, 100)),
        (Box(200, 200, 210, 210), 1, Box(100, 100, 100, 100)),
    ],
    ids=["inside", "low edge", "high edge", "outside"],
)
def test_grown_and_clipped(box: Box, margin: int, expected: Box) -> None:
    assert box.grown(margin).clipped((100, 100)) == expected
