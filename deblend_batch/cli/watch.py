"""``status --watch``: a run seen again and again, until it has ended."""

from __future__ import annotations

import json
import sys
import time
from contextlib import closing
from typing import Protocol

import typer
from rich.console import Console
from rich.live import Live
from rich.table import Table

from deblend_batch.engine.account.reader import StatusReader
from deblend_batch.engine.account.status import RunStatus


class _Screen(Protocol):
    def show(self, status: RunStatus) -> None: ...
    def close(self) -> None: ...


class _Redrawn:
    """A terminal: the last look takes the place of the one before."""

    def __init__(self) -> None:
        self._live = Live(console=Console(), auto_refresh=False)
        self._live.start()

    def show(self, status: RunStatus) -> None:
        table = Table.grid(padding=(0, 2))
        for name, value in status.to_rows():
            table.add_row(name, value)
        self._live.update(table, refresh=True)

    def close(self) -> None:
        self._live.stop()


class _Lines:
    """A file or a pipe: a line a look."""

    def __init__(self, *, as_json: bool) -> None:
        self._as_json = as_json

    def show(self, status: RunStatus) -> None:
        typer.echo(json.dumps(status.to_dict()) if self._as_json else status.to_line())
        sys.stdout.flush()

    def close(self) -> None:
        pass


def watch_run(reader: StatusReader, seconds: float, *, as_json: bool) -> None:
    """Show how far a run is, until it has ended.

    Parameters
    ----------
    reader : StatusReader
        Of the run.
    seconds : float
        Between two looks.
    as_json : bool
        Whether a look is a JSON object, of one line.
    """
    screen: _Screen = _Redrawn() if sys.stdout.isatty() and not as_json else _Lines(as_json=as_json)
    with closing(screen):
        while True:
            status = reader.read()
            screen.show(status)
            if status.state != "running":
                return
            time.sleep(seconds)
