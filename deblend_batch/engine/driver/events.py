"""What the driver's loop tells of a run."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from deblend_batch.catalog.records import QuarantineRecord, Receipt
from deblend_batch.engine.worker.exchange import WorkerInfo
from deblend_batch.failure import Failure


@dataclass(frozen=True)
class Events:
    """What the loop tells, each to a function of its own.

    Parameters
    ----------
    done : callable
        A tile's receipt.
    quarantined : callable
        A quarantine record of a whole tile, to be written.
    left_out : callable
        The quarantine record, written, of pairs of a tile that is otherwise done.
    retried : callable
        A tile's name, how often it was tried, the failure's class and one line, when it is tried again.
    joined : callable
        A worker that became ready.
    waiting : callable
        How many workers are still to come, and what a user should know of it, every half minute while there
        is none.
    tick : callable
        Called about twice a second.
    """

    done: Callable[[Receipt], None]
    quarantined: Callable[[QuarantineRecord], None]
    left_out: Callable[[QuarantineRecord], None]
    retried: Callable[[str, int, Failure, str], None]
    joined: Callable[[WorkerInfo], None]
    waiting: Callable[[int, Mapping[str, str]], None]
    tick: Callable[[], None]
