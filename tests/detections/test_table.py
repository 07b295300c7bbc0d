"""Detections and pairs tables."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from deblend_batch.detections.table import (
    Detections,
    check_unique,
    read_detections,
    read_pairs_table,
)
from deblend_batch.errors import DetectionsError


def detections(count: int, *, pixels: bool = False) -> Detections:
    numbers = np.arange(count, dtype=np.float64)
    return Detections(
        id=np.arange(count),
        ra=numbers,
        dec=-numbers,
        yx=np.stack([numbers, 2 * numbers], axis=1) if pixels else None,
        mag=numbers.astype(np.float32),
        radius_arcsec=numbers.astype(np.float32),
    )


@pytest.mark.parametrize("pixels", [True, False])
@pytest.mark.parametrize(
    "rows", [slice(1, 3), np.array([4, 0]), np.array([True] * 2 + [False] * 3)]
)
def test_rows_are_chosen_from_every_column(rows: Any, pixels: bool) -> None:
    whole = detections(5, pixels=pixels)
    part = whole[rows]
    assert part.id.tolist() == whole.id[rows].tolist()
    assert part.dec.tolist() == whole.dec[rows].tolist()
    assert (part.yx is None) is not pixels
    if part.yx is not None:
        assert part.yx[:, 0].tolist() == part.ra.tolist()


@pytest.mark.parametrize("pixels", [True, False])
def test_parts_join_to_the_whole(pixels: bool) -> None:
    whole = detections(7, pixels=pixels)
    joined = Detections.concatenate([whole[:2], whole[2:2], whole[2:]])
    assert len(joined) == 7
    assert joined.ra.tolist() == whole.ra.tolist()
    assert (joined.yx is None) is not pixels


def test_no_parts_are_no_rows() -> None:
    nothing = Detections.concatenate([])
    assert len(nothing) == 0
    assert (str(nothing.id.dtype), str(nothing.mag.dtype)) == ("int64", "float32")


@given(st.lists(st.integers(-(2**63), 2**63 - 1), max_size=50))
def test_repeated_ids_are_counted_and_the_first_is_named(ids: list[int]) -> None:
    repeated = {value for value in ids if ids.count(value) > 1}
    if not repeated:
        check_unique(np.array(ids, np.int64), "a.fits")
        return
    first = next(value for value in ids if value in repeated)
    message = f"^a.fits: {len(repeated)} values of column 'id' .* the first is {first};"
    with pytest.raises(DetectionsError, match=message):
        check_unique(np.array(ids, np.int64), "a.fits")


def test_large_tables_come_in_parts(tmp_path: Path) -> None:
    count = 1_200_000
    columns = {"id": np.arange(count), "ra": np.zeros(count), "dec": np.zeros(count)}
    pq.write_table(pa.table(columns), tmp_path / "a.parquet")
    parts = [len(part) for part in read_detections(f"{tmp_path}/a.parquet")]
    assert sum(parts) == count
    assert max(parts) < count / 2


def test_positions_that_are_not_finite_are_kept(tmp_path: Path) -> None:
    columns = {"id": [1, 2, 3], "x": [np.nan, np.inf, 1.0], "y": [1.0, 2.0, -1e9]}
    pq.write_table(pa.table(columns), tmp_path / "a.parquet")
    (part,) = read_detections(f"{tmp_path}/a.parquet")
    assert part.yx is not None
    np.testing.assert_array_equal(part.yx, [[1.0, np.nan], [2.0, np.inf], [-1e9, 1.0]])


def test_unknown_mapped_columns_are_refused_before_the_file_is_opened() -> None:
    with pytest.raises(DetectionsError, match="columns maps 'identifier'"):
        next(read_detections("none.fits", {"identifier": "NUMBER"}))


@pytest.mark.parametrize("names", [("central_id", "companion_id"), ("A", "B")])
def test_pairs(names: tuple[str, str], tmp_path: Path) -> None:
    pq.write_table(pa.table({names[1]: [2, 3], names[0]: [1, 2]}), tmp_path / "p.parquet")
    mapping = {} if names[0] == "central_id" else {"central_id": "A", "companion_id": "B"}
    ((central, companion),) = read_pairs_table(f"{tmp_path}/p.parquet", mapping)
    assert (central.tolist(), companion.tolist()) == ([1, 2], [2, 3])
    assert central.dtype == companion.dtype == np.int64


@pytest.mark.parametrize(
    ("columns", "mapping", "message"),
    [
        ({"central_id": [1]}, {}, "no column 'companion_id'; the table has central_id"),
        ({"central_id": [1.5], "companion_id": [2]}, {}, "column 'central_id' holds double"),
        ({"central_id": [1, None], "companion_id": [2, 3]}, {}, "'central_id' is empty in 1 rows"),
        (
            {"central_id": [1, 4], "companion_id": [2, 4]},
            {},
            "1 pairs join a source with itself, .* 4;",
        ),
        (
            {"central_id": [1, 2, 1], "companion_id": [2, 1, 3]},
            {},
            r"1 pairs occur more than once, the first is \(1, 2\)",
        ),
        ({"central_id": [1], "companion_id": [2]}, {"central": "a"}, "did you mean 'central_id'"),
        ({"central_id": [1], "companion_id": [2]}, {"central_id": "a"}, "no column 'a'"),
    ],
)
def test_pairs_that_cannot_be_used_are_refused(
    columns: dict[str, Any], mapping: dict[str, str], message: str, tmp_path: Path
) -> None:
    pq.write_table(pa.table(columns), tmp_path / "p.parquet")
    with pytest.raises(DetectionsError, match=f"^{tmp_path}/p.parquet: .*{message}"):
        list(read_pairs_table(f"{tmp_path}/p.parquet", mapping))


def test_a_pairs_table_without_rows_is_fine(tmp_path: Path) -> None:
    (tmp_path / "p.csv").write_text("central_id,companion_id\n")
    ((central, companion),) = read_pairs_table(f"{tmp_path}/p.csv")
    assert (len(central), len(companion)) == (0, 0)
