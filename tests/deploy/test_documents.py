"""What the pages of deploy/ tell a user to type, and what docs/security.md says is tested."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import Any

import pytest
import typer
from ray.dashboard.modules.job.cli import job_cli_group
from ray.scripts.scripts import cli as ray_cli

from deblend_batch.cli.app import build_app
from tests.deploy.reading import DEPLOY, KUBERNETES, ROOT, documents

PAGES = [
    DEPLOY / "README.md",
    DEPLOY / "iam" / "README.md",
    ROOT / "docs" / "security.md",
    ROOT / "docs" / "monitoring.md",
]
BYTECODE = DEPLOY / "__pycache__"  # of lock.py, which a test imports


def commands(page: Path) -> list[list[str]]:
    """Return the commands of a page, in its shell blocks and between its words."""
    text = page.read_text()
    blocks = re.findall(r"^```bash\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    blocks += [f"{inline}\n" for inline in re.findall(r"`((?:ray|deblend-batch) [^`\n]+)`", text)]
    text = re.sub(r"\\\n\s*", "", "".join(blocks))
    steps = [step for line in text.splitlines() for step in re.split(r" (?:\||&&) ", line)]
    words = [shlex.split(step, comments=True) for step in steps]
    return [[word for word in step if "=" not in word or word[0] == "-"] for step in words if step]


TYPED = [(page, command) for page in PAGES if page.is_file() for command in commands(page)]


def command_named(words: list[str]) -> tuple[Any, list[str]]:
    """Return the real command that the words name, and its arguments."""
    found: Any = typer.main.get_command(build_app()) if words[0] == "deblend-batch" else ray_cli
    if words[:2] == ["ray", "job"]:
        found, words = job_cli_group, words[1:]
    words = words[1:]
    while hasattr(found, "commands"):  # a click.Group, or the copy of it that typer brings
        assert words[0] in found.commands, f"no command {words[0]!r}"
        found, words = found.commands[words[0]], words[1:]
    return found, words


@pytest.mark.parametrize(
    "words",
    [words for _, words in TYPED if words and words[0] in {"ray", "deblend-batch"}],
    ids=" ".join,
)
def test_a_command_exists_with_its_options(words: list[str]) -> None:
    command, rest = command_named(words)
    known = {name for parameter in command.params for name in parameter.opts}
    own = rest[: rest.index("--")] if "--" in rest else rest
    assert [word for word in own if word.startswith("-") and word.split("=")[0] not in known] == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_paths_on_a_page_exist(page: Path) -> None:
    named = re.findall(
        r"(?:^|[\s`(/])((?:deploy|docs|jobs|tests)/[\w./*-]*\w)", page.read_text(), re.MULTILINE
    )
    assert named
    assert [path for path in named if not list(ROOT.glob(path))] == []


def test_the_table_of_files_is_whole() -> None:
    page = (DEPLOY / "README.md").read_text()
    folders = sorted(path.name for path in DEPLOY.iterdir() if path.is_dir() and path != BYTECODE)
    overlays = [path.name for path in KUBERNETES.glob("overlays/*-cluster")]
    for name in [*folders, *overlays, "Dockerfile"]:
        assert name in page, name


def test_tests_that_the_security_page_names_exist() -> None:
    page = (ROOT / "docs" / "security.md").read_text()
    named = re.findall(r"`(tests/[\w/]+\.py)::(\w+)`", page)
    assert len(named) > 10
    missing = [name for path, name in named if f"def {name}(" not in (ROOT / path).read_text()]
    assert missing == []


def test_no_file_turns_the_token_off_or_opens_the_dashboard() -> None:
    files = [ROOT / "ray-cluster.yaml", *(path for path in DEPLOY.rglob("*") if path.is_file())]
    files = [path for path in files if path.parent != BYTECODE]
    for path in files:
        text = path.read_text()
        assert not re.search(r"RAY_AUTH_MODE[=: ]+['\"]?disabled", text), path
        if "dashboard-host" in text and path.name != "ray-cluster.yaml":
            assert not re.search(r"dashboard-host[=: ]+(?!127\.0\.0\.1)", text), path
    opened = [
        path for path in files if re.search(r"dashboard-host[=: ]+0\.0\.0\.0", path.read_text())
    ]
    assert opened == [
        KUBERNETES / "base" / "ray-cluster.yaml"
    ]  # where a policy takes loopback's place
    assert any(
        each["kind"] == "NetworkPolicy"
        for each in documents(KUBERNETES / "base" / "network-policies.yaml")
    )
