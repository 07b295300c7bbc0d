"""Every source that ever was stands once, with what was last said of it."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from deblend_batch.field.layout import Field, create_field, finish_field
from deblend_batch.refine.provenance import counts_of, provenance_of
from deblend_batch.refine.rounds import Dropped
from deblend_batch.refine.sources import Sources
from tests.support import make_meta

IDS = st.sets(st.integers(1, 12))


@pytest.fixture(scope="module")
def field(tmp_path_factory: pytest.TempPathFactory) -> Field:
    """An empty one: it knows the sky."""
    url = str(tmp_path_factory.mktemp("provenance") / "field.zarr")
    meta = make_meta()
    finish_field(create_field(url, meta, (64, 64), with_variance=False), meta)
    return Field.open(url)


def sources_of(ids: set[int], number: int) -> Sources:
    """Sources whose flux tells the round that they were last seen in."""
    n = len(ids)
    flux = np.full(n, float(number))
    return Sources(
        np.array(sorted(ids), np.int64),
        np.full((n, 2), 5.0),
        np.full((n, 2), 0.1),
        flux,
        flux,
        flux,
        np.zeros(n, np.int32),
        np.zeros(n, bool),
        np.full(n, number, np.int16),
    )


@settings(max_examples=30, deadline=None)
@given(detected=IDS, kept=IDS, gone=st.lists(IDS, max_size=3))
def test_each_id_has_one_row(
    field: Field, detected: set[int], kept: set[int], gone: list[set[int]]
) -> None:
    """Also one that was dropped, came again and was dropped again, or stayed."""
    dropped = [
        Dropped(sources_of(ids, number), np.full(len(ids), f"why {number}"), np.full(len(ids), 99))
        for number, ids in enumerate(gone, 1)
    ]
    last = len(gone) + 1
    found = np.array(sorted(detected), np.int64)
    table = provenance_of(found, sources_of(kept, last), dropped, field)
    everyone = sorted(kept.union(*gone))
    assert table["id"].tolist() == everyone
    for row, one in enumerate(everyone):
        number = max([last] * (one in kept) + [n for n, ids in enumerate(gone, 1) if one in ids])
        is_kept = one in kept
        assert table["fate"][row] == ("kept" if is_kept else "dropped")
        assert table["reason"][row] == ("" if is_kept else f"why {number}")
        assert table["beside"][row] == (-1 if is_kept else 99)
        assert table["round"][row] == table["flux"][row] == number
        assert table["origin"][row] == ("detected" if one in detected else "added")
    counts = counts_of(table)
    n_dropped = sum(n for name, n in counts.items() if name.startswith("dropped: why "))
    assert counts["detected"] + counts["added"] == len(everyone) == counts["kept"] + n_dropped
