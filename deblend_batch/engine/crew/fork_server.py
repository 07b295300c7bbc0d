"""The driver's side of the process that workers without Ray are forked from, and of each such worker.

It imports next to nothing, since that process is started before this one has imported what it needs itself.
"""

from __future__ import annotations

import atexit
import os
import signal
import socket
import subprocess
import sys
import tempfile
from collections import deque
from contextlib import suppress
from multiprocessing.connection import Connection
from pathlib import Path

from deblend_batch.engine.crew.environment import ENVIRONMENT
from deblend_batch.errors import RunStoppedError, StorageError

_MESSAGE_BYTES = 64


class WorkerProcess:
    """A worker's process.

    Parameters
    ----------
    pipe : Connection
        This side of its socket; when one side is gone, the other learns it at once.
    log : Path
        What it prints.

    Attributes
    ----------
    pid : int or None
        None where the fork server has not said it yet.
    """

    def __init__(self, pipe: Connection, log: Path) -> None:
        self.pipe = pipe
        self.log = log
        self.pid: int | None = None


class ForkServer:
    """The process that workers are forked from; it lives while somebody holds it.

    The first worker needs it at once, and its imports take as long as all that a run does before: who knows
    that there will be a run holds it ahead.
    """

    def __init__(self) -> None:
        self._holders = 0
        self._process: subprocess.Popen[bytes] | None = None
        self._control: socket.socket | None = None
        self._log = Path()
        self._starting: deque[WorkerProcess] = deque()

    def hold(self) -> None:
        """Start it, unless it is there."""
        self._holders += 1
        if self._process is None or self._process.poll() is not None:
            self._start()

    def release(self) -> None:
        """End it, if nobody else holds it; its workers live on."""
        self._holders -= 1
        if not self._holders:
            self._end()

    def _start(self) -> None:
        self._end()
        self._control, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._log, sink = _new_log("fork-server")
        module = "deblend_batch.engine.worker.fork_server"
        with theirs:
            self._process = subprocess.Popen(  # noqa: S603  # this very Python
                [sys.executable, "-P", "-m", module, str(theirs.fileno())],
                stdin=subprocess.DEVNULL,
                stdout=sink,
                stderr=sink,
                pass_fds=[theirs.fileno()],
                env=worker_environment()[1],
                process_group=0,  # Ctrl-C is the driver's
            )
        os.close(sink)
        atexit.register(self._end)

    def _end(self) -> None:
        atexit.unregister(self._end)
        if self._process is not None and self._control is not None:
            died = self._process.poll() is not None
            self._process.kill()
            self._process.wait()
            self._control.close()
            if not died:
                self._log.unlink(missing_ok=True)
        self._process = self._control = None
        self._starting.clear()

    def fork(self) -> WorkerProcess:
        """Ask for a worker; it is there once the fork server has imported what it needs."""
        if self._process is None or self._process.poll() is not None:
            self._start()
        ours, theirs = socket.socketpair()
        log, sink = _new_log("worker")
        with theirs, suppress(OSError):  # it is gone, which the worker's pipe tells
            socket.send_fds(self._socket, [b"start"], [theirs.fileno(), sink])
        os.close(sink)
        worker = WorkerProcess(Connection(ours.detach()), log)
        self._starting.append(worker)
        return worker

    def kill(self, worker: WorkerProcess) -> None:
        """Kill a worker; one that is not there yet will find nobody, and end."""
        if worker.pid is not None and self.lives(worker):
            with suppress(ProcessLookupError):
                os.kill(worker.pid, signal.SIGKILL)

    def lives(self, worker: WorkerProcess) -> bool:
        """Tell whether a worker that is there has not ended."""
        if worker.pid is None:
            return False
        try:
            return self._ask("look", worker.pid) is None
        except RunStoppedError:  # it outlived the fork server, and is now init's
            with suppress(ProcessLookupError):
                os.kill(worker.pid, 0)
                return True
            return False

    def exit_code(self, worker: WorkerProcess) -> int:
        """End a worker that answers no more, and return its exit code, the one it had if it was dead."""
        while worker.pid is None:
            self._next()
        self.kill(worker)
        try:
            code = self._ask("wait", worker.pid)
        except RunStoppedError:  # whoever killed the one may have killed the other
            code = None
        return -signal.SIGKILL if code is None else code

    def _ask(self, word: str, pid: int) -> int | None:
        """Return the exit code of a worker; None where it lives."""
        with suppress(OSError):  # what is then heard says why
            self._socket.send(f"{word} {pid}".encode())
        while True:
            what, of, *code = self._next()
            if what != "started" and of == pid:
                return code[0] if code else None

    def hear(self) -> None:
        """Take in which workers have come to be, without waiting."""
        if not self._starting:
            return
        self._socket.setblocking(False)
        try:
            while self._starting:
                self._next()
        except BlockingIOError:
            pass
        finally:
            self._socket.setblocking(True)

    def _next(self) -> tuple[str, int, *tuple[int, ...]]:
        """Hear one thing, whatever it is."""
        message = b""
        with suppress(ConnectionResetError):
            message = self._socket.recv(_MESSAGE_BYTES)
        if not message:
            if self._process is not None:
                self._process.wait()  # its socket closes a moment before it has ended
            raise RunStoppedError(
                f"the process that workers are forked from has died; its log is {self._log}"
            )
        word, *numbers = message.decode().split()
        pid, *code = map(int, numbers)
        if word == "started":
            self._starting.popleft().pid = pid
        return (word, pid, *code)

    @property
    def _socket(self) -> socket.socket:
        assert self._control is not None
        return self._control


def _new_log(kind: str) -> tuple[Path, int]:
    try:
        descriptor, path = tempfile.mkstemp(prefix=f"deblend-batch-{kind}-", suffix=".log")
    except OSError as error:
        raise StorageError(
            f"no temporary file can be made ({error.strerror or error}); set TMPDIR to a folder that can be "
            "written"
        ) from error
    return Path(path), descriptor


def worker_environment() -> tuple[list[str], dict[str, str]]:
    """Return the paths of this process's modules, and the environment of workers: one thread a library."""
    paths = [os.path.abspath(entry) for entry in sys.path]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(paths), "OMP_NUM_THREADS": "1"}
    return paths, {**environment, **ENVIRONMENT}


FORK_SERVER = ForkServer()
"""The one of this process."""
