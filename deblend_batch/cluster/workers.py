"""Workers for many tasks: this process alone, or tasks on a Ray cluster; no result depends on which."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from itertools import chain, islice
from typing import Any, TypeVar

from deblend_batch.config import absolute_url
from deblend_batch.errors import ConfigError

T = TypeVar("T")
R = TypeVar("R")

_AHEAD = 2


class Workers:
    """Run a function over tasks and give the results in order.

    Parameters
    ----------
    at_once : int
        Ray tasks that run at a time; with 1 all is done in this process, and Ray is not needed.
    cpus : float
        Cores that each task asks for.
    """

    def __init__(self, at_once: int = 1, cpus: float = 1.0) -> None:
        self.at_once = at_once
        self._cpus = cpus

    def map(self, function: Callable[..., R], tasks: Iterable[T], *shared: Any) -> Iterator[R]:
        """Yield ``function(task, *shared)`` for each task; a single one is done in this process."""
        tasks = iter(tasks)
        if self.at_once > 1:
            first = list(islice(tasks, 2))
            tasks = chain(first, tasks)
            if len(first) > 1:
                yield from _map_on_ray(function, tasks, shared, self.at_once, self._cpus)
                return
        for task in tasks:
            yield function(task, *shared)


ALONE = Workers()
"""This process."""


@contextmanager
def open_workers(processes: int | None = None) -> Iterator[Workers]:
    """Join the cluster that ``RAY_ADDRESS`` names, or raise one on this machine, unless one process is to do.

    A cluster that this process has joined already is used.

    Parameters
    ----------
    processes : int, optional
        Tasks at a time; one per CPU of the cluster if None.
    """
    if processes == 1:
        yield ALONE
        return
    from deblend_batch.cluster.connection import connected

    with connected() as resources:
        yield Workers(processes or max(1, int(resources.get("CPU", 1))))


def shared_url(key: str, url: str) -> str:
    """Return a URL that means the same in every process of a cluster."""
    if url.startswith("memory://"):
        raise ConfigError(
            f"{key}: {url} lives in one process, and several are to use it; give a path or s3://..., "
            "or work in one process"
        )
    return absolute_url(key, url)


def _map_on_ray(
    function: Callable[..., R],
    tasks: Iterable[T],
    shared: tuple[Any, ...],
    at_once: int,
    cpus: float,
) -> Iterator[R]:
    import ray

    from deblend_batch.cluster.failure import ask

    remote = ray.remote(function).options(num_cpus=cpus)
    stored = [ray.put(one) for one in shared]
    running: list[Any] = []
    ordered: deque[Any] = deque()
    try:
        for task in tasks:
            if len(running) >= at_once:
                running = ray.wait(running, num_returns=1, fetch_local=False)[1]
            running.append(remote.remote(task, *stored))
            ordered.append(running[-1])
            if len(ordered) >= _AHEAD * at_once:
                yield ask(ordered.popleft())
        while ordered:
            yield ask(ordered.popleft())
    finally:
        for left in ordered:
            ray.cancel(left)
