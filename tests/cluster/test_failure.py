"""Failures as Ray really raises them: classed by what to do, said in one line."""

from __future__ import annotations

import os
import threading
from typing import Any

import pytest
import ray
from ray.exceptions import (
    ActorDiedError,
    GetTimeoutError,
    ObjectLostError,
    OutOfMemoryError,
    RayActorError,
    RayTaskError,
    WorkerCrashedError,
)

from deblend_batch import errors
from deblend_batch.cluster.failure import ask, fault_of
from deblend_batch.failure import Failure, classify, one_line, root_cause, unwrap

pytestmark = pytest.mark.usefixtures("cluster")


def fail(error: BaseException) -> None:
    """Raise an error; runs as a Ray task."""
    raise error


def die() -> None:
    """End the process as a crash would; runs as a Ray task."""
    os._exit(1)


class Worker:
    """An actor that takes what a task made, dies, or never answers."""

    def use(self, _: Any) -> None:
        return

    def die(self) -> None:
        die()

    def wait(self) -> None:
        threading.Event().wait()


def remote_error(error: BaseException) -> Exception:
    """Return what the driver gets when a task raises ``error``."""
    ref = ray.remote(fail).options(max_retries=0).remote(error)
    return raised_by(ref)


def raised_by(ref: Any) -> Exception:
    """Return what getting a reference raises."""
    try:
        ray.get(ref, timeout=60)
    except Exception as error:  # noqa: BLE001  # whatever it is, it is what is asked for
        return error
    raise AssertionError("nothing was raised")


TASK_ERRORS = [
    (errors.BadDataError("field.zarr: cannot decode a chunk"), Failure.DATA),
    (errors.TransientStorageError("s3://x: reset; check the network"), Failure.TRANSIENT),
    (errors.StorageError("/data: permission denied; check the mode"), Failure.USER),
    (errors.NotFoundError("/data: no such file"), Failure.USER),
    (errors.DetectionsError("t.parquet: no column 'id'"), Failure.USER),
    (RuntimeError("CUDA error: device-side assert triggered"), Failure.DEVICE),
    (RuntimeError("CUDA out of memory. Tried to allocate 2 GiB"), Failure.MEMORY),
    (RuntimeError("DefaultCPUAllocator: can't allocate memory"), Failure.MEMORY),
    (MemoryError("no more"), Failure.MEMORY),
    (KeyError("bug"), Failure.BUG),
    (OSError("of no store"), Failure.BUG),
]


@pytest.mark.parametrize(
    ("error", "failure"), TASK_ERRORS, ids=lambda value: getattr(value, "value", repr(value)[:40])
)
def test_a_task_s_error_is_classed_by_its_cause(error: Exception, failure: Failure) -> None:
    wrapped = remote_error(error)
    assert isinstance(wrapped, RayTaskError)
    assert fault_of(wrapped).failure is failure
    assert not fault_of(wrapped).preempted
    assert classify(error) is failure
    cause = root_cause(wrapped)
    assert type(cause) is type(error)
    assert str(cause) == str(error)
    assert one_line(wrapped) == str(error)


@pytest.mark.parametrize(
    ("error", "failure"),
    [
        (RayActorError(), Failure.WORKER),
        (WorkerCrashedError(), Failure.WORKER),
        (ObjectLostError("00ff", None, ""), Failure.WORKER),
        (OutOfMemoryError("task was killed to save the node"), Failure.MEMORY),
        (GetTimeoutError("late"), Failure.WORKER),
        (ValueError("of the driver"), Failure.BUG),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, Exception) else "",
)
def test_ray_s_own_errors_are_the_worker_s(error: Exception, failure: Failure) -> None:
    assert fault_of(error).failure is failure
    assert root_cause(error) is error
    assert one_line(error)
    assert "\n" not in one_line(error)


def test_processes_that_die_are_the_worker_s() -> None:
    crash = ray.remote(die).options(max_retries=0).remote()
    actor, killed = (ray.remote(Worker).options(num_cpus=0).remote() for _ in range(2))
    died, waits = raised_by(actor.die.remote()), killed.wait.remote()
    ray.kill(killed)
    ended = raised_by(waits)
    assert isinstance(died, ActorDiedError)
    assert isinstance(ended, ActorDiedError)
    for error in (raised_by(crash), died, ended, raised_by(actor.use.remote(1))):
        assert fault_of(error).failure is Failure.WORKER
        assert "\n" not in one_line(error)


def test_an_actor_given_a_failed_task_s_result_fails_with_the_task_s_error() -> None:
    part = ray.remote(fail).options(max_retries=0).remote(errors.BadDataError("chunk"))
    actor = ray.remote(Worker).options(num_cpus=0).remote()
    error = raised_by(actor.use.remote(part))
    assert fault_of(error).failure is Failure.DATA
    assert one_line(error) == "chunk"
    ray.kill(actor)


USER_FACING = [
    kind
    for kind in vars(errors).values()
    if isinstance(kind, type) and issubclass(kind, errors.DeblendError)
]


@pytest.mark.parametrize("kind", USER_FACING, ids=lambda kind: kind.__name__)
def test_our_errors_cross_process_borders_whole(kind: type[errors.DeblendError]) -> None:
    """A worker's mistake reaches the user as if the driver had made it: class, message, exit code."""
    cause = root_cause(remote_error(kind("/x: what; how to mend it")))
    assert type(cause) is kind
    assert str(cause) == "/x: what; how to mend it"
    assert cause.exit_code == kind.exit_code


def test_asking_raises_the_user_s_error_and_nothing_of_ray_s() -> None:
    error = errors.NotFoundError("/x: what; how to mend it")
    with pytest.raises(errors.NotFoundError, match=r"^/x: what; how to mend it$") as caught:
        ask(ray.remote(fail).options(max_retries=0).remote(error))
    assert not isinstance(caught.value, RayTaskError)
    assert caught.value.__suppress_context__


def test_asking_shows_where_a_bug_was() -> None:
    with pytest.raises(RayTaskError, match="in fail"):
        ask(ray.remote(fail).options(max_retries=0).remote(KeyError("bug")))
    wrapped = remote_error(KeyError("bug"))
    assert unwrap(wrapped) is wrapped


def test_asking_returns_what_the_task_returns() -> None:
    assert ask(ray.put(7)) == 7


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (ValueError("first\nsecond"), "first"),
        (ValueError("\n  indented\n"), "indented"),
        (ValueError(), "ValueError"),
        (ValueError("   "), "ValueError"),
    ],
    ids=["two lines", "leading blank", "empty", "blank"],
)
def test_a_failure_is_one_line(error: Exception, line: str) -> None:
    assert one_line(error) == line
    assert one_line(remote_error(error)) == line
