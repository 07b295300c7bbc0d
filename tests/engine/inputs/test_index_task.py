"""Indexing: the same pairs whatever the tiles, each owned once; what cannot be used is listed."""

from __future__ import annotations

import pickle
import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from deblend_batch import storage
from deblend_batch.catalog.output import Output
from deblend_batch.config import PairsConfig
from deblend_batch.engine.inputs.index import predetected, unused
from deblend_batch.engine.inputs.index.file import FieldIndex, UnplacedPair, read_index
from deblend_batch.engine.inputs.index.indexing import build_index, index_field
from deblend_batch.errors import DetectionsError, TooLargeError
from deblend_batch.parquet import file as parquet_file
from deblend_batch.tiling.blends import Blends
from deblend_batch.tiling.grouping import BlendRules
from deblend_batch.tiling.pairing import match_within
from deblend_batch.tiling.tile import TileGrid
from tests.engine.indexing import SHAPE_YX, columns_of, task_for, write_detections, write_field
from tests.limited import run_limited
from tests.parquet.hostile import INT64, constant, counting, double, parquet

DIVISIONS = ((64, 4096), (100, 4096), (256, 16), (4096, 3), (4096, 4096))
BORDERS = (0, 64, 100, 128, 192, 256, 300)
"""Where a core of one of the tile sizes begins, along either axis."""


@pytest.fixture(scope="module")
def field_url(tmp_path_factory: pytest.TempPathFactory) -> str:
    return write_field(tmp_path_factory.mktemp("index"))


coordinate = st.one_of(
    # On, just before and just after a border: a pixel reaches half a pixel round its centre.
    st.builds(
        lambda border, offset: border + offset,
        st.sampled_from(BORDERS),
        st.sampled_from([-3.5, -0.75, -0.5, -0.25, 0.0, 0.5, 2.5]),
    ),
    st.integers(0, 299).map(float),
)
groups = st.lists(
    # A group: a place, and how its one to five sources lie round it; (0, 0) twice is one position.
    st.tuples(
        st.tuples(coordinate, coordinate),
        st.lists(
            st.tuples(st.integers(-8, 8), st.integers(-8, 8)).map(
                lambda yx: (yx[0] / 4, yx[1] / 4)
            ),
            min_size=1,
            max_size=5,
        ),
    ),
    max_size=8,
)


@settings(max_examples=20, deadline=None)
@given(groups=groups, seed=st.integers(0, 9))
def test_pairs_do_not_depend_on_tiles_and_each_has_one_owner(
    field_url: str, tmp_path_factory: pytest.TempPathFactory, groups: list[Any], seed: int
) -> None:
    folder = tmp_path_factory.mktemp("detections")
    yx = np.array(
        [np.add(place, offset) for place, offsets in groups for offset in offsets], np.float64
    ).reshape(-1, 2)
    rng = np.random.default_rng(seed)
    ids = rng.permutation(len(yx)).astype(np.int64)
    mag = rng.choice([20.0, 21.0, np.nan], len(yx))
    write_detections(folder / "detections.parquet", yx, ids, mag)
    found = [
        build_index(task_for(field_url, folder, tile_size=size, max_blends=most))
        for size, most in DIVISIONS
    ]
    shutil.rmtree(folder)

    reference = columns_of(found[-1][1])
    for (size, most), (index, pairs) in zip(DIVISIONS, found, strict=True):
        assert columns_of(pairs, np.argsort(pairs.blend_id)) == reference
        assert len(np.unique(pairs.blend_id)) == len(pairs) == index.n_blends
        check_owners(index, pairs, size, most)
    check_complete(found[-1][1], yx, ids)


def check_owners(index: FieldIndex, pairs: Blends, size: int, most: int) -> None:
    """Each pair's tile is the one whose core holds its central, and no unit of work is large."""
    grid = TileGrid(SHAPE_YX, size)
    edge = np.array(SHAPE_YX) - 0.5
    owner = np.repeat(index.tiles, np.diff(index.starts))
    for tile, central in zip(owner.tolist(), pairs.yx[:, 0], strict=True):
        core, inside = grid.core(tile), np.clip(central, -0.5, np.nextafter(edge, 0))
        assert core.y0 - 0.5 <= inside[0] < core.y1 - 0.5
        assert core.x0 - 0.5 <= inside[1] < core.x1 - 0.5
    assert [name.split("-")[0] for name in index.tile_names] == [
        grid.name(tile) for tile in index.tiles.tolist()
    ]
    assert len(set(index.tile_names)) == len(index.tile_names)
    assert np.diff(index.starts).max(initial=0) <= most
    for start, stop in zip(index.starts[:-1], index.starts[1:], strict=True):
        assert (np.diff(pairs.blend_id[start:stop]) > 0).all()


def check_complete(pairs: Blends, yx: np.ndarray, ids: np.ndarray) -> None:
    """Every close pair with a member in the image is there, copies at one very position aside."""
    _, firsts = np.unique(yx[np.argsort(ids)], axis=0, return_index=True)
    kept = np.argsort(ids)[firsts]
    yx, ids = yx[kept], ids[kept]
    inside = np.all((yx >= -0.5) & (yx < np.array(SHAPE_YX) - 0.5), axis=1)
    expected = {
        frozenset((int(ids[i]), int(ids[j])))
        for i in range(len(yx))
        for j in range(i)
        # Pixels of a tangential projection are 0.1 arcsec to a part in 1e7 here; 6 px are 0.6 arcsec.
        if (inside[i] or inside[j]) and np.hypot(*(yx[i] - yx[j])) < 6 - 1e-3
    }
    found = {frozenset(members) for members in pairs.source_id.tolist()}
    assert expected <= found
    distances = np.hypot(*(pairs.yx[:, 0] - pairs.yx[:, 1]).T)
    assert (distances < 6 + 1e-3).all()


def test_an_index_that_is_there_is_taken_as_it_is(field_url: str, tmp_path: Path) -> None:
    write_detections(tmp_path / "detections.parquet", np.array([[5.0, 5.0], [7.0, 7.0]]))
    first = index_field(task_for(field_url, tmp_path))
    (tmp_path / "detections.parquet").unlink()
    assert index_field(task_for(field_url, tmp_path)).n_blends == first.n_blends == 1


def test_the_driver_holds_tiles_and_no_pairs(field_url: str, tmp_path: Path) -> None:
    """Ten times the pairs in the same tiles are no more bytes to the driver."""
    sizes = []
    for n in (2, 20):
        yx = np.array([[50.0, 50.0], [50.0, 150.0], [150.0, 50.0]])
        rows = np.repeat(yx, n, axis=0) + np.tile(np.linspace(0, 1, n), 3)[:, None]
        write_detections(tmp_path / "detections.parquet", rows)
        index, pairs = build_index(task_for(field_url, tmp_path))
        assert len(pairs) == 3 * n * (n - 1) // 2
        assert len(index.tiles) == len(index.tile_names) == len(index.starts) - 1 == 3
        sizes.append(len(pickle.dumps(index)))
    assert sizes[0] == sizes[1]


@pytest.mark.parametrize("keep", [True, False], ids=["run", "plan"])
def test_detections_that_cannot_be_used_are_listed(
    field_url: str, tmp_path: Path, keep: bool
) -> None:
    yx = np.array(
        [[10.0, 10.0], [12.0, 10.0], [np.nan, 5.0], [-9.0, 5.0], [1e6, 5.0], [-1.0, 90.0]]
    )
    write_detections(tmp_path / "detections.parquet", yx)
    task = task_for(field_url, tmp_path, keep_unused=keep)
    index, _ = build_index(task)
    assert index.detections == {"read": 6, "used": 2, "not_finite": 1, "outside": 3}
    assert storage.exists(task.output.unused_url("field")) is keep
    if keep:
        assert pq.read_table(task.output.unused_url("field")).to_pylist() == [
            {"id": 3, "reason": "position is not finite"},
            {"id": 4, "reason": "outside the image"},
            {"id": 5, "reason": "outside the image"},
            {"id": 6, "reason": "outside the image"},
        ]


def test_nothing_is_listed_where_everything_is_used(field_url: str, tmp_path: Path) -> None:
    write_detections(tmp_path / "detections.parquet", np.array([[10.0, 10.0]]))
    task = task_for(field_url, tmp_path)
    assert index_field(task).n_blends == 0
    assert storage.list_names(str(tmp_path / "index")) == ["field.parquet"]


@pytest.mark.parametrize(
    ("yx", "nearest"),
    [
        ([[10.0, 10.0], [50.0, 10.0], [200.0, 70.0], [200.0, 77.0]], 0.7),
        # Of the two closest none is in the image: they would be no pair of this field.
        ([[-8.0, 10.0], [-9.0, 10.0], [50.0, 10.0]], 5.8),
        ([[10.0, 10.0]], None),
        ([[-8.0, 10.0], [-9.0, 10.0]], None),
        ([], None),
    ],
    ids=["in the image", "one outside", "one source", "none in the image", "no source"],
)
def test_where_no_pair_is_found_the_nearest_two_are_known(
    field_url: str, tmp_path: Path, yx: list[list[float]], nearest: float | None
) -> None:
    write_detections(tmp_path / "detections.parquet", np.array(yx).reshape(-1, 2))
    index = index_field(task_for(field_url, tmp_path))
    assert index.n_blends == 0
    assert index.nearest_arcsec == (nearest and pytest.approx(nearest, rel=1e-5))
    assert read_index(Output(str(tmp_path)), index.url).nearest_arcsec == index.nearest_arcsec


PAIR_SOURCES = np.array([[10.0, 10.0], [12.0, 10.0], [280.0, 300.0], [-4.0, 9.0], [-5.0, 9.0]])
"""Ids 1 to 5: two close, one far away, two just outside the image."""


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"central_id": [1, 2], "companion_id": [2, 2]}, "1 pairs join a source with itself"),
        (
            {"central_id": [1, 2], "companion_id": [2, 1]},
            r"1 pairs occur more than once, .*\(1, 2\)",
        ),
        ({"central_id": [1]}, "pairs.parquet: .*companion_id"),
        ({"central_id": [1.5], "companion_id": [2.5]}, "pairs.parquet: .*central_id"),
    ],
    ids=["with itself", "twice", "no companion", "fractions"],
)
def test_a_pairs_table_that_cannot_be_used_is_refused(
    field_url: str, tmp_path: Path, columns: dict[str, Any], message: str
) -> None:
    write_detections(tmp_path / "detections.parquet", PAIR_SOURCES)
    pq.write_table(pa.table(columns), tmp_path / "pairs.parquet")
    pairs = PairsConfig(table=str(tmp_path / "pairs.parquet"))
    with pytest.raises(DetectionsError, match=message):
        build_index(task_for(field_url, tmp_path, pairs=pairs))


@pytest.mark.parametrize(
    ("central", "companion", "placed", "reason"),
    [
        (1, 2, True, ""),
        (2, 1, True, ""),
        (1, 3, True, ""),
        (4, 1, True, ""),
        (1, 99, False, "a member is not in the detection table"),
        (4, 5, False, "both members are outside the image"),
    ],
    ids=[
        "close",
        "roles as told",
        "far apart",
        "central outside",
        "unknown member",
        "both outside",
    ],
)
def test_predetected_pairs_are_taken_as_they_are(
    field_url: str, tmp_path: Path, central: int, companion: int, placed: bool, reason: str
) -> None:
    write_detections(tmp_path / "detections.parquet", PAIR_SOURCES)
    table = pa.table({"central_id": [central], "companion_id": [companion]})
    pq.write_table(table, tmp_path / "pairs.parquet")
    task = task_for(field_url, tmp_path, pairs=PairsConfig(table=str(tmp_path / "pairs.parquet")))
    index, pairs = build_index(task)
    assert pairs.source_id.tolist() == ([[central, companion]] if placed else [])
    assert [type(pair) for pair in index.unplaced] == ([] if placed else [UnplacedPair])
    assert all(pair.reason.startswith(reason) for pair in index.unplaced)


def test_pairs_for_a_table_without_detections(field_url: str, tmp_path: Path) -> None:
    write_detections(tmp_path / "detections.parquet", np.empty((0, 2)))
    table = pa.table({"central_id": [1], "companion_id": [2]})
    pq.write_table(table, tmp_path / "pairs.parquet")
    task = task_for(field_url, tmp_path, pairs=PairsConfig(table=str(tmp_path / "pairs.parquet")))
    index = index_field(task)
    assert (index.n_blends, len(index.unplaced)) == (0, 1)
    assert read_index(Output(str(tmp_path)), task.url).unplaced == index.unplaced


def test_positions_on_the_sky_give_the_pairs_of_their_pixels(
    field_url: str, tmp_path: Path
) -> None:
    from deblend_batch.field.layout import Field

    yx = np.random.default_rng(1).uniform(0, np.array(SHAPE_YX) - 1, (200, 2))
    radec = Field.open(field_url).pixel_to_world(yx)
    table = {"id": np.arange(200), "ra": radec[:, 0], "dec": radec[:, 1]}
    pq.write_table(pa.table(table), tmp_path / "detections.parquet")
    _, pairs = build_index(task_for(field_url, tmp_path))
    assert len(pairs) == len(match_within(radec[:, 0], radec[:, 1], 0.6)) > 0
    np.testing.assert_allclose(pairs.yx, yx[pairs.source_id], atol=1e-6)
    np.testing.assert_array_equal(pairs.radec, radec[pairs.source_id])


INDEX = """
import sys
from pathlib import Path
from deblend_batch.engine.inputs.index.indexing import build_index
from deblend_batch.errors import UserError
from tests.engine.indexing import task_for
for folder in sys.argv[2:]:
    try:
        index, pairs = build_index(task_for(sys.argv[1], Path(folder)))
        print(index.detections)
    except UserError as error:
        print(type(error).__name__, error)
"""
FIVE_MB = 5_000_000


def bomb(name: str, n_rows: int) -> bytes:
    """A table of five million bytes, nearly all of which belong to nothing."""
    ids = constant("id", bytes(8), n_rows, INT64) if name == "equal" else counting("id", n_rows)
    place = double(50.0 if name == "near" else 1e9)
    columns = [ids, constant("x", place, n_rows), constant("y", place, n_rows)]
    return parquet(columns, n_rows, FIVE_MB)


ROWS = {
    "equal rows": (
        "equal",
        60_000_000,
        "DetectionsError .*: at least 1 values of column 'id' occur",
    ),
    "all in the image": (
        "near",
        60_000_000,
        "TooLargeError .*: more sources than .*field.zarr has pixels",
    ),
    "all at one place": ("near", 100_000, "{'read': 100000, .* 'used': 1, 'copies': 99999}"),
    "all outside": (
        "far",
        3_000_000,
        "{'read': 3000000, 'not_finite': 0, 'outside': 3000000, 'used': 0}",
    ),
}


def test_rows_that_cost_nothing_take_no_memory(field_url: str, tmp_path: Path) -> None:
    """All in one process, whose imports take longer than its answers."""
    folders = [tmp_path / name for name in ROWS]
    for folder, (name, n_rows, _) in zip(folders, ROWS.values(), strict=True):
        folder.mkdir()
        (folder / "detections.parquet").write_bytes(bomb(name, n_rows))
    ended = run_limited(
        ["python", "-c", INDEX, field_url, *map(str, folders)],
        memory=750_000_000,
        seconds=240,
        disk=1 << 24,
        cwd=Path(__file__).parents[3],
    )
    assert (ended.code, ended.err) == (0, "")
    for folder, (_, _, line), said in zip(
        folders, ROWS.values(), ended.out.splitlines(), strict=True
    ):
        assert re.match(line, said)
        listed = folder / "index" / "field.unused.parquet"
        assert not listed.exists() or listed.stat().st_size < 1 << 23


def test_the_list_of_what_is_not_used_has_an_end(
    field_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(unused, "MOST_LISTED", 3)
    monkeypatch.setattr(parquet_file, "_ROWS", 2)
    write_detections(tmp_path / "detections.parquet", np.full((9, 2), -100.0))
    task = task_for(field_url, tmp_path)
    index, _ = build_index(task)
    assert index.n_unused == 9
    assert pq.read_table(task.output.unused_url(task.entry.index_name()))["id"].to_pylist() == [
        1,
        2,
        3,
    ]


def test_ids_that_repeat_far_apart_are_refused(
    field_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(parquet_file, "_ROWS", 2)
    ids = np.array([7, 8, 9, 10, 7])
    write_detections(tmp_path / "detections.parquet", np.full((5, 2), -100.0), ids)
    with pytest.raises(DetectionsError, match=r"1 values of column 'id' .* the first is 7"):
        build_index(task_for(field_url, tmp_path))


def test_pairs_that_repeat_far_apart_are_refused(
    field_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(parquet_file, "_ROWS", 2)
    write_detections(tmp_path / "detections.parquet", PAIR_SOURCES)
    table = pa.table({"central_id": [1, 2, 3, 1, 2], "companion_id": [2, 3, 4, 4, 1]})
    pq.write_table(table, tmp_path / "pairs.parquet")
    pairs = PairsConfig(table=str(tmp_path / "pairs.parquet"))
    with pytest.raises(DetectionsError, match=r"1 pairs occur more than once, .*\(1, 2\)"):
        build_index(task_for(field_url, tmp_path, pairs=pairs))


def test_a_pairs_table_of_another_survey_is_refused(
    field_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(predetected, "MOST_UNPLACED", 3)
    write_detections(tmp_path / "detections.parquet", PAIR_SOURCES)
    table = pa.table({"central_id": [1, 91, 92, 93, 94], "companion_id": [2, 81, 82, 83, 84]})
    pq.write_table(table, tmp_path / "pairs.parquet")
    pairs = PairsConfig(table=str(tmp_path / "pairs.parquet"))
    with pytest.raises(TooLargeError, match=r"pairs.parquet: more than 3 pairs that no field"):
        build_index(task_for(field_url, tmp_path, pairs=pairs))


@pytest.mark.parametrize(
    ("mag", "rules", "said"),
    [
        (None, BlendRules(), True),
        (np.array([20.0, np.nan, np.nan]), BlendRules(), False),
        (None, None, False),  # networks are told of neighbours, whatever their light
    ],
)
def test_that_nobody_knows_how_bright_sources_are_is_said(
    mag: np.ndarray | None, rules: BlendRules | None, said: bool, field_url: str, tmp_path: Path
) -> None:
    yx = np.array([[50.0, 50.0], [120.0, 80.0], [250.0, 300.0]])
    write_detections(tmp_path / "detections.parquet", yx, mag=mag)
    index, _ = build_index(task_for(field_url, tmp_path, rules=rules))
    assert any("magnitudes unknown" in line for line in index.said) == said
