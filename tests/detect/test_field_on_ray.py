"""Detection on the cluster: the same table whatever the tiles, and what goes wrong in a task."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import zarr

from deblend_batch.cli.main import main
from deblend_batch.detect.field import detect_field
from deblend_batch.errors import BadDataError
from tests.detect.drawn_field import SHAPE_YX, SOURCES_YX, make_field, nearest, read

pytestmark = pytest.mark.usefixtures("cluster")


@pytest.fixture(scope="module")
def field_url(tmp_path_factory: pytest.TempPathFactory) -> str:
    return make_field(str(tmp_path_factory.mktemp("detect") / "field.zarr"))


@pytest.fixture(scope="module")
def whole(cluster: None, field_url: str, tmp_path_factory: pytest.TempPathFactory) -> str:
    """The table that one tile finds, in this process."""
    url = str(tmp_path_factory.mktemp("detected") / "detections.parquet")
    detect_field(field_url, url, tile_size=600)
    return url


@pytest.mark.parametrize("tile_size", [128, 250])
def test_the_table_does_not_depend_on_tiles(
    field_url: str, whole: str, tmp_path: Path, tile_size: int
) -> None:
    url = str(tmp_path / "detections.parquet")
    summary = detect_field(field_url, url, tile_size=tile_size)
    assert summary.tiles > 1
    assert pq.read_table(url).equals(pq.read_table(whole))


def test_a_damaged_chunk_is_one_line_and_no_table(tmp_path: Path) -> None:
    field_url = make_field(str(tmp_path / "field.zarr"), variance=True)
    chunk = next(path for path in (tmp_path / "field.zarr/variance/c").rglob("*") if path.is_file())
    chunk.write_bytes(chunk.read_bytes()[:-7])
    with pytest.raises(BadDataError, match=r"field.zarr: .*cannot (be )?decode"):
        detect_field(field_url, str(tmp_path / "d.parquet"), tile_size=250)
    assert not (tmp_path / "d.parquet").exists()


def test_relative_paths_are_those_of_the_caller(
    field_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Workers have another working directory than the user's shell."""
    monkeypatch.chdir(Path(field_url).parent)
    relative = Path("..") / tmp_path.name / "detections.csv"
    assert main(["detect", "field.zarr", str(relative), "--tile-size", "250"]) == 0
    assert (tmp_path / "detections.csv").is_file()


def test_a_mesh_takes_a_background_away(tmp_path: Path) -> None:
    """A slope of many times the noise is one source without it; and tiles see the same surface."""
    url = make_field(str(tmp_path / "field.zarr"))
    image = zarr.open_array(f"{url}/image", mode="r+")
    noise = np.random.default_rng(8).normal(0, 0.01, SHAPE_YX)
    image[0] = np.asarray(image[0]) + noise + np.linspace(0, 2, SHAPE_YX[1])
    tables = [str(tmp_path / f"{size}.parquet") for size in (600, 128)]
    for table, tile_size in zip(tables, (600, 128), strict=True):
        detect_field(url, table, mesh_px=64, tile_size=tile_size)
    assert pq.read_table(tables[0]).equals(pq.read_table(tables[1]))
    rows, distance_px = nearest(url, read(tables[0]))
    assert sorted(rows.tolist()) == list(range(len(SOURCES_YX)))
    assert distance_px.max() < 0.5
