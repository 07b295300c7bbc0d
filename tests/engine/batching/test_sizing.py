"""The batch that a GPU's memory holds."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from deblend_batch.engine.batching.sizing import fitting_rows


@given(
    fixed=st.integers(0, 10**9),
    per_row=st.integers(10**4, 10**8),
    free=st.integers(10**9, 10**11),
)
def test_the_batch_takes_at_most_half_of_the_free_memory(
    fixed: int, per_row: int, free: int
) -> None:
    rows = fitting_rows(lambda n: fixed + n * per_row, free)
    assert rows & (rows - 1) == 0
    assert 16 <= rows <= 4096
    if rows > 16:
        assert fixed + rows * per_row <= free / 2
    if 16 < rows < 4096:
        assert fixed + 2 * rows * per_row > free / 2


@pytest.mark.parametrize(("peak", "expected"), [(0, 4096), (10**12, 16)])
def test_memory_that_does_not_depend_on_rows(peak: int, expected: int) -> None:
    assert fitting_rows(lambda _: peak, 10**10) == expected
