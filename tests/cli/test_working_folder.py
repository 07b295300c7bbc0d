"""The folder in which a command is given holds data, whatever its files are called."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from deblend_batch.cli.main import main
from deblend_batch.cluster.connection import _away_from_data
from tests.support import SmallField

NAMES = ("zarr", "queue", "random", "numpy", "select", "multiprocessing", "deblend_batch")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in NAMES:
        (tmp_path / f"{name}.py").write_text("raise SystemExit('it was run')\n")
    return tmp_path


def test_no_file_of_the_working_folder_is_run(folder: Path) -> None:
    command = Path(sys.executable).with_name("deblend-batch")
    words = [str(command), "status", "none"]
    ended = subprocess.run(words, cwd=folder, capture_output=True, text=True, check=False)
    assert (ended.returncode, ended.stdout) == (2, "")
    assert ended.stderr.startswith("error: none: not the output of a run")


@pytest.mark.parametrize(
    ("switches", "own"), [((), ()), (("-P",), ("deblend_batch",))], ids=["as it is", "-P"]
)
def test_python_m_runs_none_either(
    switches: tuple[str, ...], own: tuple[str, ...], tmp_path: Path
) -> None:
    """Every module that the command has loaded, and that Python has not before it looks at the folder."""
    code = "import sys, deblend_batch.cli.main; print(*{name.partition('.')[0] for name in sys.modules})"
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    others = {*NAMES, *shown.stdout.split()} - {"deblend_batch"}
    for name in (*others, *own):
        (tmp_path / f"{name}.py").write_text("raise SystemExit('it was run')\n")
    words = [sys.executable, *switches, "-m", "deblend_batch", "status", "none"]
    ended = subprocess.run(words, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert (ended.returncode, ended.stdout) == (2, "")
    assert ended.stderr.startswith("error: none: not the output of a run")


def test_ray_is_started_away_from_it(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RAY_JOB_CONFIG_JSON_ENV_VAR", raising=False)
    monkeypatch.chdir(folder)
    with _away_from_data():
        assert os.getcwd() == "/"
    assert os.getcwd() == str(folder)
    monkeypatch.setenv("RAY_JOB_CONFIG_JSON_ENV_VAR", "{}")
    with _away_from_data():
        assert os.getcwd() == str(folder)


@pytest.mark.parametrize(
    ("settings", "shown"),
    [
        ({"PYTHONIOENCODING": "ascii"}, b"\\xe9"),
        ({"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}, "é".encode()),
    ],
)
def test_names_are_utf_8_in_every_locale_and_shown_as_far_as_an_encoding_goes(
    settings: dict[str, str], shown: bytes, folder: Path
) -> None:
    command = Path(sys.executable).with_name("deblend-batch")
    words = [str(command), "status", "é"]
    environment = {**os.environ, **settings}
    ended = subprocess.run(words, cwd=folder, capture_output=True, env=environment, check=False)
    assert ended.returncode == 2
    assert ended.stderr.startswith(b"error: " + shown + b": not the output of a run")


def test_a_process_without_memory_is_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    """Where the limit strikes depends on the machine: in a library's import, it is that library's end."""

    def full(*_: object) -> None:
        raise MemoryError

    monkeypatch.setattr("deblend_batch.config.read_mapping", full)
    (tmp_path / "c.yaml").write_text("field: f.zarr\n")
    assert main(["plan", str(tmp_path / "c.yaml")]) == 2
    error = capsys.readouterr().err
    assert error.splitlines()[-1].startswith("error: no memory left for this process; free some")


def test_a_working_folder_that_is_gone_is_one_line(small_field: SmallField, tmp_path: Path) -> None:
    config = tmp_path / "c.yaml"
    config.write_text(yaml.safe_dump({**small_field.config(f"{tmp_path}/out"), "output": "out"}))
    (tmp_path / "in").mkdir()
    command = Path(sys.executable).with_name("deblend-batch")
    line = f"rmdir $PWD; exec {command} plan {config}"
    ended = subprocess.run(
        ["/bin/bash", "-c", line], cwd=tmp_path / "in", capture_output=True, text=True, check=False
    )
    assert (ended.returncode, ended.stdout) == (2, "")
    message = "error: the working folder has been removed; change to another one"
    assert ended.stderr.splitlines()[-1].startswith(message)
