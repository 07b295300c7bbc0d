"""The process that workers are forked from: ``python -m deblend_batch.engine.worker.fork_server FD``.

It imports what a worker needs, which takes seconds, and runs nothing else: no thread of ours, no device. Each
worker is then a fork of it, there in a moment, be it a run's first or in the place of one that died.
The driver's end of the socket asks, in messages of a word:

* ``start``, with the worker's end of a socket and its log: answered by ``started PID``;
* ``look PID``: answered by ``alive PID``, or ``ended PID CODE``;
* ``wait PID``, of a worker that is about to end: answered by ``ended PID CODE``.

When the driver's end is closed this process ends; workers learn the same from their own sockets.
"""

from __future__ import annotations

import gc
import os
import signal
import socket
import sys
import traceback
from collections.abc import Callable
from multiprocessing.connection import Connection

_MESSAGE_BYTES = 64


class ForkServer:
    """Forks workers for a driver.

    Parameters
    ----------
    control : socket.socket
        This process's end.
    """

    def __init__(self, control: socket.socket) -> None:
        self._control = control
        self._ended: dict[int, int] = {}

    def run(self) -> None:
        """Import what workers need, and answer until the driver is gone."""
        gc.disable()  # it would look again and again at what imports leave, a tenth of their time
        import pyarrow as pa

        import deblend_batch.models.model  # torch, which a worker imports with its model
        import deblend_batch.models.profile_fit.model  # noqa: F401
        from deblend_batch.engine.worker.serve import serve

        pa.array([])  # the first one looks for pandas, whose import would be each worker's
        gc.freeze()  # what workers share is never collected, and so not copied
        gc.enable()
        while True:
            message, descriptors, _, _ = socket.recv_fds(self._control, _MESSAGE_BYTES, 2)
            if not message:
                return
            word, _, pid = message.decode().partition(" ")
            if word == "start":
                self._fork(serve, *descriptors)
            else:
                self._look(int(pid), os.WNOHANG if word == "look" else 0)

    def _fork(self, serve: Callable[[Connection], None], pipe: int, log: int) -> None:
        pid = os.fork()
        if pid == 0:
            self._control.close()
            os.dup2(log, 1)
            os.dup2(log, 2)
            os.close(log)
            try:
                serve(Connection(pipe))
            except BaseException:  # noqa: BLE001  # of ours: no worker says so itself
                traceback.print_exc()
            finally:
                os._exit(1)
        os.close(pipe)
        os.close(log)
        self._control.send(f"started {pid}".encode())

    def _look(self, pid: int, how: int) -> None:
        if pid not in self._ended:
            found, status = os.waitpid(pid, how)
            if found:
                self._ended[pid] = os.waitstatus_to_exitcode(status)
        code = self._ended.get(pid)
        answer = f"alive {pid}" if code is None else f"ended {pid} {code}"
        self._control.send(answer.encode())


def main() -> None:
    """Serve the socket that the command line names, until the driver is gone."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the driver's
    ForkServer(socket.socket(fileno=int(sys.argv[1]))).run()


if __name__ == "__main__":
    main()
