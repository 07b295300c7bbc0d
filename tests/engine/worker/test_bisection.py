"""Narrowing down: whatever spoils a range is found, and nothing else is blamed."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from deblend_batch.engine.worker.bisection import halve
from deblend_batch.engine.worker.poison import Poison


def narrow(n: int, bad: set[int], limit: int | None = None) -> tuple[list[range], list[Poison]]:
    """Play the caller: a range fails if it holds a bad row. Return the ranges that worked, and the blamed."""
    worked: list[range] = []
    tries = halve(range(n), ValueError("all"), limit)
    outcome: Exception | None = None
    while True:
        try:
            rows = tries.send(outcome)
        except StopIteration as end:
            return worked, end.value
        found = bad & set(rows)
        outcome = ValueError(f"rows {sorted(found)}") if found else None
        if not found:
            worked.append(rows)


sets = st.integers(1, 300).flatmap(
    lambda n: st.tuples(st.just(n), st.sets(st.integers(0, n - 1), min_size=1))
)


@given(sets)
def test_the_bad_rows_are_blamed_and_all_others_work_once(case: tuple[int, set[int]]) -> None:
    n, bad = case
    worked, blamed = narrow(n, bad)
    assert [each.row for each in blamed] == sorted(bad)
    assert sorted(row for rows in worked for row in rows) == sorted(set(range(n)) - bad)
    if n > 1:
        assert all(each.reason == f"rows [{each.row}]" for each in blamed)


@given(sets, st.integers(0, 20))
def test_a_limit_blames_what_is_left_as_a_whole(case: tuple[int, set[int]], limit: int) -> None:
    n, bad = case
    worked, blamed = narrow(n, bad, limit)
    rows = sorted([row for each in worked for row in each] + [each.row for each in blamed])
    assert rows == list(range(n))
    assert bad <= {each.row for each in blamed}


@given(st.sets(st.integers(0, 4095), min_size=1, max_size=8))
def test_few_bad_rows_of_many_stay_within_the_limit(bad: set[int]) -> None:
    _, blamed = narrow(4096, bad, limit=128)
    assert {each.row for each in blamed} == bad


def test_what_a_limit_blames_is_small_where_bad_rows_are_many() -> None:
    """The widest ranges go first: forty bad rows of 4,096 take less than a quarter of them along."""
    bad = set(range(0, 2048, 52))
    _, blamed = narrow(4096, bad, limit=128)
    assert bad <= {each.row for each in blamed}
    assert len(blamed) < 1024


def test_where_nothing_works_a_quarter_of_the_limit_suffices() -> None:
    tries: list[range] = []
    narrowing = halve(range(4096), ValueError("all"), limit=128)
    outcome = None
    with pytest.raises(StopIteration) as end:  # noqa: PT012
        while True:
            tries.append(narrowing.send(outcome))
            outcome = ValueError("all")
    assert len(tries) <= 34
    assert len(end.value.value) == 4096


@pytest.mark.parametrize("failures", [0, 1, 2])
def test_a_range_of_one_row_is_tried_too(failures: int) -> None:
    tries = halve(range(7, 8), ValueError("whole"), confirm=True)
    assert next(tries) == range(7, 8)
    outcomes = iter([ValueError("again")] * failures)
    with pytest.raises(StopIteration) as end:  # noqa: PT012
        for _ in range(3):
            assert tries.send(next(outcomes, None)) == range(7, 8)
    assert [each.row for each in end.value.value] == ([7] if failures == 2 else [])


def test_a_single_row_that_fails_once_is_not_blamed() -> None:
    tries = halve(range(2), ValueError("both"), confirm=True)
    tried = [next(tries), tries.send(ValueError("chance")), tries.send(None)]
    assert tried == [range(1), range(1), range(1, 2)]
    tried = [tries.send(ValueError("bad"))]
    assert tried == [range(1, 2)]
    with pytest.raises(StopIteration) as end:
        tries.send(ValueError("bad again"))
    assert [(each.row, each.reason) for each in end.value.value] == [(1, "bad again")]


def test_one_bad_row_of_many_takes_two_tries_a_level() -> None:
    worked, _ = narrow(4096, {1234})
    assert len(worked) == 12


def test_a_failure_that_no_half_repeats_blames_nobody() -> None:
    tries = halve(range(10), ValueError("once"))
    ranges = [next(tries), tries.send(None)]
    assert ranges == [range(5), range(5, 10)]
    with pytest.raises(StopIteration) as end:
        tries.send(None)
    assert end.value.value == []
