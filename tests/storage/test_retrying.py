"""What no client tries again is tried again, a few times, later and later."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest

from deblend_batch.storage import retrying
from deblend_batch.storage.retrying import ATTEMPTS, delays, repeat, repeat_async

aiohttp = pytest.importorskip("aiohttp")


@pytest.fixture(autouse=True)
def _at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retrying, "_FIRST_DELAY_SECONDS", 0.001)


def failing(times: int, error: Exception) -> tuple[Callable[[], int], list[int]]:
    """Return a function that fails at first, and the list of its calls."""
    calls: list[int] = []

    def call() -> int:
        calls.append(len(calls))
        if len(calls) <= times:
            raise error
        return 7

    return call, calls


def repeat_in_a_loop(call: Callable[[], int]) -> int:
    async def asked() -> int:
        return call()

    return asyncio.run(repeat_async(asked))


@pytest.mark.parametrize("again", [repeat, repeat_in_a_loop])
def test_what_broke_off_is_tried_again(again: Callable[[Callable[[], int]], int]) -> None:
    call, calls = failing(ATTEMPTS - 1, aiohttp.ClientPayloadError("half"))
    assert again(call) == 7
    assert len(calls) == ATTEMPTS


@pytest.mark.parametrize("again", [repeat, repeat_in_a_loop])
def test_it_ends(again: Callable[[Callable[[], int]], int]) -> None:
    call, calls = failing(100, aiohttp.ClientPayloadError("half"))
    with pytest.raises(aiohttp.ClientPayloadError, match="half"):
        again(call)
    assert len(calls) == ATTEMPTS


@pytest.mark.parametrize("again", [repeat, repeat_in_a_loop])
def test_other_failures_are_raised_at_once(again: Callable[[Callable[[], int]], int]) -> None:
    call, calls = failing(1, PermissionError("no"))
    with pytest.raises(PermissionError, match="no"):
        again(call)
    assert len(calls) == 1


def test_bounds_double() -> None:
    for _ in range(100):
        found = list(delays())
        assert len(found) == ATTEMPTS - 1
        assert all(0 <= delay <= 0.001 * 2**number for number, delay in enumerate(found))
