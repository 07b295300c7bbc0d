"""How many rows a GPU takes at a time: as many as its memory holds with room to spare, found by trying."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from deblend_batch.engine.methods.method import Method
from deblend_batch.models.batches import LEAST_ROWS, MOST_ROWS

_SHARE_OF_MEMORY = 0.5
_TRIED_ROWS = 64


def fitting_rows(peak_bytes: Callable[[int], int], free_bytes: int) -> int:
    """Return the largest batch, a power of two, that takes half of the free memory.

    Parameters
    ----------
    peak_bytes : callable
        From a number of rows to the most memory that computing them takes.
    free_bytes : int
        What is free.
    """
    few, many = peak_bytes(_TRIED_ROWS), peak_bytes(2 * _TRIED_ROWS)
    per_row = max((many - few) / _TRIED_ROWS, 1.0)
    fixed = few - _TRIED_ROWS * per_row
    room = (_SHARE_OF_MEMORY * free_bytes - fixed) / per_row
    rows = int(np.clip(room, LEAST_ROWS, MOST_ROWS))
    return 1 << (rows.bit_length() - 1)


def probe_gpu(method: Method, share: float) -> int:
    """Find the batch size of a model on the GPU of this process.

    Parameters
    ----------
    method : Method
        Of a model on the GPU.
    share : float
        Part of the GPU that this process has.
    """
    import torch  # not by the driver, which only imports this module

    def peak_bytes(rows: int) -> int:
        torch.cuda.reset_peak_memory_stats()
        method.answer(method.largest(rows), rows)
        return int(torch.cuda.max_memory_reserved())

    free, total = torch.cuda.mem_get_info()
    return fitting_rows(peak_bytes, int(min(free, share * total)))
