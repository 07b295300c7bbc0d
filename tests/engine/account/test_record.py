"""run.json: the release is part of what decides the rows, and every version at work is written down."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from deblend_batch.catalog.ledger import Ledger
from deblend_batch.catalog.output import Output
from deblend_batch.catalog.records import State
from deblend_batch.config import RunConfig, make_config
from deblend_batch.engine.account.record import RunRecord
from deblend_batch.engine.account.tally import Tally
from deblend_batch.engine.inputs import fingerprint as fingerprint_module
from deblend_batch.engine.inputs.count import Count
from deblend_batch.engine.inputs.fingerprint import fingerprint_parts, release
from deblend_batch.errors import OutputConflictError
from deblend_batch.models import find_card


@pytest.fixture
def config(tmp_path: Path) -> RunConfig:
    """A config; of its inputs nothing is read here."""
    return make_config({"field": "/f.zarr", "detections": "/d.csv", "output": f"{tmp_path}/out"})


def claim(config: RunConfig) -> RunRecord:
    """Start the run, or take it up."""
    card = replace(find_card(config.model), sha256="sha256:0")
    parts = fingerprint_parts(config, [], [], card)
    return RunRecord.claim(Ledger(Output(config.output)), config, parts)


@pytest.mark.parametrize(
    ("version", "part"),
    [
        ("0.1.0", "0.1"),
        ("0.1.12", "0.1"),
        ("1.2.0rc1", "1.2"),
        ("0.2.0.dev3+g1", "0.2"),
        ("3", "3"),
    ],
)
def test_a_release_is_two_numbers(version: str, part: str) -> None:
    assert release(version) == part


def test_another_release_is_refused_and_both_versions_are_named(
    config: RunConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fingerprint_module, "__version__", "0.1.3")
    claim(config)
    monkeypatch.setattr(fingerprint_module, "__version__", "0.2.0")
    with pytest.raises(
        OutputConflictError,
        match=r"out: begun by deblend-batch 0.1.3, and this is 0.2.0, whose rows may differ; "
        r"give another output, or finish it with 0.1.3$",
    ):
        claim(config)


def test_a_patch_finishes_the_run_and_is_written_down(
    config: RunConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    for version in ("0.1.3", "0.1.3", "0.1.4", "0.1.5"):
        monkeypatch.setattr(fingerprint_module, "__version__", version)
        claim(config).save("running", Tally())
    run = Ledger(Output(config.output)).read_run()
    assert run["versions"]["deblend_batch"] == "0.1.5"
    assert [each["deblend_batch"] for each in run["earlier_versions"]] == ["0.1.3", "0.1.4"]
    assert run["fingerprint_of"]["release"] == "0.1"


def test_until_pairs_are_counted_the_totals_of_the_last_start_stand(config: RunConfig) -> None:
    counted = Tally(Count(5, 3), Count(2, 1), counted=True)
    claim(config).save("interrupted", counted)
    claim(config).save("running", Tally())
    assert Ledger(Output(config.output)).read_run()["totals"] == counted.totals()


@pytest.mark.parametrize("state", ["complete", "complete_with_quarantine", "failed"])
def test_a_start_that_did_not_begin_leaves_the_record_alone(
    config: RunConfig, state: State
) -> None:
    claim(config).save(state, Tally(counted=True))
    before = Ledger(Output(config.output)).read_run()
    claim(config).abandon("interrupted", Tally())
    assert Ledger(Output(config.output)).read_run() == before


def test_a_start_that_ended_early_says_why(config: RunConfig) -> None:
    claim(config).abandon("failed", Tally(), ValueError("first line\nsecond"))
    run = Ledger(Output(config.output)).read_run()
    assert (run["state"], run["error"]) == ("failed", "ValueError: first line")
