"""A worker in a process of its own, without Ray: what :mod:`deblend_batch.engine.worker.fork_server` forks.

The driver's end of the socket sends the run first, then calls; answers go back as they come. When that end is
closed the driver is gone, and so is this process, at once: what it held is done again.
"""

from __future__ import annotations

import os
import pickle
import sys
import threading
import traceback
from concurrent.futures import ThreadPoolExecutor
from multiprocessing.connection import Connection
from typing import Any

import cloudpickle

from deblend_batch.engine.worker.actor import ModelActor
from deblend_batch.engine.worker.exchange import Order
from deblend_batch.failure import one_line


class RemoteTraceback(Exception):  # noqa: N818  # it is shown as the cause of an error
    """Where in a worker's process an error was raised."""

    def __str__(self) -> str:
        return f'\n"""\n{self.args[0]}"""'


class _Raised:
    """An error with where it was raised, which pickle alone would leave out."""

    def __init__(self, error: Exception, where: RemoteTraceback) -> None:
        self._error, self._where = error, where

    def __reduce__(self) -> Any:
        return _caused, (self._error, self._where)


def _caused(error: Exception, where: RemoteTraceback) -> Exception:
    error.__cause__ = where
    return error


class Server:
    """Answers the calls of a driver, several at a time.

    Parameters
    ----------
    pipe : Connection
        This process's end.
    """

    def __init__(self, pipe: Connection) -> None:
        self._pipe = pipe
        self._answering = threading.Lock()

    def run(self) -> None:
        """Make the worker that the driver asks for, and answer until the driver is gone."""
        from deblend_batch.engine.worker.actor import ModelActor

        sys.path[:], environment = self._receive()  # the driver's of now, before what needs them
        os.environ.clear()
        os.environ.update(environment)
        order: Order = self._receive()
        error: Exception | None = None
        worker: ModelActor | None = None
        try:
            worker = ModelActor(order.context, order.seat, order.loader)
        except Exception as raised:  # noqa: BLE001  # the driver is told when it asks
            error = raised
        pool = ThreadPoolExecutor(order.calls_at_once)
        while True:
            number, method, arguments = self._receive()
            if error is not None:
                self._answer(number, None, error)
            else:
                pool.submit(self._call, number, getattr(worker, method), arguments)

    def _receive(self) -> Any:
        return pickle.loads(self._pipe.recv_bytes())  # noqa: S301  # the driver is who started this process

    def _call(self, number: int, method: Any, arguments: tuple[Any, ...]) -> None:
        try:
            value = method(*arguments)
        except Exception as error:  # noqa: BLE001  # the driver classes it
            self._answer(number, None, error)
        else:
            self._answer(number, value, None)

    def _answer(self, number: int, value: Any, error: Exception | None) -> None:
        raised = None if error is None else _portable(error)
        message = cloudpickle.dumps((number, value, raised))
        with self._answering:
            self._pipe.send_bytes(message)


def _portable(error: Exception) -> _Raised:
    """Return what carries an error to the driver; one that cannot be sent goes as one that says the same."""
    where = RemoteTraceback("".join(traceback.format_exception(error)))
    try:
        pickle.loads(cloudpickle.dumps(error))  # noqa: S301  # made a moment ago
    except Exception:  # noqa: BLE001  # whatever the reason
        error = RuntimeError(f"{type(error).__name__}: {one_line(error)}")
    return _Raised(error, where)


def serve(pipe: Connection) -> None:
    """Serve a driver until it is gone, and end this process."""
    try:
        Server(pipe).run()
    except (EOFError, OSError):
        os._exit(0)  # threads may still compute
