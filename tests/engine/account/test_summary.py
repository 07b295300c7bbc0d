"""What a finished run says: plain words where a number alone would leave a user guessing."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest

from deblend_batch.config import PairsConfig, RunConfig, make_config
from deblend_batch.engine.account.summary import RunSummary, no_pairs, notes_on
from deblend_batch.engine.account.tally import Tally
from deblend_batch.engine.inputs.count import Count
from deblend_batch.engine.needs.memory import MemoryUse
from deblend_batch.engine.needs.projection import Memory


def config(**changes: Any) -> RunConfig:
    """A config; nothing of it need exist."""
    return make_config({"field": "/f.zarr", "detections": "/d.csv", "output": "/out", **changes})


def summary(tally: Tally, seconds: float = 0.0) -> RunSummary:
    """The summary of a finished run."""
    notes = notes_on(config(), tally)
    rate = tally.pairs_here / seconds if seconds else 0.0
    return RunSummary("/out", "complete", tally.totals(), seconds, rate, ("/u.parquet",), notes)


def test_a_run_that_worked_says_its_rate_and_no_more() -> None:
    tally = Tally(Count(93, 93), Count(9, 9), pairs_here=90, workers=[{}])
    rows = dict(summary(tally, seconds=2.0).to_rows())
    assert rows["rate"] == "45 pairs/s over 2.0 s"
    assert rows["pairs"] == "93 written, 0 quarantined"
    assert rows["not used"] == "detections listed in /u.parquet"
    assert "note" not in rows
    assert "peak memory" not in rows


def test_peak_memory_stands_beside_its_projection() -> None:
    use = MemoryUse(815_000_000, 245_000_000, Memory(880_000_000, 250_000_000))
    ended = replace(summary(Tally(Count(93, 93), Count(9, 9), workers=[{}])), memory=use)
    assert dict(ended.to_rows())["peak memory"].startswith("actor 0.81 GB (0.88 GB projected)")
    assert json.loads(json.dumps(ended.to_dict()))["memory"]["driver"] == 245_000_000


@pytest.mark.parametrize(
    ("tally", "note"),
    [
        (
            Tally(Count(93, 93), Count(9, 9)),
            "nothing left to do: 93 pairs in 9 shards were already there",
        ),
        (
            Tally(Count(1093, 1000, 93), Count(9, 8, 1)),
            (
                "nothing left to do: 1,000 pairs in 8 shards were already there; "
                "tiles in quarantine: 1 (deblend-batch retry /out)"
            ),
        ),
    ],
    ids=["complete", "with quarantine"],
)
def test_a_run_with_nothing_left_to_do_says_so_and_no_rate(tally: Tally, note: str) -> None:
    ended = summary(tally)
    assert ended.notes == (note,)
    assert "rate" not in dict(ended.to_rows())
    assert ("note", note) in ended.to_rows()
    assert json.loads(json.dumps(ended.to_dict()))["notes"] == [note]


def test_pairs_that_no_field_holds_are_past_retrying() -> None:
    tally = Tally(Count(95, 93, 2), Count(9, 9), unplaced=2, workers=[{}])
    (note,) = notes_on(config(), tally)
    assert note.startswith("2 of the pairs in quarantine cannot be retried: no field holds them")
    assert "quarantine/unplaced.json" in note
    assert "add their field to the survey, or mend the detections" in note


@pytest.mark.parametrize(
    ("pairs", "detections", "nearest", "said"),
    [
        (
            {"max_separation": 0.1},
            {"read": 2000, "used": 1600},
            0.43211,
            (
                "no pairs within pairs.max_separation = 0.1 arcsec: "
                "the nearest two of 1,600 detections are 0.4321 arcsec apart"
            ),
        ),
        (
            {},
            {"read": 1500, "used": 1},
            None,
            (
                "no pairs within pairs.max_separation = 2 arcsec: "
                "of 1,500 detections 1 lie on an image, and a pair takes two"
            ),
        ),
        (
            {"table": "/p.csv"},
            {"read": 9, "used": 9},
            None,
            "no pairs: the table has no rows (/p.csv)",
        ),
    ],
    ids=["too far apart", "no two", "empty table"],
)
def test_no_pairs_is_said_with_its_reason(
    pairs: dict[str, Any], detections: dict[str, int], nearest: float | None, said: str
) -> None:
    assert no_pairs(PairsConfig(**pairs), detections, nearest) == said
    tally = Tally(nearest_arcsec=nearest)
    tally.detections.update(detections)
    assert notes_on(config(pairs=pairs), tally) == (said,)
