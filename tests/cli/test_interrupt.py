"""Ctrl-C, however early, is one line and exit code 130."""

from __future__ import annotations

import subprocess
import sys

import pytest

PROGRAM = """
import signal, sys

class Interrupted:
    def find_spec(self, name, path, target=None):
        if name == {module!r}:
            {act}

sys.meta_path.insert(0, Interrupted())
from deblend_batch.cli.main import run
sys.argv = ["deblend-batch", *{words!r}]
run()
"""
PRESS = "signal.raise_signal(signal.SIGINT)"
SWALLOW = f"""try:
                {PRESS}
            except KeyboardInterrupt as error:
                raise ImportError("initialization failed") from error"""


def end(module: str, words: list[str], act: str) -> subprocess.CompletedProcess[str]:
    """Run the command line, interrupted when it imports a module."""
    program = PROGRAM.format(module=module, words=words, act=act)
    return subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=False
    )


@pytest.mark.parametrize(
    ("module", "words", "act"),
    [
        ("typer", ["--help"], PRESS),
        ("typer", ["--help"], SWALLOW),
        ("deblend_batch.cli.fields", ["--help"], PRESS),
        ("deblend_batch.cli.fields", ["--help"], SWALLOW),
        ("structlog", ["models"], PRESS),
        ("deblend_batch.models", ["models"], PRESS),
        ("zarr", ["ingest", "a.fits", "a.zarr"], PRESS),
        ("torch", ["train", "out"], SWALLOW),
    ],
)
def test_while_it_imports(module: str, words: list[str], act: str) -> None:
    """Pressed, or turned into an ImportError by the module, as torch does."""
    ended = end(module, words, act)
    assert (ended.returncode, ended.stderr) == (130, "error: interrupted\n")


def test_when_all_is_done_the_exit_code_stays() -> None:
    program = """
import atexit, signal, sys
from deblend_batch.cli.main import run
sys.argv = ["deblend-batch", "--version"]
atexit.register(signal.raise_signal, signal.SIGINT)
run()
"""
    ended = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=False
    )
    assert (ended.returncode, ended.stderr) == (0, "")
    assert ended.stdout.startswith("deblend-batch ")


def test_an_error_that_is_its_own_cause_is_no_interrupt() -> None:
    """S3's errors come so; ``_perform`` is what a verb raises through."""
    program = """
from deblend_batch.cli import main
def fail(*_, **__):
    error = TypeError("no such option")
    error.__cause__ = error
    raise error
main._perform = fail
raise SystemExit(main.main(["models"]))
"""
    ended = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=False, timeout=60
    )
    assert ended.returncode == 1
    assert ended.stderr.startswith("error: internal error: TypeError: no such option")
