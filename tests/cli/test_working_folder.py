"""The folder in which a command is given holds data, whatever its files are called."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from deblend_batch.cluster.connection import _away_from_data

NAMES = ("zarr", "queue", "random", "numpy", "select", "multiprocessing", "deblend_batch")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in NAMES:
        (tmp_path / f"{name}.py").write_text("raise SystemExit('it was run')\n")
    return tmp_path


def test_no_file_of_the_working_folder_is_run(folder: Path) -> None:
    command = Path(sys.executable).with_name("deblend-batch")
    words = [str(command), "plan", "none.yaml"]
    ended = subprocess.run(words, cwd=folder, capture_output=True, text=True, check=False)  # noqa: S603
    assert (ended.returncode, ended.stdout) == (2, "")
    assert ended.stderr.startswith("error: none.yaml: ")


def test_ray_is_started_away_from_it(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RAY_JOB_CONFIG_JSON_ENV_VAR", raising=False)
    monkeypatch.chdir(folder)
    with _away_from_data():
        assert os.getcwd() == "/"
    assert os.getcwd() == str(folder)
    monkeypatch.setenv("RAY_JOB_CONFIG_JSON_ENV_VAR", "{}")
    with _away_from_data():
        assert os.getcwd() == str(folder)


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "utf-8"])
def test_an_output_that_lacks_a_letter_shows_an_escape(encoding: str, folder: Path) -> None:
    command = Path(sys.executable).with_name("deblend-batch")
    words = [str(command), "plan", "星é.yaml"]
    environment = {**os.environ, "PYTHONIOENCODING": encoding}
    ended = subprocess.run(  # noqa: S603
        words, cwd=folder, capture_output=True, env=environment, check=False
    )
    assert ended.returncode == 2
    shown = "星é.yaml".encode(encoding, "backslashreplace")
    assert ended.stderr.startswith(b"error: " + shown)


@pytest.mark.parametrize("locale", ["C", "POSIX"])
def test_names_are_utf_8_in_every_locale(locale: str, folder: Path) -> None:
    command = Path(sys.executable).with_name("deblend-batch")
    environment = {**os.environ, "LC_ALL": locale, "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    (folder / "é.yaml").write_text("field: a\nfield: b\n")
    ended = subprocess.run(  # noqa: S603
        [str(command), "plan", "é.yaml"],
        cwd=folder,
        capture_output=True,
        env=environment,
        check=False,
    )
    assert ended.returncode == 2
    assert "é.yaml: key 'field' is given twice".encode() in ended.stderr
