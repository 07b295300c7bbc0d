"""A table says how its sources came to be, and a run passes it on."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from deblend_batch.detections.counted import KEY, dropped, read_counts, say_counts, to_metadata
from deblend_batch.detections.write import write_detections
from deblend_batch.errors import DetectionsError

COUNTS = {"detected": 1200, "added": 3, "kept": 1100, dropped("no flux"): 100, dropped("b"): 3}


def write(path: Path, metadata: dict[bytes, bytes] | None) -> str:
    """Write a table of one source."""
    write_detections(str(path), {"id": np.array([1])}, metadata=metadata)
    return str(path)


@pytest.mark.parametrize("suffix", ["parquet", "csv", "fits", "ecsv", "vot", "csv.gz"])
def test_what_is_written_is_read(tmp_path: Path, suffix: str) -> None:
    url = write(tmp_path / f"a.{suffix}", to_metadata(COUNTS))
    assert read_counts(url) == (COUNTS if suffix == "parquet" else {})


def test_a_table_that_says_nothing(tmp_path: Path) -> None:
    url = write(tmp_path / "a.parquet", to_metadata({}))
    assert read_counts(url) == read_counts(str(tmp_path)) == {}


def test_a_line_says_it() -> None:
    assert say_counts(COUNTS) == (
        "1,200 detected, 3 added, 103 dropped (no flux 100, b 3), 1,100 kept"
    )
    assert say_counts({"detected": 2, "kept": 2}) == "2 detected, 0 added, 0 dropped, 2 kept"


@pytest.mark.parametrize(
    "content",
    [
        *(b"no json", b"[1]", b"3", b"\xff", b'{"kept": -1}', b'{"kept": 1.5}', b'{"kept": true}'),
        *(b'{"kept": 99999999999999999999}', b'{"%s": 1}' % (b"a" * 101), b"[" * 100_000),
    ],
)
def test_what_are_no_counts_is_one_line(tmp_path: Path, content: bytes) -> None:
    url = write(tmp_path / "a.parquet", {KEY: content})
    with pytest.raises(
        DetectionsError, match=r"a.parquet: its metadata .* holds no counts; detect"
    ):
        read_counts(url)
