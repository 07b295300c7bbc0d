"""What a worker is given, and what it gives back: light enough for the driver, which loads no pixels."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from deblend_batch.catalog.records import QuarantineRecord, Receipt
from deblend_batch.engine.inputs.work import RunContext
from deblend_batch.models import load_model

ModelLoader = Callable[[RunContext, str], Any]


@dataclass(frozen=True)
class Seat:
    """The place of a worker: what it is given, by Ray or by the driver.

    Parameters
    ----------
    node : str
        Node id.
    gpu_ids : tuple of int
        Its GPUs; CUDA sees no others.
    threads : int
        Cores that are its share.
    share : float
        GPUs that are its share: less than 1 where several workers have the same one.
    """

    node: str
    gpu_ids: tuple[int, ...] = ()
    threads: int = 1
    share: float = 1.0


@dataclass(frozen=True)
class Order:
    """What makes a worker of a process that waits for it.

    Parameters
    ----------
    context : RunContext
        The run.
    seat : Seat
        Its place.
    loader : callable
        Makes its model.
    calls_at_once : int
        Calls that it answers at a time.
    """

    context: RunContext
    seat: Seat
    loader: ModelLoader
    calls_at_once: int


@dataclass(frozen=True)
class WorkerInfo:
    """Where a worker runs, for receipts.

    Parameters
    ----------
    node : str
        Node id.
    pid : int
        Process.
    device : str
        torch device.
    gpu_ids : tuple of int
        GPUs that it was given.
    cuda_visible_devices : str, optional
        What CUDA may see.
    torch_threads : int
        Threads of one operation.
    """

    node: str
    pid: int
    device: str
    gpu_ids: tuple[int, ...]
    cuda_visible_devices: str | None
    torch_threads: int


@dataclass(frozen=True)
class TileOutcome:
    """What processing a tile came to.

    Parameters
    ----------
    receipt : Receipt or None
        What stands in the ledger; None where no pair is left, and nothing was written.
    record : QuarantineRecord or None
        What stands in the quarantine, where a pair is left out; what should, where there is no receipt.
    failures : int
        Pairs that failed; those without a usable pixel did not.
    """

    receipt: Receipt | None
    record: QuarantineRecord | None
    failures: int


def load_run_model(context: RunContext, device: str) -> Any:
    """Load the run's model on a device: the weights that the run began with, or none."""
    return load_model(context.model, context.options, device, context.model_sha256)
