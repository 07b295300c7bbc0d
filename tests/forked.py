"""What a process does that is forked to be a program: most imports that it needs are done."""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

IMPORTED = (
    "deblend_batch.cli.app",
    "deblend_batch.detections.table",
    "deblend_batch.engine.audit.verify",
    "deblend_batch.engine.plan",
    "deblend_batch.engine.run",
    "deblend_batch.ingest.ingest",
)
"""Before the first fork: what reads files that nobody should trust."""


def play(
    words: Sequence[str],
    out: Path,
    err: Path,
    environment: Mapping[str, str],
    cwd: Path | None,
) -> None:
    """Be ``python -c CODE`` or ``deblend-batch``, with these streams, environment and working folder."""
    for number, path in enumerate((Path(os.devnull), out, err)):
        opened = os.open(path, os.O_WRONLY if number else os.O_RDONLY)
        os.dup2(opened, number)
        os.close(opened)
    os.environ.clear()
    os.environ.update(environment)
    tempfile.tempdir = None  # it depends on the environment
    if cwd is not None:
        os.chdir(cwd)
        sys.path.insert(0, str(cwd))
    if words[0] == "deblend-batch":
        from deblend_batch.cli.main import run

        sys.argv = list(words)
        run()
    _, switch, code, *arguments = words
    sys.argv = [switch, *arguments]
    exec(compile(code, "<string>", "exec"), {"__name__": "__main__"})
