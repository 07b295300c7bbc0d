"""The process that a worker lives in: its threads, its device, its memory."""

from __future__ import annotations

import resource
import sys
from collections.abc import Sequence
from contextlib import suppress

import numcodecs.blosc
import pyarrow as pa
import zarr


def limit_threads(threads: int) -> None:
    """Hold every library of this process to its share of the node's cores."""
    from deblend_batch.models.device import set_threads

    set_threads(threads)
    numcodecs.blosc.set_nthreads(1)
    zarr.config.set({"threading.max_workers": 2})
    pa.set_cpu_count(1)


def choose_device(gpu_ids: Sequence[int]) -> str:
    """Choose the torch device of an actor."""
    from deblend_batch.models.device import has_cuda

    return "cuda:0" if gpu_ids and has_cuda() else "cpu"


def peak_rss_bytes() -> int:
    """Return the largest resident memory that this process has had, bytes."""
    with suppress(OSError, StopIteration), open("/proc/self/status", encoding="ascii") as status:
        line = next(line for line in status if line.startswith("VmHWM:"))
        return 1024 * int(line.split()[1])
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else 1024 * peak
