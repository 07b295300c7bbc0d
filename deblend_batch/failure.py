"""Failures, classed by what to do about them."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum

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


@dataclass(frozen=True)
class Fault:
    """How a piece of work failed.

    Parameters
    ----------
    failure : Failure
        What it calls for.
    reason : str
        One line, which may be stored.
    error : str
        Class of the error.
    exception : Exception
        What to raise where a run stops for it.
    preempted : bool
        Whether its node was taken away with notice, as spot nodes are: nobody's fault.
    """

    failure: Failure
    reason: str
    error: str
    exception: Exception = field(repr=False)
    preempted: bool = False

    @classmethod
    def of(cls, error: Exception) -> Fault:
        """Describe an error that the work itself raised."""
        cause = root_cause(error)
        return cls(classify(error), one_line(error), type(cause).__name__, unwrap(error))


def classify(error: BaseException) -> Failure:
    """Class an error that a piece of work raised, wrapped or not."""
    cause = root_cause(error)
    for kind, failure in _OURS:
        if isinstance(cause, kind):
            return failure
    if is_out_of_memory(cause):
        return Failure.MEMORY
    return Failure.DEVICE if is_of_device(cause) else Failure.BUG


def is_out_of_memory(error: BaseException) -> bool:
    """Tell whether an error of NumPy or torch says that memory, of the host or a device, ran out."""
    return isinstance(error, MemoryError) or (
        isinstance(error, RuntimeError) and any(text in str(error) for text in _NO_MEMORY)
    )


def is_of_device(error: BaseException) -> bool:
    """Tell whether an error says that a GPU, or a library of it, failed."""
    return any(text in str(error) for text in _DEVICE)


def root_cause(error: BaseException) -> BaseException:
    """Return what the work raised: an error that wraps another, as Ray's does, has it as its ``cause``."""
    cause = getattr(error, "cause", None)
    return cause if isinstance(cause, BaseException) else error


def unwrap(error: Exception) -> Exception:
    """Return what to raise for a failure."""
    cause = root_cause(error)
    return cause if isinstance(cause, DeblendError) else error


def one_line(error: BaseException) -> str:
    """Say a failure in one line, which may be stored."""
    cause = root_cause(error)
    lines = str(cause).strip().splitlines()
    return redacted(lines[0]) if lines else type(cause).__name__
