"""Models that kill their process, or fail in another way, when a test wants it."""

from __future__ import annotations

import ctypes
import os
import signal
from pathlib import Path
from typing import Any

from deblend_batch.engine.inputs.work import RunContext
from deblend_batch.engine.worker.exchange import load_run_model
from deblend_batch.errors import TransientStorageError


class Saboteur:
    """A real model that does something terrible on its first calls, or on every one (``times`` None).

    The calls are counted for all processes, by files.
    """

    def __init__(self, model: Any, marks: Path, deed: str, times: int | None) -> None:
        self._model, self._marks, self._deed, self._times = model, marks, deed, times
        self.card, self.default_batch_size = model.card, model.default_batch_size

    def predict(self, *arguments: Any) -> Any:
        if self._times is None:
            self._act()
        for number in range(self._times or 0):
            try:
                (self._marks / f"{self._deed}-{number}").touch(exist_ok=False)
            except FileExistsError:
                continue
            self._act()
        return self._model.predict(*arguments)

    def _act(self) -> None:
        if self._deed == "exit":
            os._exit(1)
        if self._deed == "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        if self._deed == "segfault":
            ctypes.string_at(0)
        if self._deed == "network":
            raise TransientStorageError("s3://x: reset; check the network")
        if self._deed == "cuda":
            raise RuntimeError("CUDA error: an illegal memory access was encountered")
        raise KeyError(self._deed)


def saboteur(marks: Path, deed: str, times: int | None) -> Any:
    """Return a loader whose model misbehaves ``times`` times, or always."""

    def load(context: RunContext, device: str) -> Saboteur:
        return Saboteur(load_run_model(context, device), marks, deed, times)

    return load


class Poisoned:
    """A real model that dies or raises when it meets the pair with a certain flux (nJy).

    While the pair is searched for that kills it, the network fails once.
    """

    def __init__(self, model: Any, poison_njy: float, deed: str, mark: Path) -> None:
        self._model, self._poison, self._deed, self._mark = model, poison_njy, deed, mark
        self.card, self.default_batch_size = model.card, model.default_batch_size

    def predict(self, stamps: Any, *arguments: Any) -> Any:
        found = self._model.predict(stamps, *arguments)
        njy = found.flux * 10 ** (0.4 * (31.4 - 25.96))
        if (abs(njy / self._poison - 1) < 1e-5).any():
            if self._deed == "raise":
                raise ArithmeticError("spoilt by a pair")
            os._exit(1)
        if self._deed == "exit" and len(stamps) == 1 and first_time(self._mark):
            raise TransientStorageError("s3://x: reset; check the network")
        return found


def first_time(mark: Path) -> bool:
    """Tell whether no process has asked this before."""
    try:
        mark.touch(exist_ok=False)
    except FileExistsError:
        return False
    return True
