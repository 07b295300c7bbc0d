"""The ledger: the first receipt stands, a run owns its output, damage is said in one line."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from deblend_batch import storage
from deblend_batch.catalog import ledger as ledger_module
from deblend_batch.catalog.claim import check_claim, claim
from deblend_batch.catalog.ledger import Ledger, fingerprint
from deblend_batch.catalog.masks import MaskStore
from deblend_batch.catalog.output import Output
from deblend_batch.catalog.records import QuarantineRecord, Receipt
from deblend_batch.engine.account.reader import read_status
from deblend_batch.engine.audit.verify import verify_run
from deblend_batch.errors import CatalogError, NotFoundError, OutputConflictError, StorageError
from deblend_batch.report.survey import survey_catalog
from tests.support import run_file


def receipt(tile: str = "y0000x0000", **changes: Any) -> Receipt:
    """A receipt as an actor leaves it."""
    values: dict[str, Any] = {
        "tile": tile,
        "pairs": 3,
        "rows": 6,
        "bytes": 5,
        "sha256": "00",
        "fingerprint": "f",
        "model_sha256": "m",
        "flags": {"EDGE": 2},
        "seconds": {"cut": 0.1, "infer": 0.2},
        "worker": {"node": "n", "pid": 7, "device": "cpu", "gpu_ids": []},
        "written_at": "2026-01-01T00:00:00.000+00:00",
    }
    return Receipt(**(values | changes))


@pytest.fixture(params=["local", "memory"])
def ledger(request: pytest.FixtureRequest, tmp_path: Path) -> Ledger:
    """A ledger on each kind of store, at a URL that ends in a slash."""
    place = str(tmp_path) if request.param == "local" else f"memory://{tmp_path.name}"
    return Ledger(Output(f"{place}/out/"))


def finish(ledger: Ledger, tile: str = "y0000x0000", **changes: Any) -> None:
    """Leave what a finished tile leaves."""
    ledger.create_shard(tile, b"shard")
    ledger.create_receipt(receipt(tile, **changes))


def test_a_tile_is_finished_with_its_receipt(ledger: Ledger) -> None:
    assert ledger.create_shard("y0000x0000", b"shard") == b"shard"
    assert (ledger.output.shards(), ledger.output.receipts()) == (["y0000x0000"], [])
    assert ledger.finished() == set()
    assert ledger.create_receipt(receipt())
    assert ledger.finished() == {"y0000x0000"}
    assert ledger.read_receipt("y0000x0000") == receipt()


@pytest.mark.parametrize(
    ("kind", "changes"),
    [
        ("receipt", {"left_out": 5}),
        ("receipt", {"left_out": None}),
        ("receipt", {"left_out": ["7"]}),
        ("quarantine", {"pairs": None}),
        ("quarantine", {"pairs": [7]}),
        ("quarantine", {"pairs": [[1]]}),
    ],
)
def test_ids_of_another_kind_are_damage(ledger: Ledger, kind: str, changes: dict[str, Any]) -> None:
    record = QuarantineRecord("y0", "reason", "Error", 1, [(9, 1, 2)])
    content = asdict(receipt("y0") if kind == "receipt" else record) | changes
    storage.write_bytes(getattr(ledger.output, f"{kind}_url")("y0"), json.dumps(content).encode())
    with pytest.raises(CatalogError, match=r"y0\.json: damaged .*; remove it and run again"):
        getattr(ledger, f"read_{kind}")("y0")


def test_the_first_shard_and_the_first_receipt_stand(ledger: Ledger) -> None:
    finish(ledger, worker={"pid": 1})
    assert ledger.create_shard("y0000x0000", b"other") == b"shard"
    assert not ledger.create_receipt(receipt(worker={"pid": 2}))
    assert storage.read_bytes(ledger.output.shard_url("y0000x0000")) == b"shard"
    assert ledger.read_receipt("y0000x0000").worker == {"pid": 1}


def test_a_tile_that_is_opened_again_leaves_nothing(ledger: Ledger) -> None:
    finish(ledger)
    ledger.quarantine(QuarantineRecord("y0000x0000", "reason", "Error", 1, []))
    ledger.reopen("y0000x0000")
    assert (ledger.output.shards(), ledger.output.receipts(), ledger.output.quarantined()) == (
        [],
        [],
        [],
    )


def test_an_empty_receipt_is_none(ledger: Ledger) -> None:
    finish(ledger)
    finish(ledger, "y0000x0001")
    storage.write_bytes(ledger.output.receipt_url("y0000x0000"), b"")
    assert ledger.finished() == {"y0000x0001"}
    assert ledger.newest_receipts() == (["y0000x0001"], ["y0000x0000"])
    with pytest.raises(CatalogError, match=r"y0000x0000.json: empty; run again to make it anew"):
        ledger.read_receipt("y0000x0000")


@pytest.mark.parametrize("n", [0, 1, 5])
def test_receipts_come_in_the_order_asked_for(
    ledger: Ledger, monkeypatch: pytest.MonkeyPatch, n: int
) -> None:
    monkeypatch.setattr(ledger_module, "_READ_TOGETHER", 2)
    tiles = [f"y0000x{number:04d}" for number in range(n)]
    for number, tile in enumerate(tiles):
        finish(ledger, tile, pairs=number)
    backwards = tiles[::-1]
    assert [found.tile for found in ledger.read_receipts(backwards)] == backwards
    assert [found.pairs for found in ledger.read_receipts(tiles)] == list(range(n))


@pytest.mark.parametrize("read", ["read_receipt", "read_quarantine"])
def test_a_tile_without_a_record_is_named(ledger: Ledger, read: str) -> None:
    with pytest.raises(NotFoundError, match=r"y1x1.json: no such file or object; check the URL"):
        getattr(ledger, read)("y1x1")


def test_a_quarantine_record_says_what_it_holds_until_it_is_released(ledger: Ledger) -> None:
    record = QuarantineRecord("y0x0", "field.zarr: a chunk", "BadDataError", 2, [(9, 1, 2)])
    ledger.quarantine(record)
    found = ledger.read_quarantine("y0x0")
    assert [tuple(pair) for pair in found.pairs] == [(9, 1, 2)]
    assert (found.tile, found.reason, found.error, found.attempts, found.written_at) == (
        *("y0x0", "field.zarr: a chunk", "BadDataError", 2),
        record.written_at,
    )
    assert ledger.output.quarantined() == ["y0x0"]
    ledger.release("y0x0")
    ledger.release("y0x0")
    assert ledger.output.quarantined() == []


def test_an_empty_output_is_taken_and_taken_up_again(ledger: Ledger) -> None:
    first, second = run_file(), run_file()
    second["created_at"] = "2026-01-02T00:00:00.000+00:00"
    assert claim(ledger, first) == first
    assert claim(ledger, second) == first


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"model": "sha256:3"}, "model"),
        ({"pairs": {"max_separation": 1.0}}, "pairs"),
        ({"detections": [], "model": ""}, "detections, model"),
        ({"tiles": {"size": 64}}, "tiles"),
    ],
    ids=["weights", "option", "two", "one more"],
)
def test_another_run_is_refused_and_what_differs_is_named(
    ledger: Ledger, changes: dict[str, Any], named: str
) -> None:
    claim(ledger, run_file())
    with pytest.raises(
        OutputConflictError, match=rf"out: belongs to another run \({named} differs\); give another"
    ):
        claim(ledger, run_file(**changes))


@pytest.mark.parametrize("name", ["thesis.tex", "shards/y0000x0000.parquet", "index/field.parquet"])
def test_a_folder_of_something_else_is_refused(ledger: Ledger, name: str) -> None:
    """What lies there, an index too, may come of other inputs: only run.json or receipts vouch for it."""
    storage.write_bytes(storage.join(ledger.output.url, name), b"x")
    top = name.split("/", maxsplit=1)[0]
    for take in (check_claim, claim):
        with pytest.raises(
            OutputConflictError, match=rf"not empty \({top} is there\), .*; empty it or"
        ):
            take(ledger, run_file())
    assert not storage.exists(storage.join(ledger.output.url, "run.json"))


def test_receipts_of_the_run_vouch_for_an_output_that_lost_its_run_json(
    ledger: Ledger, capsys: pytest.CaptureFixture[str]
) -> None:
    new = run_file()
    finish(ledger, fingerprint=new["fingerprint"])
    storage.write_bytes(ledger.output.receipt_url("y0000x0001"), b"")  # empty: it says nothing
    with pytest.raises(CatalogError, match=r"run.json: missing, though .* run again with the same"):
        ledger.read_run()
    check_claim(ledger, new)
    assert not storage.exists(ledger.output.run_url)
    assert claim(ledger, new) == ledger.read_run() == new
    said = capsys.readouterr()  # where logs go is the process's, and other tests may have chosen
    assert "run.json was missing and is made anew" in said.out + said.err


def test_receipts_of_another_run_are_refused(ledger: Ledger) -> None:
    ours = run_file()
    finish(ledger, fingerprint=ours["fingerprint"])
    finish(ledger, "y0000x0001", fingerprint="another")
    for take in (check_claim, claim):
        with pytest.raises(
            OutputConflictError,
            match=r"out: run.json is missing, and 1 of 2 receipts .*ledger/y0000x0001.json\); give",
        ):
            take(ledger, ours)
    assert not storage.exists(ledger.output.run_url)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (
            b'{"deblend_batch_run": 1, "sta',
            "run.json: damaged .*; remove it and run again with the same config",
        ),
        (b"\xff\xfe", "run.json: damaged"),
        (b"[1, 2]", "run.json: damaged"),
        (b"", "run.json: damaged"),
        (b'{"state": "running", "by": "another program"}', "run.json: not that of deblend-batch"),
        (b'{"deblend_batch_run": 99}', "run.json: .*update deblend-batch"),
    ],
    ids=["cut off", "no text", "no object", "empty", "another program's", "of the future"],
)
@pytest.mark.parametrize(
    "use", [read_status, verify_run, lambda output: claim(Ledger(output), run_file())]
)
def test_a_run_json_that_cannot_be_used_is_one_line(
    tmp_path: Path, use: Any, content: bytes, message: str
) -> None:
    (tmp_path / "run.json").write_bytes(content)
    with pytest.raises(CatalogError, match=message) as caught:
        use(Output(str(tmp_path)))
    assert "\n" not in str(caught.value)


def test_no_run_is_one_line(ledger: Ledger) -> None:
    with pytest.raises(CatalogError, match=r"out: not the output of a run \(no run.json\); check"):
        ledger.read_run()


@pytest.mark.parametrize(
    "content", [b'{"tile": "y0', b'{"tile": "y0000x0000"}', b"[]"], ids=["cut", "short", "list"]
)
def test_a_damaged_receipt_is_one_line(ledger: Ledger, content: bytes) -> None:
    storage.write_bytes(ledger.output.receipt_url("y0000x0000"), content)
    message = r"y0000x0000.json: damaged \(.*\); remove it and run again"
    with pytest.raises(CatalogError, match=message):
        ledger.read_receipt("y0000x0000")
    with pytest.raises(CatalogError, match=message):
        list(ledger.read_receipts(["y0000x0000"]))


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


@given(st.dictionaries(st.text(), json_values, max_size=5), st.randoms(use_true_random=False))
def test_a_fingerprint_depends_on_values_and_not_on_their_order(
    parts: dict[str, Any], random: Any
) -> None:
    keys = list(parts)
    random.shuffle(keys)
    again = json.loads(json.dumps({key: parts[key] for key in keys}))
    assert fingerprint(parts) == fingerprint(again)
    assert fingerprint({**parts, "one more": 1}) != fingerprint(parts)


@pytest.mark.parametrize(
    "name", ["../../x", "/etc/passwd", "a\0b", "..\\x", "x" * 300, "\uff0e\uff0e\uff0fx"]
)
def test_no_tile_s_name_leaves_the_output(ledger: Ledger, name: str) -> None:
    record = QuarantineRecord(name, "reason", "Error", 1, [])
    masks = np.zeros((0, 3, 1, 1), np.uint8)
    uses: dict[str, Callable[[], object]] = {
        "shards": lambda: ledger.create_shard(name, b"shard"),
        "ledger": lambda: ledger.reopen(name),
        "quarantine": lambda: ledger.quarantine(record),
        "masks.zarr": lambda: MaskStore(ledger.output).write(name, np.zeros(0, np.int64), masks),
    }
    for folder, use in uses.items():
        with pytest.raises(StorageError, match=rf"/out/{folder}: .* cannot be the name of a file"):
            use()


@pytest.mark.parametrize("kind", [Receipt, QuarantineRecord])
def test_what_a_record_says_of_its_tile_decides_nothing(ledger: Ledger, kind: Any) -> None:
    if kind is Receipt:
        storage.write_bytes(
            ledger.output.receipt_url("y0"), json.dumps(asdict(receipt("../../x"))).encode()
        )
        storage.write_bytes(ledger.output.shard_url("y0"), b"shard")
        reads: list[Callable[[], Any]] = [
            lambda: ledger.read_receipt("y0"),
            lambda: list(ledger.read_receipts(["y0"])),
            lambda: survey_catalog(ledger),
        ]
    else:
        record = QuarantineRecord("../../x", "reason", "Error", 1, [])
        storage.write_bytes(ledger.output.quarantine_url("y0"), json.dumps(asdict(record)).encode())
        reads = [
            lambda: ledger.read_quarantine("y0"),
            lambda: list(ledger.read_quarantines(["y0"])),
        ]
    for read in reads:
        with pytest.raises(CatalogError, match=r"y0\.json: names another tile \('\.\./\.\./x'\)"):
            read()


def test_an_output_that_another_driver_takes_meanwhile_is_shared(
    ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    exists = storage.exists

    def late(*arguments: Any) -> bool:
        found = exists(*arguments)
        monkeypatch.undo()
        claim(ledger, run_file())
        storage.write_bytes(storage.join(ledger.output.url, "index", "field.parquet"), b"")
        return found

    monkeypatch.setattr(storage, "exists", late)
    assert claim(ledger, run_file()) == run_file()


def test_of_a_shard_that_is_too_long_only_the_start_is_read(ledger: Ledger) -> None:
    storage.write_bytes(ledger.output.shard_url("y0"), bytes(1 << 22))
    assert len(ledger.create_shard("y0", b"shard")) < 1 << 21
