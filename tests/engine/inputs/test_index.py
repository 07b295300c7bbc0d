"""The index file: read back row for row, to the bit; damage is one line."""

from __future__ import annotations

import io
import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from deblend_batch.catalog.output import Output
from deblend_batch.engine.inputs.index import file as index_module
from deblend_batch.engine.inputs.index.file import FieldIndex, IndexReader, read_index
from deblend_batch.engine.inputs.index.indexing import build_index, index_field
from deblend_batch.engine.inputs.work import RunContext, TileSpec, load_blends, open_field
from deblend_batch.errors import CatalogError
from deblend_batch.tiling.blends import Blends
from deblend_batch.tiling.tile import TileGrid
from tests.engine.indexing import SHAPE_YX, columns_of, task_for, write_detections, write_field
from tests.limited import run_limited
from tests.parquet import hostile

OPEN = """
import sys
from deblend_batch.catalog.output import Output
from deblend_batch.engine.inputs.index.file import IndexReader, read_index
from deblend_batch.errors import UserError
output, url = Output(sys.argv[1]), sys.argv[2]
try:
    index = read_index(output, url)
    IndexReader(output, url).read(0, index.n_blends)
except UserError as error:
    print(type(error).__name__, error)
"""


@pytest.fixture(scope="module")
def field_url(tmp_path_factory: pytest.TempPathFactory) -> str:
    return write_field(tmp_path_factory.mktemp("index"))


@pytest.fixture(scope="module")
def crowded(
    field_url: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[FieldIndex, Blends]]:
    """An index of many pairs in row groups of 7 rows."""
    folder = tmp_path_factory.mktemp("crowded")
    yx = np.random.default_rng(5).uniform(0, np.array(SHAPE_YX) - 1, (400, 2))
    write_detections(folder / "detections.parquet", yx)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(index_module, "ROW_GROUP", 7)
        task = task_for(field_url, folder)
        index = index_field(task)
        _, pairs = build_index(task)
        assert pq.ParquetFile(index.url).num_row_groups > 4
        yield index, pairs


@given(data=st.data())
@settings(max_examples=40)
def test_any_rows_are_read_back_to_the_bit(
    crowded: tuple[FieldIndex, Blends], data: st.DataObject
) -> None:
    index, pairs = crowded
    start = data.draw(st.integers(0, len(pairs) - 1), "start")
    stop = data.draw(st.integers(start + 1, len(pairs)), "stop")
    read = IndexReader(Output(index.url.rsplit("/", 2)[0]), index.url).read(start, stop)
    assert columns_of(read) == columns_of(pairs, slice(start, stop))
    for name in Blends.__dataclass_fields__:
        assert getattr(read, name).dtype == getattr(pairs, name).dtype
        assert getattr(read, name).shape == getattr(pairs, name)[start:stop].shape


def test_an_index_is_read_back_as_it_was_built(crowded: tuple[FieldIndex, Blends]) -> None:
    built, _ = crowded
    read = read_index(Output(built.url.rsplit("/", 2)[0]), built.url)
    for name in ("tiles", "starts"):
        np.testing.assert_array_equal(getattr(read, name), getattr(built, name))
        assert getattr(read, name).dtype == getattr(built, name).dtype
    for name in ("url", "tile_names", "noise_sigma", "detections", "unplaced", "nearest_arcsec"):
        assert getattr(read, name) == getattr(built, name)


@pytest.mark.parametrize(
    "damage",
    ["cut", "no summary", "thrift", "tiles", "names", "types", "nested", "unsorted", "column"],
)
def test_a_damaged_index_is_one_line(field_url: str, tmp_path: Path, damage: str) -> None:
    write_detections(tmp_path / "detections.parquet", np.array([[5.0, 5.0], [7.0, 7.0]]))
    task = task_for(field_url, tmp_path)
    index_field(task)
    if damage == "cut":
        Path(task.url).write_bytes(Path(task.url).read_bytes()[:-20])
    elif damage == "thrift":
        content = bytearray(Path(task.url).read_bytes())
        content[-40:-8] = b"\xff" * 32
        Path(task.url).write_bytes(bytes(content))
    else:
        table = pq.read_table(task.url)
        summary = json.loads((table.schema.metadata or {})[b"deblend_batch_index"])
        changes: dict[str, object] = {
            "tiles": {"tiles": [1, 2, 3]},
            "names": {"tile_names": []},
            "types": {"tiles": [2**40]},
            "nested": {"detections": {"read": {"read": [1]}}},
        }
        summary |= changes.get(damage, {})
        metadata = None if damage == "no summary" else {"deblend_batch_index": json.dumps(summary)}
        if damage == "unsorted":
            table = table.set_column(0, "unit", pa.array([5] * len(table), pa.int32()))
        elif damage == "column":
            table = table.drop_columns(["unit"])
        pq.write_table(table.replace_schema_metadata(metadata), task.url)
    with pytest.raises(CatalogError, match=r"field.parquet: damaged .*; remove it and run again"):
        read_index(task.output, task.url)


def _one_group(pairs: pa.Table) -> bytes:
    """The rows of an index over and over, in one row group."""
    sink = io.BytesIO()
    pq.write_table(pa.concat_tables([pairs] * 20_000), sink, row_group_size=1 << 30)
    return sink.getvalue()


def _many_rows(pairs: pa.Table) -> bytes:
    """As many rows of the first unit as five million bytes may announce, and no other column."""
    n_rows = 300_000_000
    return hostile.parquet(
        [hostile.constant("unit", bytes(4), n_rows, hostile.INT32)], n_rows, 5_000_000
    )


@pytest.mark.parametrize("make", [_one_group, _many_rows])
def test_an_index_that_was_replaced_by_a_bomb_is_one_line(
    field_url: str, tmp_path: Path, make: Callable[[pa.Table], bytes]
) -> None:
    write_detections(tmp_path / "detections.parquet", np.array([[5.0, 5.0], [7.0, 7.0]]))
    task = task_for(field_url, tmp_path)
    index_field(task)
    Path(task.url).write_bytes(make(pq.read_table(task.url)))
    ended = run_limited(
        ["python", "-c", OPEN, task.output.url, task.url],
        memory=500_000_000,
        cwd=Path(__file__).parents[3],
    )
    assert (ended.code, ended.err) == (0, "")
    assert ended.out.startswith("CatalogError")
    assert "damaged" in ended.out


def test_units_that_are_not_those_of_the_summary_are_damage(field_url: str, tmp_path: Path) -> None:
    write_detections(tmp_path / "detections.parquet", np.array([[5.0, 5.0], [7.0, 7.0]]))
    task = task_for(field_url, tmp_path)
    index_field(task)
    url = task.output.index_url(task.entry.index_name())
    table = pq.read_table(url)
    for unit in (-1, 1, 2**31 - 1):
        other = table.set_column(0, "unit", pa.array([unit], pa.int32()))
        pq.write_table(other, url)
        with pytest.raises(CatalogError, match=r"field.parquet: damaged \(its rows are not those"):
            read_index(task.output, url)


def test_rows_that_are_none_are_one_line(
    crowded: tuple[FieldIndex, Blends], tmp_path: Path
) -> None:
    built, _ = crowded
    output, url = Output(str(tmp_path / "out")), str(tmp_path / "out" / "index" / "field.parquet")
    Path(url).parent.mkdir(parents=True)
    table = pq.read_table(built.url)
    for name in ("yx", "blend_id"):
        pq.write_table(table.drop_columns([name]), url)
        with pytest.raises(CatalogError, match=r"field\.parquet: damaged .*; remove it and run"):
            IndexReader(output, url).read(0, 1)
    Path(url).write_bytes(b"PAR1")
    with pytest.raises(CatalogError, match=r"field\.parquet: damaged"):
        IndexReader(output, url)


def test_a_process_that_lives_on_does_not_keep_what_another_run_opened(
    field_url: str, tmp_path: Path
) -> None:
    """Ray's processes are shared by the runs of a session, which may make one output twice."""
    task = task_for(field_url, tmp_path)
    for n in (3, 4):
        yx = np.array([[20.0, 20.0 + step] for step in range(n)])
        write_detections(tmp_path / "detections.parquet", yx)
        shutil.rmtree(tmp_path / "index", ignore_errors=True)
        index = index_field(task)
        core = TileGrid(SHAPE_YX, task.tile_size).core(int(index.tiles[0]))
        spec = TileSpec("y0000x0000", field_url, task.url, core, 0, index.n_blends, (1.0,))
        output = Output(str(tmp_path), {"nested": {}})
        context = RunContext(output, "tiny", None, False, f"run of {n} sources", "")
        assert len(load_blends(spec, context)) == n * (n - 1) // 2
        assert open_field(field_url, context) is open_field(field_url, context)
