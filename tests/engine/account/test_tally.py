"""The tally: at any time, expected = written + quarantined + pending."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from deblend_batch.catalog.records import QuarantineRecord, Receipt
from deblend_batch.engine.account.tally import Tally
from deblend_batch.engine.inputs.count import Count
from deblend_batch.engine.inputs.index.file import FieldIndex


def receipt(pairs: int) -> Receipt:
    """A receipt of a tile whose every row is at an edge."""
    return Receipt("t", pairs, 2 * pairs, 0, "", "f", "m", {"EDGE": 2 * pairs}, {}, {}, "")


def record(pairs: int) -> QuarantineRecord:
    """A quarantine record."""
    return QuarantineRecord("t", "a chunk", "BadDataError", 1, [(n, n, n) for n in range(pairs)])


EVENTS: dict[str, Callable[[Tally, int], None]] = {
    "written": lambda tally, n: tally.add_receipt(receipt(n)),
    "held": lambda tally, n: tally.add_quarantine(record(n)),
    "nowhere": lambda tally, n: tally.add_unplaced(record(n)),
}


@given(st.lists(st.tuples(st.sampled_from(sorted(EVENTS)), st.integers(1, 50))))
def test_the_totals_always_add_up(events: list[tuple[str, int]]) -> None:
    in_tiles = [n for kind, n in events if kind != "nowhere"]
    tally = Tally(pairs=Count(sum(in_tiles)), tiles=Count(len(in_tiles)))
    for kind, n in events:
        EVENTS[kind](tally, n)
        totals = tally.totals()
        for counts in (totals["pairs"], totals["tiles"]):
            assert counts["expected"] == (
                counts["written"] + counts["quarantined"] + counts["pending"]
            )
        assert totals["rows"] == 2 * totals["pairs"]["written"] == totals["flags"].get("EDGE", 0)
    assert tally.pairs.pending == tally.tiles.pending == 0
    assert tally.unplaced == sum(n for kind, n in events if kind == "nowhere")


@pytest.mark.parametrize(
    ("distances", "nearest"),
    [([], None), ([None], None), ([3.0, None], 3.0), ([None, 3.0, 2.5], 2.5)],
)
def test_the_nearest_two_of_all_fields(
    distances: list[float | None], nearest: float | None
) -> None:
    tally = Tally()
    for distance in distances:
        no_rows = np.zeros(1, np.int64)
        tally.add_index(
            FieldIndex(
                "i", no_rows[:0].astype(np.int32), (), no_rows, (), {"read": 2}, (), distance
            )
        )
    assert tally.nearest_arcsec == nearest
    assert tally.detections["read"] == 2 * len(distances)
