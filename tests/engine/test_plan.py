"""A plan: what a run would do, in numbers; needs no cluster and writes nothing."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from deblend_batch import storage
from deblend_batch.catalog.ledger import Ledger
from deblend_batch.catalog.records import QuarantineRecord
from deblend_batch.config import make_config
from deblend_batch.engine import plan as module
from deblend_batch.engine.needs.projection import NodeSize
from deblend_batch.engine.plan import RunPlan, plan_run
from deblend_batch.errors import CatalogError, ConfigError
from tests.engine.finished import finish_run, read_rows
from tests.support import SmallField


@pytest.fixture(autouse=True)
def no_address(monkeypatch: pytest.MonkeyPatch) -> None:
    """Plan for this machine, whatever cluster the shell knows."""
    monkeypatch.delenv("RAY_ADDRESS", raising=False)


def planned(
    small_field: SmallField, tmp_path: Path, given: dict[str, float] | None = None, **changes: Any
) -> RunPlan:
    """Plan a run of the small field."""
    config = make_config(small_field.config(str(tmp_path / "out"), **changes))
    found = plan_run(config, **(given or {}))
    assert not (tmp_path / "out").exists()
    return found


def test_pairs_tiles_and_time(small_field: SmallField, tmp_path: Path) -> None:
    plan = planned(small_field, tmp_path, engine={"actors": 1})
    assert (plan.fields, plan.tiles, plan.tiles_done, plan.pairs) == (1, 9, 0, 93)
    assert plan.pairs_left == 93
    assert plan.detections == {"read": 160, "not_finite": 0, "outside": 0, "used": 160}
    # Nine cores of at most 200 px with a halo of 17 px, one band.
    assert 4 * 500 * 600 < plan.read_bytes < 4 * 9 * 234**2
    assert (plan.actors, plan.sample.tiles) == (1, 1)
    model, cut = 93 / plan.stamps_per_second, 93 * plan.sample.seconds_per_pair
    start = plan.duration.start_seconds
    assert 5 < start < 10
    assert plan.where == "local"
    assert plan.duration.seconds == pytest.approx(start + model + cut)
    assert plan.duration.core_hours == pytest.approx((model + cut) / 3600)
    assert plan.node_bytes == plan.memory.actor > 4e8
    assert plan.notes == ()
    (sky,) = plan.backgrounds
    assert re.fullmatch(r"\S+ \S+: [+-]0\.0\d\d of the noise \(blocks \S+ to \S+\)", sky)
    assert ("background", sky) in plan.to_rows()
    assert json.loads(json.dumps(plan.to_dict()))["memory"]["actor"] == plan.memory.actor


def test_gpus_that_are_not_here_need_a_given_speed(small_field: SmallField, tmp_path: Path) -> None:
    engine = {"gpus_per_actor": 1}
    with pytest.raises(ConfigError, match=r"--gpus 8: there is no GPU here .* \(--speed\)"):
        planned(small_field, tmp_path, {"gpus": 8}, engine=engine)
    plan = planned(small_field, tmp_path, {"gpus": 8, "speed": 31.0}, engine=engine)
    assert (plan.actors, plan.speed_is_given, plan.stamps_per_second) == (8, True, 31.0)
    assert plan.duration.gpu_hours == pytest.approx(93 / 31 / 3600)
    assert any("checked when the run starts" in note for note in plan.notes)
    rows = dict(plan.to_rows())
    assert rows["speed"] == "31 stamps/s per actor, as given"
    assert rows["time"].endswith("GPU-hours")


def test_a_run_that_cannot_fit_is_refused(
    small_field: SmallField, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    small = NodeSize("this machine", 2, 0, 100_000_000)
    monkeypatch.setattr(module, "this_machine", lambda: small)
    with pytest.raises(ConfigError, match=r"2 actors need .* GB on this machine, which has 0.10"):
        planned(small_field, tmp_path)
    monkeypatch.setenv("RAY_ADDRESS", "10.0.0.1:6379")
    assert any("cluster's nodes" in note for note in planned(small_field, tmp_path).notes)


def test_of_a_finished_run_nothing_is_left(small_field: SmallField, tmp_path: Path) -> None:
    ledger = finish_run(small_field, str(tmp_path / "out"))
    config = make_config(small_field.config(ledger.output.url))
    plan = plan_run(config)
    assert (plan.tiles_done, plan.pairs_left) == (9, 0)
    rows = dict(plan.to_rows())
    assert rows["time"] == "none: nothing is left to do"
    assert not {"speed", "cutting"} & rows.keys()
    held = put_in_quarantine(ledger, "y0000x0000")
    plan = plan_run(config)
    assert (plan.tiles_done, plan.tiles_quarantined, plan.pairs_left) == (8, 1, 0)
    assert dict(plan.to_rows())["tiles"] == "9 with pairs, 8 of them done, 1 in quarantine"
    storage.write_bytes(ledger.output.quarantine_url("y0000x0000"), b"")
    assert plan_run(config).pairs_left == held
    beside = ledger.read_receipt("y0001x0001").pairs
    storage.write_bytes(ledger.output.quarantine_url("y0001x0001"), b"{")
    assert plan_run(config).pairs_left == held + beside
    storage.write_bytes(storage.join(ledger.output.url, "run.json"), b"")
    with pytest.raises(CatalogError, match=r"run.json: damaged .*; remove it and run again"):
        plan_run(config)


def put_in_quarantine(ledger: Ledger, tile: str) -> int:
    """Put all of a tile in quarantine; return its number of pairs."""
    blends = read_rows(ledger, tile)["blend_id"].to_pylist()[::2]
    ledger.quarantine(
        QuarantineRecord(tile, "a chunk", "BadDataError", 1, [(b, 0, 0) for b in blends])
    )
    storage.remove(ledger.output.receipt_url(tile))
    storage.remove(ledger.output.shard_url(tile))
    return len(blends)


def test_no_pairs_is_said_with_its_reason(small_field: SmallField, tmp_path: Path) -> None:
    plan = planned(small_field, tmp_path, pairs={"max_separation": 0.001})
    assert (plan.pairs, plan.tiles, plan.stamps_per_second) == (0, 0, 0.0)
    (note,) = plan.notes
    assert note.startswith("no pairs within pairs.max_separation = 0.001 arcsec: the nearest two")
    assert ("note", note) in plan.to_rows()
