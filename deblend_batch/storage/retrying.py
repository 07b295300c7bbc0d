"""Asking a store again, where its client does not: bounded, exponential, with jitter."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Awaitable, Callable, Iterator
from typing import TypeVar

from deblend_batch.storage.responses import is_unrepeated

T = TypeVar("T")

ATTEMPTS = 5
"""How often something is asked for in all."""
_FIRST_DELAY_SECONDS = 0.2


def delays() -> Iterator[float]:
    """Yield the seconds to wait before each further attempt: at random up to a bound that doubles."""
    for number in range(ATTEMPTS - 1):
        yield random.uniform(0, _FIRST_DELAY_SECONDS * 2**number)  # noqa: S311  # no secret


def repeat(call: Callable[[], T]) -> T:
    """Call a function again while it fails in a way that no client has tried again."""
    for delay in delays():
        try:
            return call()
        except Exception as error:
            if not is_unrepeated(error):
                raise
        time.sleep(delay)
    return call()


async def repeat_async(call: Callable[[], Awaitable[T]]) -> T:
    """Do as :func:`repeat` does, with a coroutine."""
    for delay in delays():
        try:
            return await call()
        except Exception as error:
            if not is_unrepeated(error):
                raise
        await asyncio.sleep(delay)
    return await call()
