"""``--log-format json``: every line that a program reads is an object."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest

from deblend_batch.cli.main import main
from tests.limited import run_limited

COMMAND = [sys.executable, "-m", "deblend_batch"]


def objects(text: str) -> list[dict[str, Any]]:
    """Read one object a line; whatever is none fails."""
    return [json.loads(line) for line in text.splitlines()]


def test_a_mistake_is_an_object_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DEBLEND_BATCH_LOG", "json")
    ended = run_limited(["deblend-batch", "plan", str(tmp_path / "none.yaml"), "--debug"])
    (line,) = objects(ended.err)
    assert ended.code == line["exit_code"] == 2
    assert line["level"] == "error"
    assert str(tmp_path / "none.yaml") in line["event"]
    assert "NotFoundError" in line["exception"]
    assert ended.out == ""


def test_warnings_of_libraries_are_objects() -> None:
    program = (
        "import logging, warnings; from deblend_batch.logs import configure_logs;"
        "configure_logs('json', run='a-1'); warnings.warn('old', stacklevel=1);"
        "logging.getLogger('botocore').error('gone %d', 3)"
    )
    warned, gone = objects(run_limited(["python", "-c", program]).err)
    assert "UserWarning: old" in warned["event"]
    assert (gone["event"], gone["logger"], gone["level"]) == ("gone 3", "botocore", "error")
    assert gone["run"] == warned["run"] == "a-1"


@pytest.mark.parametrize(
    "words", [["models", "--log-format", "xml"], ["models", "--log-format"]], ids=["xml", "none"]
)
def test_another_format_is_refused(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(words) == 2
    assert capsys.readouterr().err.endswith("is not a format; give text or json\n")


def test_the_text_is_for_people_by_default(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["plan", str(tmp_path / "none.yaml")]) == 2
    assert capsys.readouterr().err.startswith("error: ")
