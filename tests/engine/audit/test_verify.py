"""Verification: what damage is found, and that a sound run has none."""

from __future__ import annotations

import hashlib
import json
import re
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from deblend_batch import storage
from deblend_batch.catalog.ledger import Ledger
from deblend_batch.catalog.output import Output
from deblend_batch.catalog.records import QuarantineRecord
from deblend_batch.engine.audit.checks import compare_pairs
from deblend_batch.engine.audit.verify import Verification, verify_run
from deblend_batch.errors import CatalogError
from tests.engine.finished import commit, finish_run, leave_out, read_rows
from tests.limited import run_limited
from tests.parquet import hostile
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


def test_a_complete_run_is_sound(run: Ledger) -> None:
    found = verify_run(run.output)
    assert (found.problems, found.notes, found.exit_code) == ((), (), 0)
    assert (found.tiles, found.pairs, found.rows, found.quarantined) == (9, 93, 186, 0)
    assert found.recomputed == 16
    assert ("verdict", "sound") in found.to_rows()
    assert json.loads(json.dumps(found.to_dict()))["pairs"] == 93


def test_a_tile_may_have_a_shard_and_a_record(run: Ledger) -> None:
    leave_out(run, TILE, 2)
    found = verify_run(run.output, recompute=93)
    assert (found.problems, found.exit_code) == ((), 3)
    assert (found.pairs, found.quarantined, found.recomputed) == (91, 2, 91)


@pytest.mark.parametrize("finished", [True, False], ids=["and has a shard", "and has none"])
def test_a_tile_wholly_in_quarantine(run: Ledger, finished: bool) -> None:
    """A worker that was given up may still finish its tile: the shard is what counts."""
    ids = read_rows(run, TILE)["blend_id"].to_pylist()[::2]
    pairs = [(blend, 0, 0) for blend in ids]
    run.quarantine(QuarantineRecord(TILE, "a chunk", "BadDataError", 4, pairs))
    if not finished:
        storage.remove(run.output.shard_url(TILE))
        storage.remove(run.output.receipt_url(TILE))
    found = verify_run(run.output, recompute=0)
    # The totals of run.json are of a run that had written it.
    assert [line for line in found.problems if not line.startswith("run.json")] == []
    assert found.quarantined == (0 if finished else len(ids))


def _shorten(run: Ledger) -> None:
    storage.write_bytes(
        run.output.shard_url(TILE), storage.read_bytes(run.output.shard_url(TILE))[:-1]
    )


def _alter(run: Ledger) -> None:
    rows = read_rows(run, TILE)
    flux = pa.array(rows["flux_h"].to_numpy() * np.float32(1.0001))
    receipt = run.read_receipt(TILE)
    commit(run, TILE, rows.set_column(rows.schema.names.index("flux_h"), "flux_h", flux))
    run.replace_receipt(receipt)
    storage.write_bytes(run.output.receipt_url(TILE), json.dumps(vars(receipt)).encode())


def _copy_shard(run: Ledger) -> None:
    other = storage.read_bytes(run.output.shard_url("y0001x0001"))
    storage.write_bytes(run.output.shard_url(TILE), other)


def _copy_shard_and_receipt(run: Ledger) -> None:
    _copy_shard(run)
    content = storage.read_bytes(run.output.receipt_url("y0001x0001"))
    storage.write_bytes(run.output.receipt_url(TILE), content)


def _forge_copy(run: Ledger) -> None:
    other = run.read_receipt("y0001x0001")
    _copy_shard(run)
    run.replace_receipt(replace(other, tile=TILE))


def _lose_pair(run: Ledger) -> None:
    commit(run, TILE, read_rows(run, TILE).slice(2))


def _double_pair(run: Ledger) -> None:
    rows = read_rows(run, TILE)
    commit(run, TILE, pa.concat_tables([rows, rows.slice(0, 2)]))


def _record_what_is_written(run: Ledger) -> None:
    blend = read_rows(run, TILE)["blend_id"][0].as_py()
    run.quarantine(QuarantineRecord(TILE, "a chunk", "BadDataError", 1, [(blend, 0, 0)]))


def _record_a_part_alone(run: Ledger) -> None:
    leave_out(run, TILE, 2)
    storage.remove(run.output.shard_url(TILE))
    storage.remove(run.output.receipt_url(TILE))


def _wrong_rows(run: Ledger) -> None:
    run.replace_receipt(replace(run.read_receipt(TILE), rows=1))


def _wrong_count(run: Ledger) -> None:
    run.replace_receipt(replace(run.read_receipt(TILE), pairs=1))


def _no_parquet(run: Ledger) -> None:
    storage.write_bytes(run.output.shard_url(TILE), b"")
    empty = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
    run.replace_receipt(replace(run.read_receipt(TILE), sha256=empty, bytes=0))


def _damage_receipt(run: Ledger) -> None:
    storage.write_bytes(run.output.receipt_url(TILE), b'{"tile": ')


def _empty_receipt(run: Ledger) -> None:
    storage.write_bytes(run.output.receipt_url(TILE), b"")


def _stray_shard(run: Ledger) -> None:
    storage.write_bytes(
        run.output.shard_url("y0009x0000"), storage.read_bytes(run.output.shard_url(TILE))
    )


def _stray_receipt(run: Ledger) -> None:
    storage.write_bytes(run.output.receipt_url("y0009x0000"), b"{}")


def _stray_record(run: Ledger) -> None:
    run.quarantine(QuarantineRecord("y0009x0000", "a chunk", "BadDataError", 1, []))


def _lose_shard(run: Ledger) -> None:
    storage.remove(run.output.shard_url(TILE))


def _lose_receipt(run: Ledger) -> None:
    storage.remove(run.output.receipt_url(TILE))


def _wrong_sum(run: Ledger) -> None:
    record = run.read_run()
    record["totals"]["pairs"]["written"] -= 1
    run.write_run(record)


def _wrong_totals(run: Ledger) -> None:
    record = run.read_run()
    record["totals"]["pairs"]["written"] -= 1
    record["totals"]["pairs"]["expected"] -= 1
    run.write_run(record)


@pytest.mark.parametrize(
    ("spoil", "problem"),
    [
        (_shorten, rf"shard {TILE}: altered or truncated \(\d+ bytes, \d+ written\)"),
        (_alter, f"shard {TILE}: altered or truncated"),
        (_copy_shard, f"shard {TILE}: altered or truncated"),
        (
            _copy_shard_and_receipt,
            rf"ledger/{TILE}.json: names another tile \('y0001x0001'\); remove it",
        ),
        (_forge_copy, rf"shard {TILE}: rows of another tile \(y0001x0001\)"),
        (_forge_copy, rf"tile {TILE}: blend \d+ and \d+ more of no pair of this tile"),
        (_forge_copy, r"blend \d+ and \d+ more: in several places"),
        (_lose_pair, rf"tile {TILE}: blend \d+ neither in its shard nor in quarantine"),
        (_lose_pair, rf"tile {TILE}: (\d+) pairs expected, \d+ written \+ 0 quarantined"),
        (_double_pair, rf"tile {TILE}: blend \d+ more than once in its shard and quarantine"),
        (_record_what_is_written, rf"tile {TILE}: blend \d+ more than once"),
        (_record_a_part_alone, rf"tile {TILE}: 2 of its \d+ pairs in quarantine, and no shard"),
        (_wrong_rows, rf"shard {TILE}: \d+ rows for \d+ pairs"),
        (_wrong_count, rf"tile {TILE}: \d+ pairs expected, 1 written \+ 0 quarantined"),
        (
            _no_parquet,
            rf"shard {TILE}: not a shard \(.*\); remove it and its receipt, and run again",
        ),
        (_damage_receipt, rf"ledger/{TILE}.json: damaged \(.*\); remove it and run again"),
        (_empty_receipt, rf"ledger/{TILE}.json: empty; run again to make it anew"),
        (_stray_shard, "shard y0009x0000: orphan, no tile of this run; remove it"),
        (_stray_receipt, "receipt y0009x0000: orphan, no tile of this run; remove it"),
        (_stray_record, "quarantine record y0009x0000: orphan, no tile of this run; remove it"),
        (_lose_shard, rf"tile {TILE}: \d+ pairs, no shard; run again to make it"),
        (_lose_receipt, rf"tile {TILE}: \d+ pairs, no receipt; run again to make it"),
        (_wrong_sum, "run.json: totals do not add up"),
        (_wrong_totals, "run.json: totals do not match what was found"),
    ],
)
def test_verify_names_the_damage(
    run: Ledger, spoil: Callable[[Ledger], None], problem: str
) -> None:
    spoil(run)
    found = verify_run(run.output, recompute=0)
    assert found.exit_code == 2
    assert any(re.search(problem, line) for line in found.problems), found.problems
    plural = "s" if len(found.problems) > 1 else ""
    assert ("verdict", f"{len(found.problems)} problem{plural}") in found.to_rows()


def _unfinish(run: Ledger, state: str = "interrupted") -> None:
    run.write_run(run.read_run() | {"state": state})


@pytest.mark.parametrize("state", ["interrupted", "running", "failed"])
@pytest.mark.parametrize("left", [("receipt",), ("receipt", "shard")], ids=["shard alone", "none"])
def test_what_is_still_to_do_is_no_damage(run: Ledger, state: str, left: tuple[str, ...]) -> None:
    n_pairs = run.read_receipt(TILE).pairs
    for what in left:
        storage.remove(getattr(run.output, f"{what}_url")(TILE))
    _unfinish(run, state)
    found = verify_run(run.output, recompute=0)
    assert (found.problems, found.exit_code) == ((), 2)
    assert (found.pending_tiles, found.pending_pairs) == (1, n_pairs)
    rows = dict(found.to_rows())
    assert rows["verdict"] == "not finished; what is there: sound"
    assert rows["not finished"].startswith(
        f"the run is {state}, {n_pairs} pairs in 1 of its tiles are still to do; run again with the same"
    )


def test_damage_of_an_unfinished_run_is_told_apart(run: Ledger) -> None:
    _lose_receipt(run)
    storage.remove(run.output.shard_url("y0001x0001"))
    _unfinish(run)
    found = verify_run(run.output, recompute=0)
    assert found.pending_tiles == 1
    (problem,) = found.problems
    assert re.match(r"tile y0001x0001: \d+ pairs, no shard; run again to make it", problem)
    assert dict(found.to_rows())["verdict"] == "not finished; what is there: 1 problem"


def test_a_part_in_quarantine_of_an_unfinished_run_is_still_to_do(run: Ledger) -> None:
    n_pairs = run.read_receipt(TILE).pairs
    _record_a_part_alone(run)
    _unfinish(run)
    found = verify_run(run.output, recompute=0)
    assert (found.problems, found.quarantined, found.pending_pairs) == ((), 0, n_pairs)


def test_a_lost_index_makes_no_orphans(run: Ledger) -> None:
    storage.remove_tree(storage.join(run.output.url, "index"))
    found = verify_run(run.output)
    (problem,) = found.problems
    assert re.match(r"index/: the index is missing, .*; run again with the same config", problem)
    assert found.exit_code == 2


def test_a_run_that_has_not_been_indexed_has_lost_nothing(run: Ledger) -> None:
    for folder in ("index", "ledger"):  # and no shard is an orphan for that
        storage.remove_tree(storage.join(run.output.url, folder))
    _unfinish(run, "running")
    found = verify_run(run.output)
    assert (found.problems, found.exit_code) == ((), 2)
    assert "the pairs of 1 fields are not known yet" in found.unfinished


@pytest.mark.parametrize("content", [b"", b"{"], ids=["empty", "cut"])
@pytest.mark.parametrize("name", [TILE, "unplaced"])
def test_a_damaged_quarantine_record_is_one_problem_of_several(
    run: Ledger, name: str, content: bytes
) -> None:
    storage.write_bytes(run.output.quarantine_url(name), content)
    _stray_shard(run)
    found = verify_run(run.output, recompute=0)
    assert any(
        re.search(rf"quarantine/{name}.json: (empty|damaged .*); .*run again", line)
        for line in found.problems
    )
    assert any("orphan" in line for line in found.problems)


def test_of_very_many_problems_only_the_first_are_printed() -> None:
    problems = tuple(f"problem {number}" for number in range(1000))
    rows = Verification("/out", 0, 0, 0, 0, 0, problems, ()).to_rows()
    assert len(rows) < 30
    assert rows[-1] == ("problem", "and 980 more (--json)")


def test_a_damaged_index_is_one_line(run: Ledger) -> None:
    storage.write_bytes(storage.join(run.output.url, "index", "field.parquet"), b"PAR1")
    with pytest.raises(CatalogError, match=r"index/field.parquet: damaged .*; remove it and run"):
        verify_run(run.output)


def test_a_tile_that_adds_up_has_no_problem() -> None:
    ids = np.arange(5)
    assert compare_pairs("t", ids, 3, ids[:3], ids[3:]) == []
    assert compare_pairs("t", ids, 5, ids, ids[:0]) == []


def _longer(run: Ledger) -> None:
    with open(run.output.shard_url(TILE), "r+b") as file:
        file.truncate(1 << 36)


def _device(run: Ledger) -> None:
    storage.remove(run.output.shard_url(TILE))
    Path(run.output.shard_url(TILE)).symlink_to("/dev/zero")


def _bomb(run: Ledger) -> None:
    """As long as the receipt says, with a hundred million rows."""
    n, size = 100_000_000, run.read_receipt(TILE).bytes
    columns = [
        hostile.constant("blend_id", bytes(8), n, hostile.INT64),
        hostile.constant("source_id", bytes(8), n, hostile.INT64),
        hostile.constant("tile", TILE.encode(), n, hostile.TEXT),
        hostile.constant("flags", bytes(4), n, hostile.INT32),
    ]
    padded = (hostile.parquet(columns, n, padding) for padding in range(size - 600, size))
    content = next(each for each in padded if len(each) == size)
    storage.write_bytes(run.output.shard_url(TILE), content)


def _bomb_with_receipt(run: Ledger) -> None:
    _bomb(run)
    digest = hashlib.sha256(storage.read_bytes(run.output.shard_url(TILE))).hexdigest()
    run.replace_receipt(replace(run.read_receipt(TILE), sha256=digest, rows=100_000_000))


USE = """
import sys
from deblend_batch.engine.account.reader import StatusReader
from deblend_batch.engine.audit.publication import publish_run
from deblend_batch.engine.audit.verify import verify_run
from deblend_batch.catalog.output import Output
from deblend_batch.errors import UserError
from deblend_batch.report.page import write_report
for output in map(Output, sys.argv[1:]):
    print(*verify_run(output, recompute=0).problems)
    print(StatusReader(output).read().pairs_written)
    for use in write_report, publish_run:
        try:
            use(output)
        except UserError as error:
            print(error)
"""
BOMBS = {
    _longer: "altered or truncated",
    _device: "a link to a file outside",
    _bomb: "altered or truncated",
    _bomb_with_receipt: "not a shard .*announce",
}


def test_a_shard_that_was_replaced_by_a_bomb_takes_no_memory(
    template: Ledger, tmp_path: Path
) -> None:
    outputs = []
    for number, damage in enumerate(BOMBS):
        outputs.append(str(shutil.copytree(template.output.url, tmp_path / str(number))))
        damage(Ledger(Output(outputs[-1])))
    ended = run_limited(
        ["python", "-c", USE, *outputs], memory=1_000_000_000, cwd=Path(__file__).parents[3]
    )
    lines = ended.out.splitlines()
    assert (ended.code, len(lines)) == (0, 4 * len(BOMBS)), ended
    for number, (output, message) in enumerate(zip(outputs, BOMBS.values(), strict=True)):
        verified, written, reported, published = lines[4 * number : 4 * number + 4]
        assert re.match(f"shard {TILE}: .*{message}", verified)
        assert written == "93"
        assert reported.startswith(f"{output}/shards/{TILE}.parquet: damaged; see deblend-batch")
        assert published.startswith(f"{output}: shard {TILE}: ")
