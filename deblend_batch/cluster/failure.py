"""Failures, classed by what to do about them."""

from __future__ import annotations

from enum import Enum
from typing import Any

import ray
from ray.exceptions import OutOfMemoryError, RayActorError, RayError, RayTaskError

from deblend_batch.errors import BadDataError, DeblendError, TransientStorageError, UserError
from deblend_batch.text import redacted


class Failure(Enum):
    """What a failed tile calls for."""

    TRANSIENT = "transient"
    """Try again, later."""
    WORKER = "worker"
    """Its process or node is gone: try elsewhere."""
    DEVICE = "device"
    """Its actor's device is in doubt: replace the actor, then try again."""
    MEMORY = "memory"
    """Its process or node ran out of memory: try again with less at a time."""
    DATA = "data"
    """Trying again will not help: quarantine the pairs that it comes from."""
    USER = "user"
    """Nothing will work until the user mends it: stop."""
    BUG = "bug"
    """Unexpected. If single pairs cause it they are quarantined; if nothing works, stop and show where."""


POISONOUS = frozenset({Failure.DATA, Failure.BUG})
"""Failures that may come from single pairs, so that trying fewer helps to find them."""

# The first that fits: a transient error is a user's error too.
_OURS = (
    (BadDataError, Failure.DATA),
    (TransientStorageError, Failure.TRANSIENT),
    (UserError, Failure.USER),
)

_NO_MEMORY = ("out of memory", "can't allocate memory", "STATUS_ALLOC_FAILED")
_DEVICE = ("CUDA error", "cuDNN error", "CUDNN_STATUS", "CUBLAS_STATUS")


def classify(error: BaseException) -> Failure:
    """Class a failure that a Ray call raised.

    Parameters
    ----------
    error : BaseException
        As ``ray.get`` raised it: an error of the task itself also has the class of its cause.

    Returns
    -------
    Failure
        What to do.
    """
    for kind, failure in _OURS:
        if isinstance(error, kind):
            return failure
    if isinstance(error, OutOfMemoryError) or is_out_of_memory(root_cause(error)):
        return Failure.MEMORY
    if any(text in str(error) for text in _DEVICE):
        return Failure.DEVICE
    if isinstance(error, RayTaskError):
        return Failure.BUG
    return Failure.WORKER if isinstance(error, RayError) else Failure.BUG


def is_out_of_memory(error: BaseException) -> bool:
    """Tell whether an error of NumPy or torch says that memory, of the host or a device, ran out."""
    return isinstance(error, MemoryError) or (
        isinstance(error, RuntimeError) and any(text in str(error) for text in _NO_MEMORY)
    )


def is_preempted(error: BaseException) -> bool:
    """Tell whether an actor died because its node was taken away with notice, as spot nodes are."""
    return isinstance(error, RayActorError) and error.preempted


def root_cause(error: BaseException) -> BaseException:
    """Return what a task raised, without Ray's wrapping."""
    cause = error.cause if isinstance(error, RayTaskError) else None
    return cause if isinstance(cause, BaseException) else error


def unwrap(error: Exception) -> Exception:
    """Return what to raise for a failed Ray call.

    Parameters
    ----------
    error : Exception
        As ``ray.get`` raised it.

    Returns
    -------
    Exception
        What the task raised, where it is one of :mod:`deblend_batch.errors`; else ``error``, which shows
        where in the task it happened.
    """
    cause = root_cause(error)
    return cause if isinstance(cause, DeblendError) else error


def ask(ref: Any) -> Any:
    """Wait for a task, and raise its error as if the driver had made the call.

    Parameters
    ----------
    ref : ray.ObjectRef
        What the task will return.

    Returns
    -------
    object
        Its value.

    Raises
    ------
    DeblendError
        As the task raised it.
    RayError
        If the task failed otherwise.
    """
    try:
        return ray.get(ref)
    except Exception as error:  # noqa: BLE001  # raised again
        raise unwrap(error) from None


def one_line(error: BaseException) -> str:
    """Say a failure in one line, which may be stored."""
    cause = root_cause(error)
    lines = str(cause).strip().splitlines()
    return redacted(lines[0]) if lines else type(cause).__name__
