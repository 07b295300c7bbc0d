"""Workers that are processes of this machine: a run without Ray.

Each is a process of its own (:mod:`deblend_batch.engine.worker.serve`), so that a pair that kills its worker
takes neither the driver nor a notebook along. All are forked from one that has imported what they need
(:mod:`deblend_batch.engine.worker.fork_server`): the driver itself may have threads, and ``multiprocessing``
would import the user's ``__main__`` again.
"""

from __future__ import annotations

import pickle
import signal
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from multiprocessing import connection
from typing import Any

import cloudpickle

from deblend_batch.cluster.workers import ALONE
from deblend_batch.engine.crew.crew import Answer, Call
from deblend_batch.engine.crew.fork_server import FORK_SERVER, WorkerProcess, worker_environment
from deblend_batch.engine.crew.place import Place
from deblend_batch.engine.inputs.work import RunContext
from deblend_batch.engine.needs.machine import this_machine, visible_gpus
from deblend_batch.engine.needs.pool import ActorPool
from deblend_batch.engine.worker.exchange import ModelLoader, Order, Seat, TileOutcome
from deblend_batch.errors import RunStoppedError
from deblend_batch.failure import Failure, Fault

_NODE = "local"


@dataclass(eq=False)
class _Worker:
    """A worker: its process, its place among the others, and the calls that it has not answered yet."""

    process: WorkerProcess
    slot: int
    open: dict[int, Call] = field(default_factory=dict)
    keep_log: bool = False


class LocalCrew:
    """A crew of processes of this machine; see :class:`~deblend_batch.engine.crew.crew.Crew`.

    Parameters
    ----------
    context : RunContext
        The run.
    pool : ActorPool
        How many there are to be, and their share of a GPU.
    tiles_at_once : int
        Most tiles that one is given at a time.
    loader : callable
        Makes the model in each.
    """

    def __init__(
        self, context: RunContext, pool: ActorPool, tiles_at_once: int, loader: ModelLoader
    ) -> None:
        self._context = context
        self._loader = loader
        self._calls_at_once = tiles_at_once + 1
        self._share = pool.gpus
        self._gpus = visible_gpus() if pool.gpus else []
        self._workers: list[_Worker] = []
        self._calls = 0
        self._open = True
        FORK_SERVER.hold()

    def start(self) -> Call:
        """Start a process."""
        taken = {each.slot for each in self._workers}
        slot = next(slot for slot in range(len(taken) + 1) if slot not in taken)
        worker = _Worker(FORK_SERVER.fork(), slot)
        self._workers.append(worker)
        gpu_ids = self._gpus_of(slot)
        seat = Seat(_NODE, gpu_ids, 1, self._share)
        order = Order(self._context, seat, self._loader, self._calls_at_once)
        with suppress(OSError):  # it is gone already, which waiting tells
            worker.process.pipe.send_bytes(pickle.dumps(self._surroundings(gpu_ids)))
            worker.process.pipe.send_bytes(cloudpickle.dumps(order))
        return self.submit(worker, "ready")

    def _surroundings(self, gpu_ids: tuple[int, ...]) -> tuple[list[str], dict[str, str]]:
        """Return the paths and the environment of now; CUDA, which nothing has used yet, looks at it once."""
        paths, environment = worker_environment()
        if gpu_ids:
            environment["CUDA_VISIBLE_DEVICES"] = ",".join(self._gpus[gpu] for gpu in gpu_ids)
        return paths, environment

    def _gpus_of(self, slot: int) -> tuple[int, ...]:
        """Return the GPUs of a place in the crew: one for several, one for each, or several for one."""
        if not self._gpus:
            return ()
        first = int(slot * self._share + 1e-9) % len(self._gpus)
        return tuple(range(first, first + max(1, int(self._share))))

    def submit(self, worker: _Worker, method: str, *arguments: Any) -> Call:
        """Call a method of a process's worker."""
        self._calls += 1
        call = worker.open[self._calls] = Call(worker, method)
        with suppress(OSError):  # it is gone, which waiting tells
            worker.process.pipe.send_bytes(pickle.dumps((self._calls, method, arguments)))
        return call

    def wait(self, seconds: float) -> list[Answer]:
        """Return the answers that have come; a process that is gone answers every call with that."""
        FORK_SERVER.hear()
        pipes = {each.process.pipe: each for each in self._workers}
        answers: list[Answer] = []
        for pipe in connection.wait(list(pipes), seconds):
            worker = pipes[pipe]  # type: ignore[index]  # it is one of those given
            try:
                number, value, error = pickle.loads(worker.process.pipe.recv_bytes())  # noqa: S301  # started here
            except (EOFError, OSError):
                answers += self._bury(worker)
                continue
            fault = None if error is None else Fault.of(error)
            worker.keep_log |= fault is not None
            worker.keep_log |= isinstance(value, TileOutcome) and value.failures > 0
            answers.append(Answer(worker.open.pop(number), value, fault))
        return answers

    def _bury(self, worker: _Worker) -> list[Answer]:
        self._workers.remove(worker)
        process = worker.process
        code = FORK_SERVER.exit_code(process)
        process.pipe.close()
        how = f"exit code {code}" if code >= 0 else _signal_name(-code)
        reason = f"worker process {process.pid} died unexpectedly ({how})"
        error = RunStoppedError(f"{reason}; its log is {process.log}")
        fault = Fault(Failure.WORKER, reason, "WorkerDied", error)
        return [Answer(call, fault=fault) for call in worker.open.values()]

    def lives(self, worker: _Worker) -> bool:
        """Tell whether a process has not ended."""
        return worker in self._workers and FORK_SERVER.lives(worker.process)

    def kill(self, worker: _Worker) -> None:
        """Kill a process; waiting tells of the calls that it has not answered."""
        FORK_SERVER.kill(worker.process)

    def close(self) -> None:
        """Kill the processes that are left; those that are not there yet find nobody, and end."""
        if not self._open:
            return
        self._open = False
        for worker in self._workers:
            self.kill(worker)
            worker.process.pipe.close()
            if not worker.keep_log:
                worker.process.log.unlink(missing_ok=True)
        self._workers.clear()
        FORK_SERVER.release()

    def resources(self) -> Mapping[str, float]:
        """Return nothing: this machine does not grow."""
        return {}

    def leaving(self) -> frozenset[str]:
        """Return nothing: this machine stays."""
        return frozenset()

    def why_waiting(self) -> Mapping[str, str]:
        """Return where the processes say what they do."""
        return {"logs": ", ".join(str(each.process.log) for each in self._workers)}


def local_place() -> Place:
    """Return this machine as a place for workers: one starts first, and is all that a small run needs."""
    machine = this_machine()
    resources = {"CPU": machine.cpus, "GPU": machine.gpus}
    return Place(resources, [machine], ALONE, LocalCrew, on_ray=False, at_first=1)


def _signal_name(number: int) -> str:
    with suppress(ValueError):
        return signal.Signals(number).name
    return f"signal {number}"
