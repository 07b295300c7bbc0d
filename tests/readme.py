"""The README's snippets, and a shell that runs them as a reader would."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]


def snippets(language: str) -> list[str]:
    """Return the code blocks of a language, in their order."""
    text = (ROOT / "README.md").read_text()
    return re.findall(rf"```{language}\n(.*?)```", text, re.DOTALL)


def snippet(language: str, part: str) -> str:
    """Return the only code block of a language with a text in it."""
    (found,) = [block for block in snippets(language) if part in block]
    return found


def environment(home: Path) -> dict[str, str]:
    """Return the environment of someone who has just installed this: nothing of Ray's, nor of OpenMP's."""
    ours = ("RAY_", "OMP_")
    kept = {name: value for name, value in os.environ.items() if not name.startswith(ours)}
    return {
        **kept,
        "HOME": str(home),
        "PATH": f"{sys.prefix}/bin{os.pathsep}{os.environ['PATH']}",
        "PYTHONPATH": f"{ROOT}{os.pathsep}{os.environ.get('PYTHONPATH', '')}",
        "RAY_USAGE_STATS_ENABLED": "0",
    }


def run_as_printed(words: list[str], folder: Path) -> str:
    """Run a program in a folder that has a virtual environment; return what it printed."""
    link = folder / ".venv"
    if not link.exists():
        link.symlink_to(sys.prefix)
    ended = subprocess.run(
        words,
        cwd=folder,
        env=environment(folder),
        capture_output=True,
        text=True,
        check=False,
    )
    assert ended.returncode == 0, ended.stdout + ended.stderr
    return ended.stdout + ended.stderr
