"""torch's devices and threads: asked for, counted, given back."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from threadpoolctl import threadpool_limits

from deblend_batch.errors import ModelError


def open_device(name: str) -> torch.device:
    """Return a torch device that can be used here."""
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise ModelError(
            f"device {name!r}: unknown to torch; use --device cpu, cuda or cuda:N"
        ) from error
    if device.type == "cuda":
        _check_cuda(name, device)
    try:
        torch.zeros(1, device=device).cpu()
    except (RuntimeError, AssertionError, ImportError) as error:
        raise ModelError(f"device {name!r}: cannot be used here; use --device cpu") from error
    return device


def count_gpus() -> int:
    """Return how many GPUs torch sees here."""
    return torch.cuda.device_count()


def has_cuda() -> bool:
    """Tell whether torch can use a GPU here."""
    return torch.cuda.is_available()


def set_threads(threads: int) -> None:
    """Hold torch in this process to so many threads for one operation, and numpy's linear algebra to one."""
    torch.set_num_threads(threads)
    threadpool_limits(1, user_api="blas")  # it stands until another is set


@contextmanager
def one_thread() -> Iterator[None]:
    """Let torch and numpy compute as an actor on one core does; with more threads sums round otherwise."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with threadpool_limits(1, user_api="blas"):
            yield
    finally:
        torch.set_num_threads(before)


def release_device_memory() -> None:
    """Give memory that torch keeps for later back to the GPU, where there is one."""
    if torch.cuda.is_initialized():  # type: ignore[no-untyped-call]
        torch.cuda.empty_cache()


def _check_cuda(name: str, device: torch.device) -> None:
    visible = torch.cuda.device_count()
    if visible == 0:
        raise ModelError(f"device {name!r}: no CUDA device is visible here; use --device cpu")
    if device.index is not None and device.index >= visible:
        last = "cuda:0" if visible == 1 else f"cuda:0 to cuda:{visible - 1}"
        raise ModelError(f"device {name!r}: only {last} is visible here; use --device cuda")
