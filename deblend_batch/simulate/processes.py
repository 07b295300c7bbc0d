"""Processes that draw galaxies."""

from __future__ import annotations

import multiprocessing
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing.pool import Pool


@contextmanager
def drawing_processes(n: int) -> Iterator[Pool]:
    """Start processes that leave Ctrl-C to this one, which ends them.

    Parameters
    ----------
    n : int
        Number of processes (spawned, so call from a guarded ``__main__``).

    Yields
    ------
    multiprocessing.pool.Pool
        The processes.
    """
    # What is ignored here is ignored there from the first moment; later, each would end in a traceback.
    in_main = threading.current_thread() is threading.main_thread()
    before = signal.signal(signal.SIGINT, signal.SIG_IGN) if in_main else None
    try:
        pool = multiprocessing.get_context("spawn").Pool(n)
    finally:
        if in_main:
            signal.signal(signal.SIGINT, before)
    with pool:
        yield pool
