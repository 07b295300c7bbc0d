"""Failures of Ray's calls: what its own errors call for, and asking as if the driver had made the call."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import ray
from ray.exceptions import OutOfMemoryError, RayActorError, RayError, RayTaskError

from deblend_batch.failure import Failure, Fault, is_of_device, unwrap


def fault_of(error: Exception) -> Fault:
    """Describe how a Ray call failed."""
    fault = Fault.of(error)
    if isinstance(error, RayTaskError) or not isinstance(error, RayError):
        return fault
    preempted = isinstance(error, RayActorError) and error.preempted
    return replace(fault, failure=_of_ray(error), preempted=preempted)


def _of_ray(error: RayError) -> Failure:
    if isinstance(error, OutOfMemoryError):
        return Failure.MEMORY
    return Failure.DEVICE if is_of_device(error) else Failure.WORKER


def ask(ref: Any) -> Any:
    """Wait for a task, and raise its error as if the driver had made the call."""
    try:
        return ray.get(ref)
    except Exception as error:  # noqa: BLE001  # raised again
        raise unwrap(error) from None
