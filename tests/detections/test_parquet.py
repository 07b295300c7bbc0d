"""Folders of Parquet files, HATS catalogues and collections."""

from __future__ import annotations

import os
from pathlib import Path

import fsspec
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from deblend_batch.detections.formats import parquet
from deblend_batch.detections.formats.parquet import data_files
from deblend_batch.detections.table import Detections, read_detections
from deblend_batch.errors import DetectionsError, StorageError, TooLargeError


def write(path: Path, first: int, count: int = 3) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    ids = np.arange(first, first + count)
    pq.write_table(pa.table({"id": ids, "ra": ids * 1.0, "dec": ids * 0.5}), path)


def ids(url: str) -> list[int]:
    return list(Detections.concatenate(list(read_detections(url))).id)


def hats_catalogue(root: Path, first: int = 0) -> Path:
    write(root / "dataset/Norder=1/Dir=0/Npix=7.parquet", first)
    write(root / "dataset/Norder=2/Dir=0/Npix=9/part0.parquet", first + 3)
    write(root / "dataset/_metadata", 900)
    write(root / "dataset/_common_metadata", 900)
    write(root / "dataset/data_thumbnail.parquet", 900)
    (root / "hats.properties").write_text("obs_collection=a\n")
    (root / "partition_info.csv").write_text("Norder,Npix\n1,7\n2,9\n")
    return root


def test_a_folder_of_files_in_the_order_of_their_names(tmp_path: Path) -> None:
    write(tmp_path / "b.parquet", 3)
    write(tmp_path / "a.parquet", 0)
    write(tmp_path / "deep/er/c.pq", 6)
    write(tmp_path / "_metadata", 900)
    write(tmp_path / ".hidden.parquet", 900)
    write(tmp_path / "_temporary/x.parquet", 900)
    (tmp_path / "README.txt").write_text("no table")
    assert ids(str(tmp_path)) == list(range(9))


@pytest.mark.parametrize("slash", ["", "/"])
def test_a_hats_catalogue_by_its_leaves(slash: str, tmp_path: Path) -> None:
    assert ids(str(hats_catalogue(tmp_path / "cat")) + slash) == list(range(6))


def test_a_hats_collection_by_its_primary_table(tmp_path: Path) -> None:
    hats_catalogue(tmp_path / "cat")
    hats_catalogue(tmp_path / "cat_10arcs", 500)
    (tmp_path / "collection.properties").write_text(
        "#HATS\nobs_collection=a\nhats_primary_table_url = cat\nall_margins=cat_10arcs\n"
    )
    assert ids(str(tmp_path)) == list(range(6))


def nested(n: int) -> pa.Table:
    """What LSDB makes of sources with light curves, and other columns without a value a row."""
    curve = {"t": [1.0, 2.0], "flux": [3.0, 4.0]}
    lists = pa.list_(pa.float64())
    return pa.table(
        {
            "curve": pa.array([curve] * n, pa.struct([("t", lists), ("flux", lists)])),
            "spectrum": pa.array([[1.0] * 8] * n, pa.list_(pa.float32(), 8)),
            "epochs": pa.array([[{"a": 1}]] * n),
            "pairs": pa.array([[("a", 1)]] * n, pa.map_(pa.string(), pa.int64())),
        }
    )


@pytest.fixture
def collection(tmp_path: Path) -> Path:
    """A catalogue with its margin cache and its index beside it."""
    for name, kind in (("cat", "object"), ("cat_10arcs", "margin"), ("cat_id", "index")):
        leaf = tmp_path / name / "dataset/Norder=0/Dir=0/Npix=1.parquet"
        write(leaf, 0)
        table = pq.read_table(leaf).rename_columns(["id", "coord_ra", "coord_dec"])
        for column in nested(3).column_names:
            table = table.append_column(column, nested(3)[column])
        pq.write_table(table, leaf)
        (tmp_path / name / "hats.properties").write_text(
            f"dataproduct_type = {kind}\nhats_col_ra = coord_ra\nhats_col_dec=coord_dec\n"
        )
    (tmp_path / "collection.properties").write_text(
        "hats_primary_table_url=cat\nall_margins=cat_10arcs\nall_indexes=id cat_id\n"
    )
    return tmp_path


@pytest.mark.parametrize("name", ["", "cat"])
def test_a_catalogue_says_where_its_positions_are(name: str, collection: Path) -> None:
    """Beside nested columns, which are left out."""
    (found,) = read_detections(str(collection / name))
    np.testing.assert_array_equal(found.ra, [0, 1, 2])
    np.testing.assert_array_equal(found.dec, [0, 0.5, 1])


def test_what_the_user_maps_counts_for_more(collection: Path) -> None:
    (found,) = read_detections(str(collection), {"x": "coord_ra", "y": "coord_dec"})
    assert found.yx is not None
    with pytest.raises(
        DetectionsError, match=r"'curve' is nested \(struct.* name one with a value a"
    ):
        list(read_detections(str(collection), {"mag": "curve"}))


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("cat_10arcs", "is the 'margin' of a catalogue, in which rows stand twice"),
        ("cat_id", "is the 'index' of a catalogue"),
    ],
)
def test_what_stands_beside_a_catalogue_is_no_table(
    name: str, message: str, collection: Path
) -> None:
    with pytest.raises(DetectionsError, match=message):
        list(read_detections(str(collection / name)))


def test_a_folder_of_catalogues_is_asked_which(collection: Path) -> None:
    (collection / "collection.properties").unlink()
    with pytest.raises(
        DetectionsError, match=r"HATS catalogues \(cat, cat_10arcs, cat_id\); give the"
    ):
        list(read_detections(str(collection)))


def test_a_collection_names_no_table_outside_itself(tmp_path: Path) -> None:
    hats_catalogue(tmp_path / "cat")
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "collection.properties").write_text("hats_primary_table_url = ../cat\n")
    with pytest.raises(StorageError, match=r"in: '\.\./cat' cannot be the name of a file here"):
        ids(str(tmp_path / "in"))


@pytest.mark.parametrize(
    "name",
    [
        "/etc",
        "..",
        "cat/../../cat",
        "http://example.org/cat",
        "file:///etc/cat",
        "reference://cat.json",
        "file::zip://cat.zip",
        "zip://cat::file:///etc/cat.zip",
        "*",
        "",
    ],
)
def test_a_property_names_a_folder_here_and_nothing_else(name: str, tmp_path: Path) -> None:
    hats_catalogue(tmp_path / "cat")
    (tmp_path / "collection.properties").write_text(f"hats_primary_table_url = {name}\n")
    with pytest.raises(StorageError, match="cannot be the name of a file here"):
        ids(str(tmp_path))


def test_properties_are_read_up_to_a_size(tmp_path: Path) -> None:
    with (tmp_path / "collection.properties").open("wb") as file:
        file.truncate(1 << 40)
    with pytest.raises(TooLargeError, match=r"collection.properties: more than 65,536 bytes"):
        ids(str(tmp_path))


def test_links_lead_to_files_of_the_same_folder(tmp_path: Path) -> None:
    write(tmp_path / "other" / "b.parquet", 3)
    write(tmp_path / "in" / "deep" / "a.parquet", 0)
    link = tmp_path / "in" / "b.parquet"
    link.symlink_to(tmp_path / "in" / "deep" / "a.parquet")
    (tmp_path / "in" / "deep" / "a.parquet").rename(tmp_path / "in" / "deep" / "a.txt")
    link.unlink()
    link.symlink_to(tmp_path / "in" / "deep" / "a.txt")
    assert ids(str(tmp_path / "in")) == [0, 1, 2]
    link.unlink()
    link.symlink_to(tmp_path / "other" / "b.parquet")
    with pytest.raises(DetectionsError, match=r"in/b.parquet: a link out of the folder"):
        ids(str(tmp_path / "in"))


@pytest.mark.parametrize("target", ["/dev/zero", "cat"])
def test_a_catalogue_that_is_a_link_out_of_its_collection_is_refused(
    target: str, tmp_path: Path
) -> None:
    hats_catalogue(tmp_path / "cat")
    (tmp_path / "in").mkdir()
    if target == "cat":
        (tmp_path / "in" / "cat").symlink_to(tmp_path / "cat")
        (tmp_path / "in" / "collection.properties").write_text("hats_primary_table_url = cat\n")
    else:
        (tmp_path / "in" / "a.parquet").symlink_to(target)
    with pytest.raises(DetectionsError, match="a link out of the folder"):
        ids(str(tmp_path / "in"))


def test_a_pipe_is_no_table(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "a.parquet")
    with pytest.raises(DetectionsError, match=r"a.parquet: no file"):
        ids(str(tmp_path))


def test_a_folder_of_very_many_files_is_no_table(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(parquet, "_MAX_FILES", 2)
    for number in range(3):
        write(tmp_path / f"{number}.parquet", number)
    with pytest.raises(TooLargeError, match="a folder of 3 files"):
        ids(str(tmp_path))


def test_a_remote_folder(tmp_path: Path) -> None:
    hats_catalogue(tmp_path / "cat")
    url = f"memory://{tmp_path.name}/cat"
    fs = fsspec.filesystem("memory")
    for path in (tmp_path / "cat").rglob("*"):
        if path.is_file():
            fs.pipe_file(
                f"/{tmp_path.name}/cat/{path.relative_to(tmp_path / 'cat')}", path.read_bytes()
            )
    assert ids(url) == list(range(6))
    assert all(name.startswith(url) for name in data_files(url))


def test_files_may_name_their_columns_differently(tmp_path: Path) -> None:
    write(tmp_path / "a.parquet", 0)
    pq.write_table(pa.table({"DEC": [1.5], "ID": [3], "RA": [3.0]}), tmp_path / "b.parquet")
    found = Detections.concatenate(list(read_detections(str(tmp_path))))
    assert (found.id[-1], found.ra[-1], found.dec[-1]) == (3, 3.0, 1.5)


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda root: (root / "a.txt").write_text("x"), "no Parquet file in this folder"),
        (
            lambda root: (root / "collection.properties").write_text("obs_collection=a\n"),
            r"collection\.properties names no hats_primary_table_url",
        ),
        (lambda root: (root / "a.parquet").write_bytes(b"PAR1"), "cannot read this Parquet table"),
    ],
)
def test_a_folder_that_cannot_be_read_is_one_line(spoil, message: str, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    spoil(tmp_path)
    with pytest.raises(DetectionsError, match=f"^{tmp_path}: .*{message}"):
        ids(str(tmp_path))


def test_a_real_hats_catalogue(tmp_path: Path) -> None:
    """The folder that hats-import makes is read whole and once."""
    pytest.importorskip("hats")
    from hats.io import paths

    write(tmp_path / "cat/dataset/Norder=0/Dir=0/Npix=4.parquet", 0)
    (tmp_path / "cat/hats.properties").write_text("obs_collection=a\n")
    leaf = paths.pixel_catalog_file(str(tmp_path / "cat"), paths.HealpixPixel(0, 4))
    assert Path(str(leaf)).exists()
    assert ids(str(tmp_path / "cat")) == [0, 1, 2]
