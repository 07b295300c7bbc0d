"""A plan: what a run would do, in numbers; needs no cluster and writes nothing."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from deblend_batch.config import make_config
from deblend_batch.engine.plan import RunPlan, plan_run
from tests.support import SmallField


def planned(small_field: SmallField, tmp_path: Path, **changes: Any) -> RunPlan:
    """Plan a run of the small field."""
    found = plan_run(make_config(small_field.config(str(tmp_path / "out"), **changes)))
    assert not (tmp_path / "out").exists()
    return found


def test_pairs_tiles_and_time(small_field: SmallField, tmp_path: Path) -> None:
    plan = planned(small_field, tmp_path)
    assert (plan.fields, plan.tiles, plan.tiles_done, plan.pairs) == (1, 9, 0, 93)
    assert plan.detections == {"read": 160, "not_finite": 0, "outside": 0, "used": 160}
    # Nine cores of at most 200 px with a halo of 17 px, one band.
    assert 4 * 500 * 600 < plan.read_bytes < 4 * 9 * 234**2
    assert plan.core_seconds == pytest.approx(93 / plan.stamps_per_second)
    assert plan.notes == ()


def test_no_pairs_is_said_with_its_reason(small_field: SmallField, tmp_path: Path) -> None:
    plan = planned(small_field, tmp_path, pairs={"max_separation": 0.001})
    assert (plan.pairs, plan.tiles, plan.stamps_per_second) == (0, 0, 0.0)
    (note,) = plan.notes
    assert note.startswith("no pairs within pairs.max_separation = 0.001 arcsec: the nearest two")
    assert ("note", note) in plan.to_rows()
