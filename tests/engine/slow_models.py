"""A model that lets a run last as long as a test wants."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from deblend_batch.engine.inputs.work import RunContext
from deblend_batch.engine.worker.exchange import load_run_model


class Slow:
    """A real model that takes its time until a file appears, so that a run outlives its nodes."""

    def __init__(self, model: Any, until: Path) -> None:
        self._model, self._until = model, until
        self.card, self.default_batch_size = model.card, model.default_batch_size

    def predict(self, *arguments: Any) -> Any:
        until = time.monotonic() + 3
        while not self._until.exists() and time.monotonic() < until:
            time.sleep(0.05)
        return self._model.predict(*arguments)


def slow_model(until: Path) -> Callable[[RunContext, str], Slow]:
    """Return a loader of the run's model, slowed down until a file appears."""

    def load(context: RunContext, device: str) -> Slow:
        return Slow(load_run_model(context, device), until)

    return load
