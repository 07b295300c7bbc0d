from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from deblend_batch.evaluation.methods.matching import match_limit_px, match_members

MEMBERS = np.array([[10.0, 10.0], [10.0, 16.0]])


@pytest.mark.parametrize(
    ("objects", "expected"),
    [
        ([[10, 10], [10, 16]], [0, 1]),
        ([[10, 16], [10, 10]], [1, 0]),
        ([[10, 10.5]], [0, -1]),
        ([[10, 15]], [-1, 0]),
        ([[30, 30]], [-1, -1]),
        ([], [-1, -1]),
        # One object lies between: each member gets its own, though the first would like the second's.
        ([[10, 13.5], [10, 11]], [1, 0]),
    ],
)
def test_matches(objects: list[list[float]], expected: list[int]) -> None:
    found = match_members(np.array(objects, float).reshape(-1, 2), MEMBERS, np.array([4.0, 4.0]))
    assert found.tolist() == expected


def test_the_limit_is_half_a_radius_and_three_pixels() -> None:
    np.testing.assert_allclose(match_limit_px(np.array([0.0, 4.0, 20.0])), [3.0, 5.0, 13.0])


@given(
    st.integers(0, 8).flatmap(lambda m: arrays(float, (m, 2), elements=st.floats(0, 30))),
    st.floats(0.5, 20),
)
def test_no_object_is_used_twice_nor_beyond_the_limit(objects: np.ndarray, limit: float) -> None:
    found = match_members(objects, MEMBERS, np.full(2, limit))
    used = found[found >= 0]
    assert len(set(used.tolist())) == len(used)
    for member, row in enumerate(found):
        if row >= 0:
            assert np.linalg.norm(objects[row] - MEMBERS[member]) <= limit
