"""Merging: the bytes of all parts, in one output that is as good as that of one run; or one line why not."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zarr

from deblend_batch.catalog.ledger import Ledger, run_id
from deblend_batch.catalog.output import Output
from deblend_batch.catalog.records import UNPLACED
from deblend_batch.cli.main import main
from deblend_batch.engine.account.reader import read_status
from deblend_batch.engine.audit import merge as merge_module
from deblend_batch.engine.audit.merge import merge_outputs
from deblend_batch.engine.audit.verify import verify_run
from deblend_batch.engine.inputs.index.file import UnplacedPair
from deblend_batch.engine.inputs.reconcile import unplaced_record
from deblend_batch.engine.run import process_field, retry_run
from deblend_batch.errors import CatalogError, OutputConflictError, UserError
from deblend_batch.field.layout import create_field, finish_field
from deblend_batch.report.page import write_report
from tests.engine.finished import finish_run, leave_out
from tests.support import SmallField, make_meta, member, read_shards, shards_of, write_tiny_model


class Parts(NamedTuple):
    """Two fields of one sky, far apart, each with a table and a finished run of its own."""

    fields: tuple[SmallField, SmallField]
    outputs: tuple[Path, Path]


@pytest.fixture(scope="module")
def parts(small_field: SmallField, tmp_path_factory: pytest.TempPathFactory) -> Parts:
    folder = tmp_path_factory.mktemp("parts")
    fields = (small_field, beside(small_field, folder, "other", 160.0, 10_000))
    outputs = (folder / "a", folder / "b")
    for field, output in zip(fields, outputs, strict=True):
        finish_run(field, str(output))
    return Parts(fields, outputs)


def beside(field: SmallField, folder: Path, name: str, ra: float, ids_from: int) -> SmallField:
    """Write the small field again, elsewhere on the sky, and its table with other ids."""
    image = np.asarray(member(zarr.open_group(field.url, mode="r"), "image")[0])
    meta = make_meta(name=name, wcs_cards={**make_meta().wcs_cards, "CRVAL1": ra})
    url, table = str(folder / f"{name}.zarr"), str(folder / f"{name}.parquet")
    group = create_field(url, meta, (500, 600), with_variance=False)
    member(group, "image")[0] = image
    finish_field(group, meta)
    known = pq.read_table(field.detections)
    ids = pa.array(known["id"].to_numpy() + ids_from)
    pq.write_table(known.set_column(0, "id", ids), table)
    return replace(field, url=url, detections=table, ids=field.ids + ids_from)


def merged(parts: Parts, folder: Path) -> Output:
    """Merge two parts."""
    output = Output(str(folder / "merged"))
    merge_outputs([Output(str(each)) for each in parts.outputs], output)
    return output


def test_a_merged_output_is_as_good_as_that_of_a_run(parts: Parts, tmp_path: Path) -> None:
    output = merged(parts, tmp_path)
    found = sorted(shards_of(tmp_path / "merged").values())
    assert found == sorted(c for each in parts.outputs for c in shards_of(each).values())
    for kind in ("ledger", "index"):
        theirs = [p.read_bytes() for each in parts.outputs for p in (each / kind).iterdir()]
        ours = [path.read_bytes() for path in (tmp_path / "merged" / kind).iterdir()]
        assert sorted(ours) == sorted(theirs)
    verified = verify_run(output)
    assert verified.problems == ()
    assert verified.notes == ("not recomputed: merged of 2 outputs; verify each of them",)
    status = read_status(output)
    assert (status.state, status.pairs_written, status.problems) == ("complete", 2 * 93, ())
    run = Ledger(output).read_run()
    assert len(run["fingerprint_of"]["fields"]) == len(run.get("parts", [])) == 2
    assert run["totals"]["rows"] == len(read_shards(output.url)) == 4 * 93
    assert write_report(output).endswith("report.html")


def test_the_order_of_parts_does_not_count(parts: Parts, tmp_path: Path) -> None:
    one = Output(str(tmp_path / "one"))
    outputs = [Output(str(each)) for each in parts.outputs]
    merge_outputs(outputs, one)
    assert merge_outputs(outputs[::-1], one).copied == 0


def test_what_was_merged_is_merged_with_more(
    small_field: SmallField, parts: Parts, tmp_path: Path
) -> None:
    third = beside(small_field, tmp_path, "third", 170.0, 20_000)
    finish_run(third, str(tmp_path / "c"))
    leave_out(Ledger(Output(str(tmp_path / "c"))), "y0000x0000", 2)
    two = merged(parts, tmp_path)
    every = Output(str(tmp_path / "every"))
    made = merge_outputs([two, Output(str(tmp_path / "c"))], every)
    assert (made.exit_code, made.state, made.quarantined) == (3, "complete_with_quarantine", 2)
    found = verify_run(every)
    assert (found.problems, found.exit_code, found.pairs) == ((), 3, 3 * 93 - 2)
    finish_run(third, str(tmp_path / "d"))  # as the third is after a retry
    for kind in ("shards", "ledger", "quarantine"):
        shutil.rmtree(tmp_path / "c" / kind, ignore_errors=True)
        if kind != "quarantine":
            shutil.copytree(tmp_path / "d" / kind, tmp_path / "c" / kind)
    shutil.copy(tmp_path / "d" / "run.json", tmp_path / "c" / "run.json")
    _rename(tmp_path / "c")
    again = merge_outputs([two, Output(str(tmp_path / "c"))], every)
    assert (again.exit_code, again.pairs) == (0, 3 * 93)
    assert verify_run(every).problems == ()
    with pytest.raises(CatalogError, match=r"holds the run .* that .* holds, too"):
        merge_outputs([every, Output(str(parts.outputs[0]))], Output(str(tmp_path / "twice")))


def _rename(output: Path) -> None:
    """Let a run that was made elsewhere be one of this place."""
    ledger = Ledger(Output(str(output)))
    run = ledger.read_run()
    run["config"]["output"] = str(output)
    ledger.write_run({**run, "run": run_id(str(output), run["fingerprint"])})


def test_a_merge_that_was_cut_short_goes_on(
    parts: Parts, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    copy = merge_module._copy_tile
    done: list[Any] = []

    def stopped(*arguments: Any) -> None:
        if len(done) == 3:
            raise KeyboardInterrupt
        done.append(arguments)
        copy(*arguments)

    monkeypatch.setattr(merge_module, "_copy_tile", stopped)
    monkeypatch.setattr(merge_module, "_TOGETHER", 1)
    with pytest.raises(KeyboardInterrupt):
        merged(parts, tmp_path)
    output = Output(str(tmp_path / "merged"))
    assert read_status(output).state == "running"
    assert verify_run(output, recompute=0).exit_code == 2
    monkeypatch.undo()
    (tmp_path / "merged" / "shards" / ".tmp-left").touch()
    again = merge_outputs([Output(str(each)) for each in parts.outputs], output)
    assert again.copied == again.tiles - 3
    assert verify_run(output).problems == ()


def test_pairs_that_another_part_holds_are_placed(parts: Parts, tmp_path: Path) -> None:
    """Each site was given the pairs of both; one pair is nobody's."""
    outputs = [tmp_path / "a", tmp_path / "b"]
    for source, copy in zip(parts.outputs, outputs, strict=True):
        shutil.copytree(source, copy)
    for mine, other in zip(outputs, reversed(outputs), strict=True):
        ledger = Ledger(Output(str(mine)))
        rows = read_shards(str(other)).slice(0, 4)
        ids = rows["source_id"].to_pylist()
        lost = [UnplacedPair(a, b, "r") for a, b in (ids[:2], ids[2:], (1, 2))]
        ledger.quarantine(unplaced_record(lost))
        run = ledger.read_run()
        run["totals"]["pairs"]["expected"] += 3
        run["totals"]["pairs"]["quarantined"] += 3
        ledger.write_run({**run, "state": "complete_with_quarantine"})
    output = Output(str(tmp_path / "merged"))
    made = merge_outputs([Output(str(each)) for each in outputs], output)
    assert (made.pairs, made.quarantined) == (2 * 93, 1)
    assert Ledger(output).read_quarantine(UNPLACED).pairs[0][1:] == (1, 2)
    assert verify_run(output).problems == ()


def _other_model(field: SmallField, folder: Path) -> SmallField:
    return replace(field, model=write_tiny_model(str(folder / "m.safetensors"), seed=9))


def _same_ids(field: SmallField, folder: Path) -> SmallField:
    return beside(field, folder, "same", 175.0, 0)


def _same_sky(field: SmallField, folder: Path) -> SmallField:
    return beside(field, folder, "again", 150.0, 30_000)


def _same_field(field: SmallField, folder: Path) -> SmallField:
    table = pq.read_table(field.detections).slice(0, 90)
    pq.write_table(table, str(folder / "fewer.parquet"))
    return replace(field, detections=str(folder / "fewer.parquet"))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (_other_model, r"measured otherwise than .* \(model differs\)"),
        (_same_ids, r"both hold source \d+; measure a source in one part"),
        (_same_sky, r"both measured the source at 1\d\d\.\d+, \+\d\.\d+ \(and \d+ more"),
        (_same_field, r"holds a field that .* holds, too"),
    ],
)
def test_parts_that_do_not_fit_are_refused(
    parts: Parts, tmp_path: Path, change: Callable[..., SmallField], message: str
) -> None:
    wrong = tmp_path / "wrong"
    finish_run(change(parts.fields[0], tmp_path), str(wrong))
    output = Output(str(tmp_path / "merged"))
    with pytest.raises(CatalogError, match=message) as caught:
        merge_outputs([Output(str(parts.outputs[0])), Output(str(wrong))], output)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "merged").exists()


def test_parts_of_a_survey_may_number_their_sources_alike(parts: Parts, tmp_path: Path) -> None:
    alike = _same_ids(parts.fields[0], tmp_path)
    for name, field in (("a", parts.fields[0]), ("b", alike)):
        survey = [{"field": field.url, "detections": field.detections}]
        config = field.config(str(tmp_path / name), survey=survey)
        del config["field"], config["detections"]
        assert process_field(config).exit_code == 0
    output = Output(str(tmp_path / "merged"))
    merge_outputs([Output(str(tmp_path / name)) for name in "ab"], output)
    assert verify_run(output).problems == ()
    rows = read_shards(output.url)
    primary = rows.filter(rows["is_primary"])
    names = zip(primary["field"].to_pylist(), primary["source_id"].to_pylist(), strict=True)
    assert len(set(names)) == len(primary)
    of_blend = rows.group_by("blend_id").aggregate([("field", "count_distinct")])
    assert set(of_blend["field_count_distinct"].to_pylist()) == {1}
    with pytest.raises(OutputConflictError, match="another run"):
        process_field(parts.fields[0].config(str(tmp_path / "a")))


def _unfinished(output: Path) -> None:
    ledger = Ledger(Output(str(output)))
    ledger.write_run({**ledger.read_run(), "state": "interrupted"})


def _without_shard(output: Path) -> None:
    next((output / "shards").glob("*.parquet")).unlink()


def _without_run(output: Path) -> None:
    shutil.rmtree(output)
    output.mkdir()


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (_unfinished, "the run is interrupted, not complete; run it again with its config"),
        (_without_shard, "tile .* no shard; run again to make it"),
        (_without_run, "not the output of a run"),
    ],
)
def test_parts_that_are_not_whole_are_refused(
    parts: Parts, tmp_path: Path, damage: Callable[[Path], None], message: str
) -> None:
    shutil.copytree(parts.outputs[1], tmp_path / "b")
    damage(tmp_path / "b")
    with pytest.raises(CatalogError, match=message):
        merge_outputs(
            [Output(str(parts.outputs[0])), Output(str(tmp_path / "b"))],
            Output(str(tmp_path / "merged")),
        )


def test_a_place_that_holds_something_else_is_refused(parts: Parts, tmp_path: Path) -> None:
    outputs = [Output(str(each)) for each in parts.outputs]
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "thesis.tex").touch()
    with pytest.raises(OutputConflictError, match="not empty"):
        merge_outputs(outputs, Output(str(tmp_path / "thesis")))
    shutil.copytree(parts.outputs[0], tmp_path / "run")
    with pytest.raises(OutputConflictError, match="belongs to another run"):
        merge_outputs(outputs, Output(str(tmp_path / "run")))
    with pytest.raises(UserError, match="which is read"):
        merge_outputs(outputs, outputs[0])


def test_masks_are_merged_with_their_tiles(small_field: SmallField, tmp_path: Path) -> None:
    model = write_tiny_model(str(tmp_path / "m.safetensors"), masks=True)
    fields = (small_field, beside(small_field, tmp_path, "other", 160.0, 10_000))
    outputs = [Output(str(tmp_path / name)) for name in ("a", "b")]
    for field, output in zip(fields, outputs, strict=True):
        config = field.config(output.url, model=model, masks=True, tiles={"size": 400})
        assert process_field(config).exit_code == 0
    output = Output(str(tmp_path / "merged"))
    merge_outputs(outputs, output)
    assert verify_run(output).problems == ()
    chunk = next((tmp_path / "merged" / "masks.zarr").rglob("masks/c/0/0/0/0"))
    chunk.write_bytes(chunk.read_bytes()[:-1])
    assert any("masks missing or damaged" in line for line in verify_run(output).problems)


def test_the_command_line_merges(
    parts: Parts, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = [*map(str, parts.outputs), str(tmp_path / "merged")]
    assert main(["merge", *words, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["state"] == "complete"
    assert main(["merge", *words]) == 0
    assert "0 of them copied now" in capsys.readouterr().out
    assert main(["merge", *words[:2]]) == 2
    assert "give two or more outputs, and then the folder" in capsys.readouterr().err
    assert main(["merge", words[0], str(tmp_path / "nowhere"), words[2]]) == 2
    assert "not the output of a run" in capsys.readouterr().err


def test_a_part_that_was_altered_in_the_merged_record_is_found(
    parts: Parts, tmp_path: Path
) -> None:
    output = merged(parts, tmp_path)
    run = Ledger(output).read_run()
    run["parts"][0]["fingerprint_of"]["model"] = "another"
    Ledger(output).write_run(run)
    problems = verify_run(output).problems
    assert any("the fingerprint of its part" in line for line in problems)
    del run["parts"][0]
    Ledger(output).write_run(run)
    problems = verify_run(output).problems
    assert any("its parts are not those of its fingerprint" in line for line in problems)
    assert any("of another run (fingerprint differs)" in line for line in problems)


def test_any_store_may_hold_the_merged_output(parts: Parts, small_field: SmallField) -> None:
    output = Output("memory://merged/out")
    outputs = [Output(str(each)) for each in parts.outputs]
    made = merge_outputs(outputs, output)
    assert made.copied == made.tiles
    assert verify_run(output).problems == ()
    assert merge_outputs(outputs, output).copied == 0
    with pytest.raises(CatalogError, match="merged of 2 outputs; retry those that have"):
        retry_run(output)
    output.remove_tree("memory://merged")
