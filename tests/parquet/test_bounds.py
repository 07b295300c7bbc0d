"""Parquet files of strangers: one line and little memory, whatever they announce."""

from __future__ import annotations

import io
import re
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from deblend_batch.detections.table import Detections, read_detections
from deblend_batch.errors import DetectionsError, TooLargeError, UserError
from deblend_batch.parquet import footer, pages
from deblend_batch.parquet.file import Allowance, BoundedParquet
from deblend_batch.storage.unpacking import FREE_BYTES
from tests.limited import run_limited
from tests.parquet import hostile
from tests.parquet.hostile import (
    TEXT,
    Column,
    constant,
    double,
    page,
    parquet,
    several,
    struct,
    zeros,
)

REPOSITORY = Path(__file__).parents[2]
READ = """
import sys
from deblend_batch.detections.table import read_detections
from deblend_batch.errors import UserError
for url in sys.argv[1:]:
    try:
        print(sum(len(part) for part in read_detections(url)))
    except UserError as error:
        print(type(error).__name__, error)
"""

ZERO = double(0.0)
MANY = 1 << 40


def sky(n_rows: int, *, n_values: int | None = None, padding: int = 0) -> bytes:
    """A table of sources that are all at one place."""
    n = n_rows if n_values is None else n_values
    columns = [constant("id", bytes(8), n, hostile.INT64)]
    columns += [constant(name, ZERO, n) for name in ("ra", "dec")]
    return parquet(columns, n_rows, padding)


def one_page(unpacked: int) -> bytes:
    """A table whose first column announces one page of a size."""
    ids = Column("id", hostile.INT64, [page(bytes(8), 1, unpacked=unpacked)], 1)
    return parquet([ids, constant("ra", ZERO, 1), constant("dec", ZERO, 1)], 1)


def several_pages(n_values: int) -> bytes:
    """A table in which each of five columns has one page of zeros."""
    columns = [zeros(name, n_values) for name in ("ra", "dec", "mag", "radius")]
    return parquet([zeros("id", n_values, hostile.INT64), *columns], n_values, 10_000_000)


def longer_than_announced() -> bytes:
    """Ten values are announced of each column, and a page has 2 x 10^9."""
    ids = Column("id", hostile.INT64, constant("id", bytes(8), 2_000_000_000).pages, 10, True)
    return parquet([ids, constant("ra", ZERO, 10), constant("dec", ZERO, 10)], 10)


def one_chunk_for_all() -> bytes:
    """Three columns that are the same bytes."""
    ids = constant("id", bytes(8), 9, hostile.INT64)
    again = [Column(name, hostile.INT64, [b"", b""], 9, True, start=4) for name in ("ra", "dec")]
    longer = [Column(each.name, each.kind, ids.pages, 9, True, start=4) for each in again]
    return parquet([ids, *longer], 9)


def outside_the_file() -> bytes:
    """A column chunk behind the end."""
    return parquet([Column("id", hostile.INT64, constant("", ZERO, 9).pages, 9, start=MANY)], 9)


def short_chunks(n_chunks: int) -> bytes:
    """A footer of column chunks of three bytes."""
    chunk = struct({2: hostile.number(0)})[1]
    half = several(12, [chunk] * (n_chunks // 10))
    group = struct({1: half, 2: hostile.number(0), 3: hostile.number(0)})[1]
    return b"PAR1" + hostile.footer([("id", hostile.INT64)], [group] * 10)


def deep_schema(depth: int) -> bytes:
    """A schema of groups in groups."""
    root = struct({4: hostile.text("schema"), 5: hostile.small(1)})[1]
    inner = struct({3: hostile.small(0), 4: hostile.text("g"), 5: hostile.small(1)})[1]
    leaf = struct({1: hostile.small(2), 3: hostile.small(0), 4: hostile.text("id")})[1]
    message = struct(
        {
            1: hostile.small(1),
            2: several(12, [root, *[inner] * depth, leaf]),
            3: hostile.number(0),
            4: several(12, []),
        }
    )[1]
    return b"PAR1" + message + len(message).to_bytes(4, "little") + b"PAR1"


def long_footer() -> bytes:
    """A footer of a hundred million bytes."""
    return b"PAR1" + bytes(100_000_000) + (100_000_000).to_bytes(4, "little") + b"PAR1"


def text_ids(n_rows: int) -> bytes:
    """Ids that are texts of a million characters, one for all rows."""
    ids = constant("id", b"x" * 1_000_000, n_rows, TEXT)
    return parquet([ids, constant("ra", ZERO, n_rows), constant("dec", ZERO, n_rows)], n_rows)


BOMBS: dict[str, tuple[Callable[[], bytes], str]] = {
    "rows of one value": (lambda: sky(400_000_000), "TooLargeError .*announce 9,600,000,000 bytes"),
    "more rows than bytes count": (
        lambda: sky(MANY, n_values=MANY),
        "TooLargeError .*no real table does",
    ),
    "rows without values": (
        lambda: sky(MANY, n_values=9),
        "DetectionsError .*fewer values than its row",
    ),
    "less than no rows": (lambda: sky(-5, n_values=9), "DetectionsError .*less than no rows"),
    "a page of 2 GB": (
        lambda: one_page((1 << 31) - 1),
        "TooLargeError .*a page of 2,147,483,647 bytes",
    ),
    "a page of less than nothing": (
        lambda: one_page(-1),
        "DetectionsError .*page header is damaged",
    ),
    "five pages of 120 MB": (
        lambda: several_pages(15_000_000),
        "TooLargeError .*pages of more than",
    ),
    "more values than announced": (
        longer_than_announced,
        "DetectionsError .*more values than",
    ),
    "one chunk for all": (one_chunk_for_all, "DetectionsError .*overlap"),
    "outside the file": (outside_the_file, "DetectionsError .*"),
    "short chunks": (lambda: short_chunks(2_000_000), "TooLargeError .*column chunks"),
    "deep schema": (lambda: deep_schema(50_000), "DetectionsError .*cannot read"),
    "long footer": (long_footer, "TooLargeError .*footer of 100,000,000 bytes"),
    "text ids": (lambda: text_ids(1_000_000), "TooLargeError .*bytes of Parquet announce"),
}


def test_whatever_a_file_announces_it_is_one_line_and_little_memory(tmp_path: Path) -> None:
    urls = []
    for number, (make, _) in enumerate(BOMBS.values()):
        urls.append(tmp_path / f"{number}.parquet")
        urls[-1].write_bytes(make())
    ended = run_limited(["python", "-c", READ, *map(str, urls)], memory=950_000_000, cwd=REPOSITORY)
    lines = ended.out.splitlines()
    assert (ended.code, ended.err, len(lines)) == (0, "", len(BOMBS))
    for line, (name, (_, message)) in zip(lines, BOMBS.items(), strict=True):
        assert re.match(message.replace(" .*", " .*?"), line), name


MEANT = {"list": "is nested", "struct": "is nested", "date": r"holds .*; ids must be"}


@pytest.mark.parametrize("kind", list(MEANT))
def test_columns_that_hold_no_numbers_are_refused_before_a_row_is_read(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    values = {
        "list": pa.array([[1.0] * 9]),
        "struct": pa.array([{"a": 1.0}]),
        "date": pa.array([1], pa.date32()),
    }
    pq.write_table(pa.table({"id": [1], "ra": values[kind], "dec": [1.0]}), tmp_path / "a.parquet")
    monkeypatch.setattr(BoundedParquet, "batches", None)
    with pytest.raises(DetectionsError, match=rf"a.parquet: column 'ra' {MEANT[kind]}"):
        list(read_detections(f"{tmp_path}/a.parquet"))


def test_what_a_table_says_of_itself_is_shown_in_part(tmp_path: Path) -> None:
    struct_of_many = pa.array([{f"field{number}": 1 for number in range(2000)}])
    table = pa.table({"x" * 1_000_000: [1], "id": [1], "ra": struct_of_many, "dec": [1.0]})
    pq.write_table(table, tmp_path / "a.parquet")
    for wanted in ({}, {"ra": "none"}):
        with pytest.raises(DetectionsError) as raised:
            list(read_detections(f"{tmp_path}/a.parquet", wanted))
        assert len(str(raised.value)) < 600


SOURCES = 200_000


def columns(n: int = SOURCES) -> dict[str, np.ndarray]:
    """Ids that count up, positions of chance, and what nobody knows."""
    rng = np.random.default_rng(1)
    return {
        "id": np.arange(n),
        "ra": rng.uniform(0, 360, n),
        "dec": rng.uniform(-90, 90, n),
        "mag": np.full(n, 23.5, np.float32),
        "radius": np.full(n, np.nan),
    }


WRITERS: dict[str, dict[str, Any]] = {
    "pyarrow": {},
    "one page a column": {"max_rows_per_page": SOURCES, "data_page_size": 1 << 30},
    "delta-coded": {
        "use_dictionary": False,
        "column_encoding": {"id": "DELTA_BINARY_PACKED", "ra": "BYTE_STREAM_SPLIT"},
    },
    "second version of pages": {"data_page_version": "2.0", "version": "1.0"},
    "small row groups": {"row_group_size": 1000, "write_page_index": True},
    "no compression": {"compression": "none", "write_page_checksum": True},
    "zstd": {"compression": "zstd", "compression_level": 5},
}


@pytest.mark.parametrize("options", WRITERS.values(), ids=WRITERS.keys())
def test_what_others_write_is_read(options: dict[str, Any], tmp_path: Path) -> None:
    expected = columns()
    pq.write_table(pa.table(expected), tmp_path / "a.parquet", **options)
    found = Detections.concatenate(list(read_detections(f"{tmp_path}/a.parquet")))
    np.testing.assert_array_equal(found.id, expected["id"])
    np.testing.assert_array_equal(found.dec, expected["dec"])
    np.testing.assert_array_equal(found.mag, expected["mag"])


def test_what_pandas_writes_is_read(tmp_path: Path) -> None:
    pd = pytest.importorskip("pandas")
    pd.DataFrame(columns(1000)).to_parquet(tmp_path / "a.parquet")
    found = Detections.concatenate(list(read_detections(f"{tmp_path}/a.parquet")))
    np.testing.assert_array_equal(found.ra, columns(1000)["ra"])


def test_large_tables_are_far_from_the_bound() -> None:
    """Positions that are known to a thousandth of an arcsecond, beside ids that count and sentinels."""
    table = columns()
    for name in ("ra", "dec"):
        table[name] = np.round(table[name] * 3.6e6) / 3.6e6
    sink = io.BytesIO()
    pq.write_table(pa.table(table), sink, compression="zstd", compression_level=9)
    announced = 8 * len(table) * SOURCES
    assert announced / len(sink.getvalue()) < 300 / 20


def test_files_of_a_folder_share_what_they_may_unpack_to(tmp_path: Path) -> None:
    n_rows = FREE_BYTES // 24 // 10
    for number in range(20):
        (tmp_path / f"{number:02d}.parquet").write_bytes(sky(n_rows))
    with pytest.raises(TooLargeError, match="bytes of Parquet announce"):
        for _ in read_detections(str(tmp_path)):
            pass


def test_every_kind_of_column_is_read_as_pyarrow_reads_it() -> None:
    n = 3000
    table = pa.table(
        {
            "number": np.arange(n),
            "word": ["central", "companion"] * (n // 2),
            "text": pa.array(["ä", None] * (n // 2), pa.large_string()),
            "bytes": pa.array([b"\xff", None] * (n // 2)),
            "pair": pa.FixedSizeListArray.from_arrays(pa.array(np.arange(2.0 * n)), 2),
            "category": pa.array(["a", "b"] * (n // 2)).dictionary_encode(),
            "bool": [True, None] * (n // 2),
            "null": pa.nulls(n),
            "a.b": np.arange(n),
        }
    ).replace_schema_metadata({"made by": "a test"})
    sink = io.BytesIO()
    pq.write_table(table, sink, row_group_size=700, data_page_size=100)
    whole = pq.read_table(sink)
    found = BoundedParquet(sink).read()
    assert found.schema.equals(whole.schema, check_metadata=True)
    assert found.equals(whole)
    assert BoundedParquet(sink).read_group(4).equals(whole.slice(2800))
    some = ["text", "a.b"]
    assert BoundedParquet(sink).read(some).equals(whole.select(some))
    parts = pa.concat_tables(BoundedParquet(sink).batches(some, Allowance()))
    assert parts.equals(whole.select(some))


def test_a_long_text_that_is_repeated_is_not_written_out() -> None:
    content = parquet([constant("role", b"x" * 1_000_000, 100_000, TEXT)], 100_000)
    with pytest.raises(TooLargeError, match="announce 100,00"):
        BoundedParquet(io.BytesIO(content)).read()


small_table = pa.table(
    {
        "id": np.arange(60),
        "ra": np.linspace(0, 1, 60),
        "role": ["a", "b"] * 30,
        "pair": pa.FixedSizeListArray.from_arrays(pa.array(np.arange(120.0)), 2),
    }
)


@settings(max_examples=300, deadline=None)
@given(
    version=st.sampled_from(["1.0", "2.0"]),
    changes=st.lists(
        st.tuples(st.integers(1, 4000), st.integers(0, 255), st.integers(-3, 3)),
        min_size=1,
        max_size=6,
    ),
)
def test_damage_of_any_kind_is_one_kind_of_error(
    version: str, changes: list[tuple[int, int, int]]
) -> None:
    """Bytes are changed, left out or put in; the most interesting ones are near the end."""
    sink = io.BytesIO()
    pq.write_table(small_table, sink, data_page_version=version)
    content = bytearray(sink.getvalue())
    for back, value, longer in changes:
        place = max(len(content) - back, 0)
        content[place : place + max(-longer, 1)] = bytes([value]) * (
            longer + 1 if longer > 0 else 1
        )
    with suppress(UserError, pa.ArrowInvalid):
        BoundedParquet(io.BytesIO(bytes(content))).read()


def test_bounds_that_are_passed_by_one_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    sink = io.BytesIO()
    pq.write_table(pa.table(columns(10_000)), sink, compression="none")
    largest = 80_000
    monkeypatch.setattr(pages, "_MAX_PAGE_BYTES", largest + 100)
    BoundedParquet(sink).read()
    monkeypatch.setattr(pages, "_MAX_PAGE_BYTES", 10_000)
    with pytest.raises(TooLargeError, match="a page of"):
        BoundedParquet(sink).read()
    monkeypatch.setattr(footer, "_MAX_BYTES", 100)
    with pytest.raises(TooLargeError, match="a Parquet footer of"):
        BoundedParquet(sink)
