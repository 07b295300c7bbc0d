"""What a verb says stands alone: nothing of a library's above it, and no error where nobody reads it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.limited import Ended, run_limited

COMMAND = [str(Path(sys.executable).parent / "deblend-batch")]

_NOISY = """
import logging, os, sys, warnings
import numpy as np
from deblend_batch.cli.main import run
from deblend_batch.engine.account.reader import StatusReader
from deblend_batch.errors import CatalogError

class Dropped:
    def __del__(self):
        raise ValueError("noise of a finaliser")

def read(self):
    warnings.simplefilter("always")
    warnings.warn("noise of a warning", stacklevel=1)
    np.float32(1) / np.float32(0)
    logging.getLogger("zarr").error("noise of a logger")
    logging.getLogger("fsspec").addHandler(logging.StreamHandler())
    logging.getLogger("fsspec").critical("noise of a handler")
    from astropy import log
    from astropy.utils.exceptions import AstropyUserWarning
    warnings.warn("noise of astropy", AstropyUserWarning, stacklevel=1)
    log.warning("noise of astropy's logger")
    Dropped()
    raise CatalogError("out: what is wrong; how to mend it")

StatusReader.read = read
sys.argv = ["deblend-batch", "status", "out", *sys.argv[1:]]
run()
"""
NOISES = (*("a warning", "a logger", "a handler", "astropy", "astropy's logger", "a finaliser"),)


def noisy(*words: str) -> Ended:
    """Run a verb in which libraries warn, log and fail."""
    return run_limited(["python", "-c", _NOISY, *words])


def test_nothing_of_a_library_stands_above_the_line() -> None:
    ended = noisy()
    assert (ended.code, ended.out) == (2, "")
    assert ended.err == "error: out: what is wrong; how to mend it\n"


def test_debug_shows_what_libraries_say() -> None:
    ended = noisy("--debug")
    assert ended.code == 2
    for noise in NOISES:
        assert f"noise of {noise}" in ended.err
    assert "divide by zero" in ended.err
    assert ended.err.endswith("error: out: what is wrong; how to mend it\n")


def shell(line: str) -> subprocess.CompletedProcess[str]:
    """Run a line of bash, in which DB is the command line."""
    script = f'DB="{COMMAND[0]}"; {line}'
    return subprocess.run(["bash", "-c", script], capture_output=True, text=True, check=False)


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("$DB models >&-; echo $? >&2", "0\n"),
        ("$DB models | true; echo ${PIPESTATUS[0]} >&2", "141\n"),
        ("{ $DB status /nowhere 2>&1; echo $? >&3; } 3>&2 | true", "141\n"),
        ("$DB status /nowhere >&- 2>&- <&-; echo $? >&2", "2\n"),
        (
            "$DB models >/dev/full; echo $? >&2",
            "error: no space left on the device; free some and run again\n2\n",
        ),
    ],
    ids=["closed", "gone", "errors gone", "all closed", "full"],
)
def test_a_standard_stream_that_nobody_reads_is_no_bug_of_ours(line: str, said: str) -> None:
    ended = shell(line)
    assert (ended.stdout, ended.stderr) == ("", said)
