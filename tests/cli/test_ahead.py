"""What workers are forked from is started before the command line is read, and only for runs that need it."""

from __future__ import annotations

from pathlib import Path

import pytest

from deblend_batch.cli import ahead, runs
from deblend_batch.cli.ahead import Ahead
from deblend_batch.cli.main import main
from deblend_batch.cluster import naming


class Counting:
    """Counts who holds it."""

    def __init__(self) -> None:
        self.holders = self.held = 0

    def hold(self) -> None:
        self.holders += 1
        self.held += 1

    def release(self) -> None:
        self.holders -= 1


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Counting:
    counting = Counting()
    monkeypatch.setattr(ahead, "FORK_SERVER", counting)
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.setattr(naming, "has_joined", lambda: False)  # other tests of this process may have
    return counting


@pytest.mark.parametrize(
    ("words", "started"),
    [
        ("run c.yaml", 1),
        ("run --where local c.yaml", 1),
        ("run c.yaml --where ray", 0),
        ("run --where=ray c.yaml", 0),
        ("run c.yaml --dry-run", 0),
        ("run --help", 0),
        ("plan c.yaml", 0),
        ("", 0),
    ],
)
def test_it_is_started_for_runs_of_this_machine(server: Counting, words: str, started: int) -> None:
    Ahead().start(words.split())
    assert server.holders == started


def test_it_is_not_started_where_the_environment_names_a_cluster(
    server: Counting, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RAY_ADDRESS", "127.0.0.1:1")
    Ahead().start(["run", "c.yaml"])
    assert server.held == 0


def test_it_is_held_and_released_once(server: Counting) -> None:
    one = Ahead()
    one.start(["run", "c.yaml"])
    one.start(["run", "c.yaml"])
    assert server.holders == 1
    one.end()
    one.end()
    assert server.holders == 0


@pytest.mark.parametrize(("where", "left"), [("ray", 0), ("local", 1)])
def test_a_config_that_asks_for_ray_ends_it(
    server: Counting,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    where: str,
    left: int,
) -> None:
    """And so it is before the run does anything, be it only to find that its field is not there."""
    one = Ahead()
    for module in (ahead, runs):
        monkeypatch.setattr(module, "AHEAD", one)
    config = tmp_path / "c.yaml"
    config.write_text(
        f"field: {tmp_path}/none.zarr\ndetections: {tmp_path}/none.csv\noutput: {tmp_path}/out\n"
        f"engine: {{where: {where}}}\n"
    )
    assert main(["run", str(config)]) == 2
    assert "none.zarr" in capsys.readouterr().err
    assert (server.held, server.holders) == (1, left)
