"""The command line explains itself, starts fast, and has the verbs that the README shows."""

from __future__ import annotations

import contextlib
import io
import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import click
import pytest
import structlog
import typer.main

from deblend_batch.cli.app import build_app
from deblend_batch.cli.main import main
from deblend_batch.models import list_models
from deblend_batch.version import __version__

ROOT = Path(__file__).parents[2]

VERBS = (
    *(
        "demo",
        "ingest",
        "surveys",
        "detect",
        "simulate",
        "plan",
        "run",
        "status",
        "retry",
        "verify",
    ),
    *("merge", "publish", "report", "train", "evaluate", "models"),
)


def commands() -> dict[str, click.Command]:
    """Every verb, those of ``simulate`` as ``simulate field``."""
    root = typer.main.get_command(build_app())
    found: dict[str, click.Command] = {}
    for name, command in root.commands.items():  # type: ignore[attr-defined]
        found[name] = command
        for inner, its in getattr(command, "commands", {}).items():
            found[f"{name} {inner}"] = its
    return found


def test_the_verbs_are_those_of_the_contract() -> None:
    assert {name for name in commands() if " " not in name} == set(VERBS)


@pytest.mark.parametrize("verb", [*VERBS, "simulate field", "simulate pairs"])
def test_every_verb_explains_itself(verb: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*verb.split(), "--help"]) == 0
    text = capsys.readouterr().out
    assert text.startswith(f"Usage: deblend-batch {verb}")
    for parameter in commands()[verb].params:
        if parameter.param_type_name == "option":
            assert parameter.opts[0] in text
            assert parameter.name == "help" or parameter.help


def test_alone_it_prints_its_help(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == 2
    captured = capsys.readouterr()
    assert all(re.search(rf"^  {verb} ", captured.out, re.MULTILINE) for verb in VERBS)
    assert captured.err == ""


def test_help_names_every_verb(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--help"]) == 0
    text = capsys.readouterr().out
    assert all(re.search(rf"^  {verb} +\w", text, re.MULTILINE) for verb in VERBS)
    assert "--debug" in text


@pytest.mark.parametrize(
    "verb", [name for name in VERBS if name not in {"demo", "report", "train", "simulate"}]
)
def test_what_a_script_would_read_has_json(verb: str) -> None:
    options = [name for parameter in commands()[verb].params for name in parameter.opts]
    assert "--json" in options


@pytest.mark.parametrize(
    "verb",
    [
        *("ingest", "detect", "simulate field", "simulate pairs", "publish", "report"),
        *("train", "evaluate", "plan", "run", "status", "retry", "verify"),
    ],
)
def test_what_may_be_remote_takes_storage_options(verb: str) -> None:
    options = [name for parameter in commands()[verb].params for name in parameter.opts]
    assert "--storage-options" in options


def test_help_takes_less_than_a_second() -> None:
    script = str(Path(sys.executable).parent / "deblend-batch")
    times = []
    for _ in range(3):
        started = time.monotonic()
        subprocess.run([script, "--help"], stdout=subprocess.DEVNULL, check=True)
        times.append(time.monotonic() - started)
    assert min(times) < 1


def test_simulate_alone_prints_its_help(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["simulate"]) == 2
    captured = capsys.readouterr()
    assert re.search(r"^  field .*\n  pairs ", captured.out, re.MULTILINE)
    assert captured.err == ""


def readme_commands() -> Iterator[list[str]]:
    """The words of every ``deblend-batch`` line in the README's code blocks."""
    for block in re.findall(r"```bash\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL):
        for line in block.splitlines():
            words = line.split("#")[0].split()
            if words[:1] == ["deblend-batch"]:
                yield words[1:]


@pytest.mark.parametrize("words", list(readme_commands()), ids=" ".join)
def test_the_readme_s_commands_parse(words: list[str]) -> None:
    """Names, options and number of arguments are right; nothing is run."""
    if words[0].startswith("--"):
        root = typer.main.get_command(build_app())
        assert words[0] in {option for each in root.params for option in each.opts}
        return
    command = commands()[words[0]]
    context = command.make_context(words[0], words[1:])
    assert set(context.params) >= {parameter.name for parameter in command.params} - {"help"}


def test_the_readme_shows_the_way_from_an_image_to_a_catalogue() -> None:
    shown = [words[0] for words in readme_commands()]
    own_image = ["ingest", "detect", "plan", "run", "report", "publish"]
    assert shown == ["--install-completion", "verify", "run", *own_image]


def test_the_makefile_s_verbs_exist() -> None:
    used = re.findall(r"deblend-batch (\w+)", (ROOT / "Makefile").read_text())
    assert set(used) <= set(VERBS)


def test_models_as_json(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["models", "--json"]) == 0
    cards = json.loads(capsys.readouterr().out)
    assert [card["name"] for card in cards] == [card.name for card in list_models()]
    assert [card["default"] for card in cards].count(True) == 1
    wanted = {"name", "architecture", "stamp_size", "parameters", "sha256", "has_masks", "domain"}
    assert all(wanted | {"trained_on", "test_metrics"} <= set(card) for card in cards)


def test_models_for_people(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["models"]) == 0
    text = capsys.readouterr().out
    networks = [card for card in list_models() if card.takes_pairs]
    for card in networks:
        assert card.name in text
        assert f"{card.parameters:,} parameters, {card.stamp_size} px stamps" in text
        assert f"flux mape {card.test_metrics['flux_mape']:.2%}" in text
    assert text.count("domain: PSF FWHM") == len(networks)
    assert "profile-fit" in text
    assert "fits blends of any number of members, all bands together" in text
    assert text.count("(default)") == 1


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"deblend-batch {__version__}\n"


HEAVY = {"torch", "ray", "galsim", "matplotlib", "dask", "sep", "zarr", "astropy", "scipy"}


IN_TURN = """
import json, sys
from deblend_batch.cli.main import main

heavy = set(sys.argv[1].split())
found = {}
for words in sys.argv[2:]:
    main(words.split())
    found[words] = sorted(heavy & set(sys.modules))
sys.exit(json.dumps(found))
"""


def test_it_starts_without_what_it_does_not_need() -> None:
    """Torch and Ray take seconds to import, what reads pixels another one; help must not."""
    none = ("--help", "run --help", "--version", "models", "frobnicate", "status none")
    reads_pixels = "detect none.zarr d.parquet"  # last: what is imported stays
    command = [sys.executable, "-c", IN_TURN, " ".join(HEAVY), *none, reads_pixels]
    ended = subprocess.run(command, capture_output=True, text=True, check=False)
    found = json.loads(ended.stderr.splitlines()[-1])
    needed = set(found.pop(reads_pixels))
    assert found == {words: [] for words in none}
    assert needed <= {"dask", "sep", "zarr", "astropy", "scipy"}


def test_log_lines_go_where_the_standard_error_is_now() -> None:
    """A caller in Python may have closed the stream that stood there during the last command."""
    with contextlib.redirect_stderr(io.StringIO()) as first:
        assert main(["models"]) == 0
    first.close()
    with contextlib.redirect_stderr(io.StringIO()) as second:
        structlog.get_logger().warning("quarantined", tile="y0x0")
    assert "quarantined" in second.getvalue()
    assert "tile=y0x0" in second.getvalue()


@pytest.mark.parametrize(
    ("typed", "completed"),
    [("pu", "publish"), ("simulate fi", "field"), ("run --whe", "--where")],
)
def test_the_shell_completes(typed: str, completed: str) -> None:
    words = f"deblend-batch {typed}"
    asked = {
        "_DEBLEND_BATCH_COMPLETE": "complete_bash",
        "COMP_WORDS": words,
        "COMP_CWORD": str(len(words.split()) - 1),
    }
    command = Path(sys.executable).parent / "deblend-batch"
    ended = subprocess.run(
        [command], env={**os.environ, **asked}, capture_output=True, text=True, check=True
    )
    assert ended.stdout.split() == [completed]


def test_the_package_runs_as_a_module() -> None:
    ended = subprocess.run(
        [sys.executable, "-m", "deblend_batch", "--version"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert ended.stdout == f"deblend-batch {__version__}\n"
