"""Long verbs say how far they are: plain lines where nobody watches, on a terminal a bar."""

from __future__ import annotations

import contextlib
import fcntl
import os
import pty
import re
import struct
import sys
import termios
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from deblend_batch import progress
from deblend_batch.cli.main import main
from tests.engine.finished import finish_run
from tests.support import SmallField

RATE = r"  [\d,.]+ {0}/s  ETA \d+:\d\d:\d\d$"


@pytest.fixture(autouse=True)
def always_due(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let every line be due."""
    monkeypatch.setattr(progress, "_LINE_SECONDS", 0.0)


def told(capsys: pytest.CaptureFixture[str], stage: str, unit: str) -> list[str]:
    """The lines of a stage; the counts in them grow, and none is said twice."""
    lines = capsys.readouterr().err.splitlines()
    of_stage = [line for line in lines if line.startswith(f"{stage}  {unit} ")]
    assert of_stage, lines
    assert len(set(of_stage)) == len(of_stage)
    assert re.search(RATE.format(unit), of_stage[-1]) or len(of_stage) == 1, lines
    return of_stage


def test_verify(
    small_field: SmallField, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = finish_run(small_field, str(tmp_path / "out")).output.url
    assert main(["verify", output, "--recompute", "4"]) == 0
    captured = capsys.readouterr()
    assert re.search(r"^checking  tiles 9/9", captured.err, re.MULTILINE)
    assert re.search(r"^measuring again  tiles \d/\d", captured.err, re.MULTILINE)
    assert "tiles" not in captured.out.partition("checked")[0]


def test_simulate_and_evaluate(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    field = ["field", str(tmp_path / "f.zarr"), "--size", "512", "--pairs", "6"]
    alone = ["--processes", "1"]
    assert main(["simulate", *field, "--isolated", "2", "--groups", "0", *alone]) == 0
    assert told(capsys, "drawing", "galaxies")[-1].startswith("drawing  galaxies 14/14")
    data_set = str(tmp_path / "p.zarr")
    pairs = ["pairs", data_set, "--number", "300", "--galaxies", "200", "--stamp-size", "32"]
    assert main(["simulate", *pairs, *alone]) == 0
    captured = capsys.readouterr().err
    assert re.search(r"^galaxies  drawn 200/200", captured, re.MULTILINE)
    assert re.search(r"^pairs  drawn 300/300", captured, re.MULTILINE)
    assert main(["evaluate", "--pairs", data_set, "--baseline", "split"]) == 0
    lines = told(capsys, "measuring", "pairs")
    assert [line.split()[2] for line in lines] == ["0/300", "256/300", "300/300"]


def drawn(descriptor: int) -> str:
    """What a terminal is given until its other end is closed."""
    pieces = []
    with contextlib.suppress(OSError):  # Linux ends a terminal without a writer with EIO
        while piece := os.read(descriptor, 65536):
            pieces.append(piece)
    os.close(descriptor)
    return b"".join(pieces).decode()


def test_a_terminal_has_a_bar(
    small_field: SmallField, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    output = finish_run(small_field, str(tmp_path / "out")).output.url
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 80, 0, 0))
    with ThreadPoolExecutor(1) as reader:
        shown = reader.submit(drawn, ours)
        with open(theirs, "w") as terminal:
            monkeypatch.setattr(sys, "stderr", terminal)
            assert main(["verify", output, "--recompute", "0"]) == 0
            monkeypatch.undo()
    assert "\x1b[" in shown.result()  # it is drawn anew in its place
    assert re.search(r"checking  tiles \d/9", shown.result())
