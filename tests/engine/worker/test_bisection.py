"""Narrowing down: whatever spoils a range is found, and nothing else is blamed."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from deblend_batch.engine.worker.bisection import Search
from deblend_batch.engine.worker.poison import Poison
from deblend_batch.failure import Fault


def fault(text: str = "all") -> Fault:
    return Fault.of(ValueError(text))


def narrow(n: int, bad: set[int], limit: int | None = None) -> tuple[list[range], list[Poison]]:
    """Play the caller: a range fails if it holds a bad row. Return the ranges that worked, and the blamed."""
    worked: list[range] = []
    search = Search.begin(range(n), fault(), limit)
    while (rows := search.next) is not None:
        found = bad & set(rows)
        search = search.tried(fault(f"rows {sorted(found)}") if found else None)
        if not found:
            worked.append(rows)
    return worked, list(search.blamed)


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
    search, tries = Search.begin(range(4096), fault(), limit=128), 0
    while search.next is not None:
        search, tries = search.tried(fault()), tries + 1
    assert tries <= 34
    assert len(search.blamed) == 4096


@pytest.mark.parametrize("failures", [0, 1, 2])
def test_a_range_of_one_row_is_tried_too(failures: int) -> None:
    search = Search.begin(range(7, 8), fault(), confirm=True)
    outcomes = [fault("again")] * failures + [None]
    while search.next is not None:
        assert search.next == range(7, 8)
        search = search.tried(outcomes.pop(0))
    assert [each.row for each in search.blamed] == ([7] if failures == 2 else [])


def test_a_single_row_that_fails_once_is_not_blamed() -> None:
    search, tried = Search.begin(range(2), fault(), confirm=True), []
    for outcome in (fault("chance"), None, fault("bad"), fault("bad again")):
        tried.append(search.next)
        search = search.tried(outcome)
    assert tried == [range(1), range(1), range(1, 2), range(1, 2)]
    assert search.next is None
    assert [(each.row, each.reason) for each in search.blamed] == [(1, "bad again")]


def test_a_search_is_a_value() -> None:
    search = Search.begin(range(8), fault())
    assert search.tried(None) == search.tried(None)
    assert search.next == range(4)  # what has been learnt since is not in it


def test_one_bad_row_of_many_takes_two_tries_a_level() -> None:
    worked, _ = narrow(4096, {1234})
    assert len(worked) == 12


def test_a_failure_that_no_half_repeats_blames_nobody() -> None:
    search, tried = Search.begin(range(10), fault("once")), []
    for _ in range(2):
        tried.append(search.next)
        search = search.tried(None)
    assert tried == [range(5), range(5, 10)]
    assert (search.next, search.blamed) == (None, ())
