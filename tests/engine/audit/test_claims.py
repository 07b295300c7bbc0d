"""``run.json`` and the receipts say what is so: of themselves, of each other, and of what was counted."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from deblend_batch import storage
from deblend_batch.catalog.ledger import Ledger, fingerprint, run_id
from deblend_batch.catalog.output import Output
from deblend_batch.engine.account.reader import read_status
from deblend_batch.engine.audit.verify import verify_run
from deblend_batch.errors import CatalogError, IrregularFileError, TooLargeError, UserError
from tests.catalog.test_typed import mutated
from tests.engine.finished import finish_run
from tests.limited import run_limited
from tests.support import SmallField

TILE = "y0000x0000"


@pytest.fixture(scope="module")
def template(small_field: SmallField, tmp_path_factory: pytest.TempPathFactory) -> Ledger:
    """A complete run, which tests leave as it is."""
    return finish_run(small_field, str(tmp_path_factory.mktemp("finished") / "out"))


@pytest.fixture
def run(template: Ledger, tmp_path: Path) -> Ledger:
    """A complete run of a test's own."""
    return Ledger(Output(str(shutil.copytree(template.output.url, tmp_path / "out"))))


def put(*keys: str, value: Any) -> Callable[[dict[str, Any]], None]:
    """Set a value somewhere in a document."""

    def spoil(document: dict[str, Any]) -> None:
        for key in keys[:-1]:
            document = document[key]
        document[keys[-1]] = value

    return spoil


@pytest.mark.parametrize(
    ("spoil", "problem"),
    [
        (put("fingerprint", value="0" * 64), "its fingerprint is not that of what it lists"),
        (put("fingerprint_of", "model", value="0" * 64), "its fingerprint is not that of what"),
        (put("fingerprint_of", "fields", value=["x"]), "its fingerprint is not that of what"),
        (put("fingerprint_of", "more", value=1), "its fingerprint is not that of what it lists"),
        (put("run", value="out-00000000"), "its id is not that of its output and fingerprint"),
        (put("config", "output", value="/elsewhere"), "its id is not that of its output"),
        (put("config", "tiles", "size", value=300), "tiles in its config and in fingerprint_of"),
        (put("config", "pairs", "max_separation", value=1.0), "pairs in its config and in finger"),
        (put("config", "columns", value={"id": "n"}), "columns in its config and in fingerprint"),
        (put("config", "masks", value=True), "masks in its config and in fingerprint_of differ"),
        (put("config", "pairs", "table", value="/x.csv"), "pairs.table in its config"),
        (put("config", "model_sha256", value="0" * 64), "model_sha256 in its config and in finger"),
        (put("config", "zork", value=1), "its config cannot be used"),
        (put("versions", "deblend_batch", value="9.9.9"), "its versions are not those of the"),
        (put("state", value="complete_with_quarantine"), "its state is complete_with_quarantine"),
        (put("totals", "pairs", "expected", value=94), "totals do not add up"),
        (put("totals", "pairs", "pending", value=1), "totals do not add up"),
        (put("totals", "rows", value=1), "totals.rows is not what was found"),
        (put("totals", "tiles", "written", value=8), "totals.tiles is not what was found"),
        (put("totals", "flags", value={"EDGE": 10**6}), "totals.flags is not what was found"),
        (put("totals", "detections", "used", value=1), "totals.detections is not what was found"),
    ],
)
def test_a_run_json_that_was_altered_is_found(
    run: Ledger, spoil: Callable[[dict[str, Any]], None], problem: str
) -> None:
    document: dict[str, Any] = dict(run.read_run())
    spoil(document)
    run.write_run(document)
    found = verify_run(run.output, recompute=0)
    assert found.exit_code == 2
    assert any(line.startswith(f"run.json: {problem}") for line in found.problems), found.problems


def test_a_receipt_of_another_run_is_found(run: Ledger) -> None:
    for change in ({"fingerprint": "0" * 64}, {"model_sha256": "0" * 64}):
        run.replace_receipt(replace(run.read_receipt("y0001x0001"), **change))  # type: ignore[arg-type]
        (problem,) = verify_run(run.output, recompute=0).problems
        assert problem.startswith("receipt y0001x0001: of another run (")


def test_a_receipt_that_counts_other_flags_is_found(run: Ledger) -> None:
    run.replace_receipt(replace(run.read_receipt(TILE), flags={"EDGE": 10**6}))
    found = verify_run(run.output, recompute=0)
    assert any("its receipt counts other flags" in line for line in found.problems)


def test_who_rewrites_all_alike_is_found_by_the_inputs_alone(run: Ledger) -> None:
    """Without a signature the ledger cannot tell; measuring again can, where the inputs are there."""
    document: dict[str, Any] = dict(run.read_run())
    document["fingerprint_of"]["fields"] = ["0" * 64]
    document["fingerprint"] = mark = fingerprint(document["fingerprint_of"])
    document["run"] = run_id(document["config"]["output"], mark)
    run.write_run(document)
    for tile in run.output.receipts():
        run.replace_receipt(replace(run.read_receipt(tile), fingerprint=mark))
    found = verify_run(run.output)
    assert found.problems == ()
    assert found.notes == ("not recomputed: fields changed since the run",)


@given(st.data())
@settings(max_examples=25, deadline=None)
def test_whatever_a_run_json_says_is_a_finding_or_one_line(
    template: Ledger, data: st.DataObject
) -> None:
    with tempfile.TemporaryDirectory() as folder:
        run = Ledger(Output(str(shutil.copytree(template.output.url, f"{folder}/out"))))
        storage.write_bytes(run.output.run_url, data.draw(mutated(dict(run.read_run()))))
        for use in (lambda url: verify_run(url, recompute=1), read_status):
            said = ""
            try:
                use(run.output)
            except UserError as error:
                said = str(error)
            assert "\n" not in said


def replaced(path: Path, kind: str) -> None:
    """Put something that has no end, or is not the output's own, in a file's place."""
    path.unlink(missing_ok=True)
    path.parent.mkdir(exist_ok=True)
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "device":
        path.symlink_to("/dev/zero")
    elif kind == "folder":
        path.mkdir()
    elif kind == "link":
        outside = path.parent.parent.parent / "outside"
        outside.write_bytes(b"{}")
        path.symlink_to(outside)
    else:
        with path.open("wb") as file:
            file.truncate(1 << 40)


@pytest.mark.parametrize("kind", ["pipe", "device", "link", "large"])
@pytest.mark.parametrize("what", ["shards/{}.parquet", "ledger/{}.json", "quarantine/{}.json"])
def test_a_file_without_an_end_is_one_problem_of_several(run: Ledger, what: str, kind: str) -> None:
    path = Path(run.output.url, what.format(TILE))
    replaced(path, kind)
    storage.remove(run.output.shard_url("y0001x0001"))
    found = verify_run(run.output, recompute=0)
    assert any(TILE in line for line in found.problems)
    assert any("y0001x0001" in line for line in found.problems)
    assert read_status(run.output).pairs_expected == 93


@pytest.mark.parametrize(
    ("kind", "error"),
    [
        ("pipe", IrregularFileError),
        ("device", IrregularFileError),
        ("link", IrregularFileError),
        ("large", TooLargeError),
    ],
)
@pytest.mark.parametrize("name", ["run.json", "index/field.parquet"])
def test_where_no_more_can_be_said_it_is_one_line(
    run: Ledger, name: str, kind: str, error: type[Exception]
) -> None:
    replaced(Path(run.output.url, name), kind)
    expected = CatalogError if (name, kind) == ("index/field.parquet", "large") else error
    for use in (verify_run, read_status):
        with pytest.raises(expected) as caught:
            use(run.output)
        assert "\n" not in str(caught.value)


def test_verifying_a_hostile_output_takes_no_memory(run: Ledger) -> None:
    replaced(Path(run.output.shard_url(TILE)), "device")
    replaced(Path(run.output.receipt_url("y0001x0001")), "large")
    words = ["deblend-batch", "verify", run.output.url, "--recompute", "0", "--json"]
    ended = run_limited(words, memory=700_000_000, seconds=120)
    assert ended.code == 2
    assert all(
        line.startswith("checking") for line in ended.err.splitlines()
    )  # its progress, nothing else
    assert len(json.loads(ended.out)["problems"]) >= 2
