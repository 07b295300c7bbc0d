"""Detection tables written."""

from __future__ import annotations

import gzip
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from astropy.table import Table
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.typing import NDArray

from deblend_batch.detections.table import Detections, read_detections
from deblend_batch.detections.write import COLUMN_INFO, write_detections
from deblend_batch.errors import DetectionsError

SUFFIXES = ("parquet", "fits", "vot", "ecsv", "csv", "csv.gz")


def columns(count: int = 4) -> dict[str, NDArray[Any]]:
    number = np.arange(count, dtype=np.float64)
    made: dict[str, NDArray[Any]] = {
        name: number.astype(np.float32) for name in COLUMN_INFO if name not in {"id", "flags"}
    }
    for name in ("ra", "dec", "x", "y"):
        made[name] = number / 3
    made["mag"][:1] = made["radius"][:1] = np.nan
    return {"id": np.arange(count) + 2**60, **made, "flags": np.arange(count, dtype=np.int32)}


def read(url: str) -> Detections:
    return Detections.concatenate(list(read_detections(url)))


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize("scheme", ["path", "memory"])
@pytest.mark.parametrize("count", [0, 4])
def test_what_is_written_is_read(suffix: str, scheme: str, count: int, tmp_path: Path) -> None:
    root = str(tmp_path) if scheme == "path" else f"memory://{tmp_path.name}"
    url, wanted = f"{root}/a.{suffix}", columns(count)
    write_detections(url, wanted)
    found = read(url)
    np.testing.assert_array_equal(found.id, wanted["id"])
    np.testing.assert_array_equal(found.ra, wanted["ra"])
    np.testing.assert_array_equal(found.mag, wanted["mag"])
    np.testing.assert_array_equal(found.radius_arcsec, wanted["radius"])


@given(
    ids=st.lists(st.integers(-(2**63), 2**63 - 1), unique=True, min_size=1, max_size=20),
    data=st.data(),
    suffix=st.sampled_from(SUFFIXES),
)
def test_every_number_survives(ids: list[int], data: st.DataObject, suffix: str) -> None:
    angle = st.floats(-360, 360, allow_subnormal=False)
    ra = data.draw(arrays(np.float64, len(ids), elements=angle))
    url = f"memory://numbers/a.{suffix}"
    write_detections(url, {"id": np.array(ids, np.int64), "ra": ra, "dec": ra / 4})
    found = read(url)
    np.testing.assert_array_equal(found.id, ids)
    np.testing.assert_array_equal(found.ra, ra)


def test_parquet_fields_carry_unit_ucd_and_description(tmp_path: Path) -> None:
    write_detections(f"{tmp_path}/a.parquet", columns())
    schema = pq.read_schema(tmp_path / "a.parquet")
    for name, info in COLUMN_INFO.items():
        metadata = {k.decode(): v.decode() for k, v in (schema.field(name).metadata or {}).items()}
        assert metadata.get("unit", "") == info.unit
        assert (metadata["ucd"], metadata["description"]) == (info.ucd, info.description)


@pytest.mark.parametrize(
    ("suffix", "form"), [("fits", "fits"), ("vot", "votable"), ("ecsv", "ascii.ecsv")]
)
def test_units_are_written(suffix: str, form: str, tmp_path: Path) -> None:
    write_detections(f"{tmp_path}/a.{suffix}", columns())
    table = Table.read(tmp_path / f"a.{suffix}", format=form)
    assert str(table["ra"].unit) == "deg"
    assert str(table["radius"].unit) == "arcsec"
    assert str(table["flux"].unit) == "nJy"


def test_gzipped_means_gzipped(tmp_path: Path) -> None:
    write_detections(f"{tmp_path}/a.csv.gz", columns())
    assert gzip.decompress((tmp_path / "a.csv.gz").read_bytes()).startswith(b"id,ra,dec,x,y,x_err")


def test_columns_without_an_entry_are_written_plainly(tmp_path: Path) -> None:
    write_detections(f"{tmp_path}/a.parquet", {**columns(), "extra": np.zeros(4, bool)})
    assert pq.read_schema(tmp_path / "a.parquet").field("extra").metadata is None


def test_an_unknown_suffix_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    with pytest.raises(
        DetectionsError, match=r"unknown table format; give .* and name it with one of"
    ):
        write_detections(f"{tmp_path}/a.xlsx", columns())
    assert not list(tmp_path.iterdir())


def test_units_and_ucds_are_of_the_vocabularies() -> None:
    from astropy import units
    from astropy.io.votable.ucd import check_ucd

    for info in COLUMN_INFO.values():
        assert check_ucd(info.ucd, check_controlled_vocabulary=True)
        units.Unit(info.unit, format="vounit" if info.unit != "pixel" else None)
