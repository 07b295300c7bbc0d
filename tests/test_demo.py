"""The demo, small: from nothing to a catalogue with its report, as good as the README says."""

from __future__ import annotations

from pathlib import Path

import pyarrow.parquet as pq
import pytest
import yaml

from deblend_batch.catalog.output import Output
from deblend_batch.cli.main import main
from deblend_batch.demo import DemoResult, run_demo
from deblend_batch.engine.audit.verify import verify_run
from deblend_batch.errors import ConfigError, OutputConflictError
from deblend_batch.simulate.fields.field import simulate_field
from tests.readme import run_as_printed, snippet
from tests.support import read_shards

SMALL = {"size": 640, "pairs": 20}


@pytest.fixture(scope="module")
def demo(
    cluster: None, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, DemoResult, list[str]]:
    """A folder, what the demo returned, and what it said."""
    folder = tmp_path_factory.mktemp("demo") / "new" / "demo"
    said: list[str] = []
    return folder, run_demo(str(folder), **SMALL, say=said.append), said


@pytest.mark.slow
def test_the_demo_finds_and_measures_sources(demo: tuple[Path, DemoResult, list[str]]) -> None:
    folder, result, said = demo
    found = verify_run(Output(str(folder / "run")))
    assert (found.problems, found.quarantined) == ((), 0)
    assert result.sources == len(read_shards(str(folder / "run"))) >= 1.5 * SMALL["pairs"]
    assert result.without_truth < 0.3 * result.sources
    assert result.missed < SMALL["pairs"]
    assert 0 < result.flux_mape < 0.4
    assert abs(result.bias) < 0.2
    assert 0 < result.sigma < 0.6
    assert 0.2 < result.coverage < 0.95
    assert result.sources_per_second > 0
    assert result.seconds > 0
    steps = ["simulating", "finding", "measuring", "comparing"]
    assert [line.split()[0] for line in said] == steps


@pytest.mark.slow
def test_the_demo_s_files_are_where_it_says(demo: tuple[Path, DemoResult, list[str]]) -> None:
    folder, result, _ = demo
    assert Path(result.folder) == folder
    assert Path(result.report).read_text().startswith("<!DOCTYPE html>")
    assert len(list(Path(result.shards).glob("*.parquet"))) > 0
    config = yaml.safe_load(Path(result.config).read_text())
    assert set(config) == {"field", "detections", "output", "engine"}
    assert main(["run", result.config]) == 0
    shown = dict(result.to_rows())
    assert shown["sources"].startswith(f"{result.sources:,} found")
    assert shown["flux error"].startswith(f"{100 * result.flux_mape:.1f} %")
    assert shown["report"] == result.report


@pytest.mark.slow
def test_the_readme_goes_on_from_it(demo: tuple[Path, DemoResult, list[str]]) -> None:
    folder, _, _ = demo
    said = run_as_printed(["bash", "-e", "-c", snippet("bash", "source .venv")], folder.parent)
    assert "sound" in said
    assert "nothing left to do" in said


class _SimulatedError(Exception):
    pass


def _stop_once_simulated(said: str) -> None:
    if said.startswith("finding"):
        raise _SimulatedError


@pytest.mark.slow
def test_running_it_again_makes_it_anew(
    demo: tuple[Path, DemoResult, list[str]], tmp_path: Path
) -> None:
    """Another seed gives another field in the same folder, and nothing of the first is left."""
    folder, _, _ = demo
    with pytest.raises(_SimulatedError):
        run_demo(str(folder), size=512, pairs=10, seed=1, say=_stop_once_simulated)
    expected = simulate_field(
        str(tmp_path / "field.zarr"),
        shape_yx=(512, 512),
        n_pairs=10,
        n_isolated=3,
        n_groups=0,
        seed=1,
        processes=1,
    )
    truth = Path(expected.truth_url).name
    assert pq.read_table(folder / truth).equals(pq.read_table(expected.truth_url))
    assert sorted(path.name for path in folder.iterdir()) == sorted(
        ["config.yaml", *(path.name for path in tmp_path.iterdir())]
    )


@pytest.mark.parametrize("name", ["thesis.tex", "config.yaml"])
def test_a_folder_of_something_else_is_left_alone(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_text("field: mine.zarr\n")
    with pytest.raises(
        OutputConflictError, match=rf"not empty \({name} is there\) and not an earlier demo; give"
    ):
        run_demo(str(tmp_path))
    assert (tmp_path / name).read_text() == "field: mine.zarr\n"


def test_a_remote_folder_is_refused() -> None:
    with pytest.raises(ConfigError, match="s3://bucket/demo: the demo writes to a local folder"):
        run_demo("s3://bucket/demo")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--size", "100"], "512"),
        (["--pairs", "3"], "10"),
        (["--seed", "-1"], "0"),
        (["--pairs", "100000", "--size", "512"], "are too dense"),
    ],
    ids=["too small", "too few", "no seed", "too dense"],
)
def test_what_cannot_be_simulated_is_one_line(
    words: list[str], message: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    assert main(["demo", "--output", str(tmp_path / "demo"), *words]) == 2
    errors = [line for line in capfd.readouterr().err.splitlines() if line.startswith("error: ")]
    assert len(errors) == 1
    assert message in errors[0]
