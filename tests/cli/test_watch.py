"""``status --watch``: looks again until the run has ended; a line a look where there is no terminal."""

from __future__ import annotations

import json
import os
import pty
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from deblend_batch import storage
from deblend_batch.catalog.ledger import Ledger
from deblend_batch.catalog.output import Output
from deblend_batch.cli.main import main
from tests.engine.finished import finish_run
from tests.support import SmallField


@pytest.fixture(scope="module")
def template(small_field: SmallField, tmp_path_factory: pytest.TempPathFactory) -> Ledger:
    """A complete run, which tests leave as it is."""
    return finish_run(small_field, str(tmp_path_factory.mktemp("watched") / "out"))


@pytest.fixture
def run(template: Ledger, tmp_path: Path) -> Ledger:
    """A run that lacks one tile, and whose driver lives."""
    ledger = Ledger(Output(str(shutil.copytree(template.output.url, tmp_path / "out"))))
    storage.remove(ledger.output.receipt_url(ledger.output.receipts()[0]))
    ledger.write_run(ledger.read_run() | {"state": "running"})
    return ledger


def end_soon(run: Ledger, template: Ledger) -> threading.Thread:
    """Let the run end in a second."""

    def end() -> None:
        time.sleep(1)
        tile = template.output.receipts()[0]
        shutil.copy(template.output.receipt_url(tile), run.output.receipt_url(tile))
        run.write_run(run.read_run() | {"state": "complete"})

    thread = threading.Thread(target=end)
    thread.start()
    return thread


def looks(
    run: Ledger, template: Ledger, capsys: pytest.CaptureFixture[str], *words: str
) -> list[str]:
    """Watch the run until it ends; return the lines."""
    ending = end_soon(run, template)
    assert main(["status", run.output.url, "--watch", "--interval", "0.3", *words]) == 0
    ending.join()
    return capsys.readouterr().out.splitlines()


def test_a_look_is_a_line_and_the_last_one_is_of_the_end(
    run: Ledger, template: Ledger, capsys: pytest.CaptureFixture[str]
) -> None:
    lines = looks(run, template, capsys)
    assert len(lines) >= 3
    assert lines[0].startswith("running  tiles 8/9  pairs ")
    assert "  ETA 0:00:0" in lines[0]
    assert lines[-1].startswith("complete  tiles 9/9  pairs 93/93  quarantined 0  ")
    assert lines[-1].endswith("  retried, worker: 2")


def test_a_look_is_an_object_for_programs(
    run: Ledger, template: Ledger, capsys: pytest.CaptureFixture[str]
) -> None:
    found: list[dict[str, Any]] = [
        json.loads(line) for line in looks(run, template, capsys, "--json")
    ]
    assert [each["state"] for each in found][:: len(found) - 1] == ["running", "complete"]
    assert (found[0]["tiles_written"], found[-1]["tiles_written"]) == (8, 9)
    assert found[-1]["failures"] == {"retried, worker": 2}


def test_a_terminal_is_redrawn_and_ctrl_c_ends_it_in_one_line(run: Ledger) -> None:
    ours, theirs = pty.openpty()
    command = [sys.executable, "-m", "deblend_batch", "status", run.output.url, "--watch"]
    process = subprocess.Popen(
        [*command, "--interval", "0.2"],
        stdout=theirs,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "TERM": "xterm"},
    )
    os.close(theirs)
    shown = b""
    while shown.count(b"tiles") < 3:
        shown += os.read(ours, 4096)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate()
    assert (process.returncode, err) == (130, "error: interrupted\n")
    assert b"\x1b[2K" in shown  # lines are cleared, not added
    os.close(ours)
