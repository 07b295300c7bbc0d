"""The process of a worker on this machine: a Python of its own, joined with this one by a pair of sockets.

It imports next to nothing, since one is started before this process itself has imported what it needs.
"""

from __future__ import annotations

import atexit
import os
import socket
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path

from deblend_batch.engine.worker.environment import ENVIRONMENT


@dataclass(frozen=True, eq=False)
class WorkerProcess:
    """A worker's process.

    Parameters
    ----------
    process : subprocess.Popen
        The process, which imports what a worker needs, and then waits for its order.
    pipe : Connection
        This side of the sockets; when one side is gone, the other learns it at once.
    log : Path
        What it prints.
    """

    process: subprocess.Popen[bytes]
    pipe: Connection
    log: Path

    @classmethod
    def start(cls) -> WorkerProcess:
        """Start one."""
        ours, theirs = socket.socketpair()
        descriptor, log = tempfile.mkstemp(prefix="deblend-batch-worker-", suffix=".log")
        serve = "deblend_batch.engine.worker.serve"
        with theirs, os.fdopen(descriptor, "wb") as sink:
            process = subprocess.Popen(  # noqa: S603  # this very Python
                [sys.executable, "-P", "-m", serve, str(theirs.fileno())],
                stdin=subprocess.DEVNULL,
                stdout=sink,
                stderr=sink,
                pass_fds=[theirs.fileno()],
                env=_environment(),
                process_group=0,  # Ctrl-C is the driver's
            )
        return cls(process, Connection(ours.detach()), Path(log))

    def end(self, *, keep_log: bool = False) -> int:
        """Kill the process, and return its exit code, the one it had if it was dead."""
        self.process.kill()
        code = self.process.wait()
        self.pipe.close()
        if not keep_log:
            self.log.unlink(missing_ok=True)
        return code


def _environment() -> dict[str, str]:
    """Return the environment of a worker: this process's modules, one thread a library."""
    path = os.pathsep.join(os.path.abspath(entry) for entry in sys.path)
    return {**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1", **ENVIRONMENT}


class Spare:
    """A worker's process that is started ahead: its imports take as long as all that a run does before."""

    def __init__(self) -> None:
        self._process: WorkerProcess | None = None

    def start(self) -> None:
        """Start it, unless it has been."""
        if self._process is None:
            self._process = WorkerProcess.start()
            atexit.register(self.stop)

    def take(self) -> WorkerProcess | None:
        """Return it, if there is one; it is then the caller's."""
        taken, self._process = self._process, None
        return taken

    def stop(self) -> None:
        """End it, if nobody has taken it."""
        atexit.unregister(self.stop)
        if (left := self.take()) is not None:
            left.end()


SPARE = Spare()
"""The one of this process: the command line starts it, and the first worker of a run is made of it."""
