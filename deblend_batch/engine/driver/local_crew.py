"""Workers that are processes of this machine: a run without Ray.

Each is a Python of its own (:mod:`deblend_batch.engine.worker.serve`), so that a pair that kills its worker
takes neither the driver nor a notebook along. It is not forked or spawned by ``multiprocessing``, which would
import the user's ``__main__`` again. A pair of sockets joins it with the driver: when one side is gone, the
other learns it at once.
"""

from __future__ import annotations

import os
import pickle
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from multiprocessing import connection
from pathlib import Path
from typing import Any

import cloudpickle

from deblend_batch.cluster.workers import ALONE
from deblend_batch.engine.driver.crew import Answer, Call
from deblend_batch.engine.driver.place import Place
from deblend_batch.engine.inputs.work import RunContext
from deblend_batch.engine.needs.machine import this_machine, visible_gpus
from deblend_batch.engine.needs.pool import ActorPool
from deblend_batch.engine.worker.environment import ENVIRONMENT
from deblend_batch.engine.worker.exchange import ModelLoader, Seat, TileOutcome
from deblend_batch.errors import RunStoppedError
from deblend_batch.failure import Failure, Fault

_NODE = "local"


@dataclass(eq=False)
class _Process:
    """A worker's process, and what it has not answered yet."""

    process: subprocess.Popen[bytes]
    pipe: connection.Connection
    slot: int
    open: dict[int, Call] = field(default_factory=dict)


class LocalCrew:
    """A crew of processes of this machine; see :class:`~deblend_batch.engine.driver.crew.Crew`.

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
        self._order = (context, tiles_at_once + 1, loader)
        self._share = pool.gpus
        self._gpus = visible_gpus() if pool.gpus else []
        self._processes: list[_Process] = []
        self._logs = tempfile.mkdtemp(prefix="deblend-batch-logs-")
        self._keep_logs = False
        self._calls = self._started = 0

    def start(self) -> Call:
        """Start a process."""
        taken = {each.slot for each in self._processes}
        slot = next(slot for slot in range(len(taken) + 1) if slot not in taken)
        gpu_ids = self._gpus_of(slot)
        context, threads, loader = self._order
        ours, theirs = socket.socketpair()
        with theirs, self._log().open("ab") as log:
            process = subprocess.Popen(  # noqa: S603  # this very Python
                [
                    sys.executable,
                    "-P",
                    "-m",
                    "deblend_batch.engine.worker.serve",
                    str(theirs.fileno()),
                ],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                pass_fds=[theirs.fileno()],
                env=_environment([self._gpus[gpu] for gpu in gpu_ids]),
                process_group=0,  # Ctrl-C is the driver's
            )
        worker = _Process(process, connection.Connection(ours.detach()), slot)
        self._processes.append(worker)
        seat = Seat(_NODE, gpu_ids, 1, self._share)
        with suppress(OSError):  # it is gone already, which waiting tells
            worker.pipe.send_bytes(cloudpickle.dumps((context, seat, loader, threads)))
        return self.submit(worker, "ready")

    def _gpus_of(self, slot: int) -> tuple[int, ...]:
        """Return the GPUs of a place in the crew: one for several, one for each, or several for one."""
        if not self._gpus:
            return ()
        first = int(slot * self._share + 1e-9) % len(self._gpus)
        return tuple(range(first, first + max(1, int(self._share))))

    def _log(self) -> Path:
        self._started += 1
        return Path(self._logs, f"worker-{self._started}.err")

    def submit(self, worker: _Process, method: str, *arguments: Any) -> Call:
        """Call a method of a process's worker."""
        self._calls += 1
        call = worker.open[self._calls] = Call(worker, method)
        with suppress(OSError):  # it is gone, which waiting tells
            worker.pipe.send_bytes(pickle.dumps((self._calls, method, arguments)))
        return call

    def wait(self, seconds: float) -> list[Answer]:
        """Return the answers that have come; a process that is gone answers every call with that."""
        pipes = {each.pipe: each for each in self._processes}
        answers: list[Answer] = []
        for pipe in connection.wait(list(pipes), seconds):
            worker = pipes[pipe]  # type: ignore[index]  # it is one of those given
            try:
                number, value, error = pickle.loads(worker.pipe.recv_bytes())  # noqa: S301  # started here
            except (EOFError, OSError):
                answers += self._bury(worker)
                continue
            fault = None if error is None else Fault.of(error)
            self._keep_logs |= fault is not None
            self._keep_logs |= isinstance(value, TileOutcome) and value.failures > 0
            answers.append(Answer(worker.open.pop(number), value, fault))
        return answers

    def _bury(self, worker: _Process) -> list[Answer]:
        self._keep_logs = True
        self._processes.remove(worker)
        worker.pipe.close()
        worker.process.kill()
        code = worker.process.wait()
        how = f"exit code {code}" if code >= 0 else _signal_name(-code)
        reason = f"worker process {worker.process.pid} died unexpectedly ({how})"
        error = RunStoppedError(f"{reason}; its log is in {self._logs}")
        fault = Fault(Failure.WORKER, reason, "WorkerDied", error)
        return [Answer(call, fault=fault) for call in worker.open.values()]

    def lives(self, worker: _Process) -> bool:
        """Tell whether a process has not ended."""
        return worker in self._processes and worker.process.poll() is None

    def kill(self, worker: _Process) -> None:
        """Kill a process; waiting tells of the calls that it has not answered."""
        worker.process.kill()

    def close(self) -> None:
        """Kill the processes that are left."""
        for worker in self._processes:
            worker.process.kill()
        for worker in self._processes:
            worker.process.wait()
            worker.pipe.close()
        self._processes.clear()
        if not self._keep_logs:
            shutil.rmtree(self._logs, ignore_errors=True)

    def resources(self) -> Mapping[str, float]:
        """Return what this machine has, which does not change."""
        return machine_resources()

    def leaving(self) -> frozenset[str]:
        """Return nothing: this machine stays."""
        return frozenset()

    def why_waiting(self) -> Mapping[str, str]:
        """Return where the processes say what they do."""
        return {"logs": self._logs}


def local_place() -> Place:
    """Return this machine as a place for workers."""
    machine = this_machine()
    return Place(machine_resources(), [machine], ALONE, LocalCrew, metered=False)


def machine_resources() -> dict[str, float]:
    """Return the cores and GPUs of this machine, as a cluster names them."""
    machine = this_machine()
    return {"CPU": machine.cpus, "GPU": machine.gpus}


def _environment(gpus: list[str]) -> dict[str, str]:
    """Return the environment of a worker: this process's modules, its own GPUs, one thread a library."""
    path = os.pathsep.join(os.path.abspath(entry) for entry in sys.path)
    environment = {**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1", **ENVIRONMENT}
    if gpus:
        environment["CUDA_VISIBLE_DEVICES"] = ",".join(gpus)
    return environment


def _signal_name(number: int) -> str:
    with suppress(ValueError):
        return signal.Signals(number).name
    return f"signal {number}"
