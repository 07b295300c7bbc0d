"""Detection tables in every format."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import astropy.units as u
import fsspec
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from astropy.io import fits
from astropy.io.votable import from_table
from astropy.table import MaskedColumn, Table

from deblend_batch.detections.formats.scan import kind_of, scan_table
from deblend_batch.detections.table import Detections, read_detections
from deblend_batch.errors import DamagedFileError, DetectionsError, NotFoundError
from deblend_batch.table_columns import Column

IDS = np.array([5, 2**61 + 1, -7], np.int64)
RA = np.array([150.0, 150.1, np.nan])
DEC = np.array([2.0, 2.1, 2.2])
MAG = np.array([20.0, np.nan, 22.5], np.float32)


def table() -> Table:
    made = Table({"id": IDS, "ra": RA * u.deg, "dec": DEC * u.deg})
    made["mag"] = MaskedColumn(np.nan_to_num(MAG), mask=np.isnan(MAG), unit=u.mag)
    made["name"] = ["a", "b", "c"]
    return made


def read(url: str, **columns: Column) -> Detections:
    return Detections.concatenate(list(read_detections(url, columns)))


def check(found: Detections) -> None:
    np.testing.assert_array_equal(found.id, IDS)
    np.testing.assert_array_equal(found.ra, RA)
    np.testing.assert_array_equal(found.dec, DEC)
    np.testing.assert_array_equal(found.mag, MAG)
    assert found.yx is None
    assert np.isnan(found.radius_arcsec).all()
    assert [array.dtype for array in (found.id, found.ra, found.mag)] == [
        np.int64,
        np.float64,
        np.float32,
    ]


def as_parquet(path: Path) -> None:
    columns = {"name": ["a", "b", "c"], "id": IDS, "ra": RA, "dec": DEC, "mag": MAG}
    pq.write_table(pa.table(columns), path, row_group_size=2)


def as_csv(path: Path) -> None:
    rows = [
        "id,ra,dec,mag,name",
        "5,150,2.0,20.0,a",
        f"{2**61 + 1},150.1,2.1,,b",
        "-7,nan,2.2,22.5,c",
    ]
    path.write_text("\n".join(rows) + "\n")


def as_commented_tsv(path: Path) -> None:
    rows = ["# id\tra\tdec\tmag", "5\t150.0\t2.0\t20.0", f"{2**61 + 1}\t150.1\t2.1\tNULL"]
    path.write_text("\n".join([*rows, "-7\tNaN\t2.2\t22.5"]))


def _astropy(form: str) -> Callable[[Path], None]:
    return lambda path: table().write(path, format=form)


WRITERS: dict[str, Callable[[Path], None]] = {
    "a.parquet": as_parquet,
    "a.fits": _astropy("fits"),
    "a.vot": _astropy("votable"),
    "a.ecsv": _astropy("ascii.ecsv"),
    "a.csv": as_csv,
    "a.tsv": as_commented_tsv,
}


@pytest.mark.parametrize("name", WRITERS)
def test_each_format(name: str, tmp_path: Path) -> None:
    WRITERS[name](tmp_path / name)
    check(read(f"{tmp_path}/{name}"))


PACKERS: dict[str, Callable[[bytes], bytes]] = {
    ".gz": gzip.compress,
    ".bz2": bz2.compress,
    ".xz": lzma.compress,
}


@pytest.mark.parametrize("suffix", PACKERS)
@pytest.mark.parametrize("name", ["a.fits", "a.vot", "a.ecsv", "a.csv"])
def test_packed(name: str, suffix: str, tmp_path: Path) -> None:
    WRITERS[name](tmp_path / name)
    packed = PACKERS[suffix]((tmp_path / name).read_bytes())
    (tmp_path / f"{name}{suffix}").write_bytes(packed)
    check(read(f"{tmp_path}/{name}{suffix}"))


@pytest.mark.parametrize("name", ["a.parquet", "a.fits", "a.vot", "a.ecsv"])
def test_content_counts_more_than_the_name(name: str, tmp_path: Path) -> None:
    WRITERS[name](tmp_path / name)
    (tmp_path / name).rename(tmp_path / "catalogue.dat")
    check(read(f"{tmp_path}/catalogue.dat"))


@pytest.mark.parametrize("name", WRITERS)
def test_remote(name: str, tmp_path: Path) -> None:
    WRITERS[name](tmp_path / name)
    url = f"memory://{tmp_path.name}/{name}"
    with fsspec.open(url, "wb") as file:
        file.write((tmp_path / name).read_bytes())
    check(read(url))


@pytest.mark.parametrize("form", ["fits", "votable", "ascii.ecsv"])
def test_units_travel_with_the_table(form: str, tmp_path: Path) -> None:
    made = Table(
        {"id": [1], "ra": [np.pi] * u.rad, "dec": [60.0] * u.arcmin, "radius": [1e-3] * u.deg}
    )
    path = tmp_path / f"a.{form.removeprefix('ascii.')}"
    made.write(path, format=form)
    found = read(str(path))
    assert found.ra[0] == pytest.approx(180.0)
    assert found.dec[0] == pytest.approx(1.0)
    assert found.radius_arcsec[0] == pytest.approx(3.6)


def test_units_in_parquet_field_metadata(tmp_path: Path) -> None:
    schema = pa.schema(
        [
            pa.field("id", pa.int64()),
            pa.field("ra", pa.float64(), metadata={"unit": "rad"}),
            pa.field("dec", pa.float64(), metadata={"unit": "deg"}),
        ]
    )
    pq.write_table(
        pa.table({"id": [1], "ra": [np.pi], "dec": [2.0]}, schema=schema), tmp_path / "a.pq"
    )
    assert read(f"{tmp_path}/a.pq").ra[0] == pytest.approx(180.0)


def test_a_csv_column_is_typed_by_all_its_rows(tmp_path: Path) -> None:
    rows = ["id,ra,dec"] + [f"{i},150,2" for i in range(200_000)] + ["200000,150.5,2.5"]
    (tmp_path / "a.csv").write_text("\n".join(rows))
    found = read(f"{tmp_path}/a.csv")
    assert (found.ra[-1], len(found)) == (150.5, 200_001)


def test_pixel_positions_are_yx(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("id,x,y\n1,10.5,20.25\n")
    found = read(f"{tmp_path}/a.csv")
    assert found.yx is not None
    assert found.yx.tolist() == [[20.25, 10.5]]
    assert np.isnan(found.ra).all()


def test_other_names(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("NUMBER,ALPHA_J2000,DELTA_J2000\n1,10.5,20.25\n")
    found = read(f"{tmp_path}/a.csv", id="NUMBER", ra="ALPHA_J2000", dec="DELTA_J2000")
    assert (found.id[0], found.ra[0], found.dec[0]) == (1, 10.5, 20.25)


def _empty_parquet(path: Path) -> None:
    schema = pa.schema([("id", pa.int64()), ("ra", pa.float64()), ("dec", pa.float64())])
    pq.write_table(schema.empty_table(), path)


@pytest.mark.parametrize(
    ("name", "write"),
    [
        ("a.parquet", _empty_parquet),
        ("a.csv", lambda path: path.write_text("id,ra,dec\n")),
        ("a.csv", lambda path: path.write_text("id,ra,dec")),
        ("a.fits", table()[:0].write),
        ("a.vot", lambda path: table()[:0].write(path, format="votable")),
        ("a.ecsv", table()[:0].write),
    ],
)
def test_a_table_without_rows_is_fine(
    name: str, write: Callable[[Path], Any], tmp_path: Path
) -> None:
    write(tmp_path / name)
    assert len(read(f"{tmp_path}/{name}")) == 0


def _fits_tables(path: Path, *tables: Table) -> str:
    image = fits.CompImageHDU(np.zeros((20, 30), np.float32), name="IMG")
    hdus = [fits.table_to_hdu(each) for each in tables]
    fits.HDUList([fits.PrimaryHDU(), image, *hdus]).writeto(path)
    return str(path)


def _votables(path: Path, *tables: Table) -> str:
    whole = from_table(tables[0])
    whole.resources.extend(from_table(each).resources[0] for each in tables[1:])
    whole.to_xml(str(path))
    return str(path)


SEVERAL = {"a.fits": (_fits_tables, 2), "a.vot": (_votables, 0)}
"""How several tables are written, and the number of the first."""


@pytest.mark.parametrize("name", SEVERAL)
@pytest.mark.parametrize("place", [0, 1, 2])
def test_of_several_tables_the_one_that_has_the_columns_counts(
    name: str, place: int, tmp_path: Path
) -> None:
    others = [Table({"Header": ["SIMPLE  = T"]}), Table({"a": [1.0, 2.0], "ra": [3, 4]})]
    others.insert(place, table())
    check(read(SEVERAL[name][0](tmp_path / name, *others)))


@pytest.mark.parametrize("name", SEVERAL)
@pytest.mark.parametrize("by_name", [True, False])
def test_of_two_that_have_them_one_is_named(name: str, by_name: bool, tmp_path: Path) -> None:
    write, first = SEVERAL[name]
    one, other = table()[:1], table()
    for each, called in ((one, "ONE"), (other, "OTHER")):
        each.meta |= {"EXTNAME": called, "name": called}
    url = write(tmp_path / name, one, other)
    with pytest.raises(
        DetectionsError, match=rf"both have the columns; say which .*\[{first + 1}\]"
    ):
        read(url)
    check(read(f"{url}[{'other' if by_name and name == 'a.fits' else first + 1}]"))
    with pytest.raises(DetectionsError, match=r"no table '99'; it has: "):
        read(f"{url}[99]")


@pytest.mark.parametrize("name", SEVERAL)
def test_if_none_has_them_all_are_listed(name: str, tmp_path: Path) -> None:
    url = SEVERAL[name][0](tmp_path / name, Table({"a": [1.0]}), Table({"b": [1.0]}))
    with pytest.raises(
        DetectionsError, match=r"none of its tables has the columns: .*\(a\).*\(b\)"
    ):
        read(url)


def test_an_element_of_a_vector_is_a_column(tmp_path: Path) -> None:
    """As SExtractor's apertures and SDSS's bands; of masked and unsigned ones, too."""
    magnitudes = np.array([[20.0, 20.5, 21.0], [22.0, np.nan, 23.0], [24.0, 24.5, 25.0]])
    flags = np.array([[0, 1], [0, 0], [2**32 - 1, 0]], np.uint32)
    own = {"id": [1, 2, 3], "ra": RA, "dec": DEC, "MAG_APER": magnitudes, "FLAGS": flags}
    Table(own).write(tmp_path / "a.fits")
    url = f"{tmp_path}/a.fits"
    carry = ["FLAGS[0]", "MAG_APER[2]"]
    found = Detections.concatenate(
        list(read_detections(url, {"mag": "MAG_APER[1]"}, carry=carry, where="`FLAGS[1]` < 2"))
    )
    np.testing.assert_array_equal(found.mag, magnitudes[:, 1].astype("f4"))
    assert found.carried is not None
    assert found.carried["FLAGS[0]"].to_pylist() == [0, 0, 2**32 - 1]
    assert found.carried["MAG_APER[2]"].to_pylist() == [21.0, 23.0, 25.0]
    with pytest.raises(
        DetectionsError, match=r"'MAG_APER' holds .* name one of them, MAG_APER\[0\]"
    ):
        read(url, mag="MAG_APER")
    with pytest.raises(DetectionsError, match=r"no column 'MAG_APER\[3\]'"):
        read(url, mag="MAG_APER[3]")


def _tar() -> bytes:
    content = io.BytesIO()
    with tarfile.open(fileobj=content, mode="w") as archive:
        archive.addfile(tarfile.TarInfo("a.csv"))
    return content.getvalue()


def _bytes(content: bytes) -> Callable[[Path], Any]:
    return lambda path: path.write_bytes(content)


@pytest.mark.parametrize(
    ("name", "write", "message"),
    [
        (
            "a.dat",
            _bytes(b"\x00\x01\x02" * 100),
            r"unknown table format \(it begins with .*\); give Parquet.* name it with one of .asc, .cat",
        ),
        (
            "a.avro",
            _bytes(b"Obj\x01\x04\x16avro.schema"),
            "is a file of Avro; unpack or convert it",
        ),
        ("a.csv", _bytes(b"Rar!\x1a\x07\x01"), "is a rar archive; unpack or convert it"),
        ("a.csv", _bytes(_tar()), "is a tar archive; unpack or convert it"),
        ("a.cat.bz2", _bytes(bz2.compress(_tar())), "is a tar archive; unpack or convert it"),
        ("a.json", _bytes(b'{"id": [1]}'), "is JSON; unpack or convert it"),
        ("a.parquet", _bytes(b"PAR1 it is not"), "cannot read this parquet table .*check the file"),
        ("a.parquet", _bytes(b"hello"), "cannot read this parquet table"),
        ("a.fits", _bytes(b"hello"), "cannot read this fits table"),
        ("a.fits", lambda path: fits.PrimaryHDU().writeto(path), "this file holds no table"),
        ("a.vot", _bytes(b"<VOTABLE"), "cannot read this votable table"),
        (
            "a.ecsv",
            _bytes(b"# %ECSV 1.0\n# ---\nid"),
            "cannot read this ecsv table|no column 'id'|no position",
        ),
        ("a.csv", _bytes(b"id,ra,dec\n1,2\n"), "cannot read this csv table .*Expected 3 columns"),
        (
            "a.csv",
            _bytes(b"id,ra,dec\n1,ten,2\n"),
            r"column 'ra' holds string \('ten'\); it must be numbers",
        ),
        ("a.csv", _bytes(b"id,ra,dec\n1.5,10,2\n"), "column 'id' holds double"),
        ("a.csv", _bytes(b""), "no column 'id'"),
        (
            "a.csv.gz",
            _bytes(gzip.compress(b"id,ra,dec\n" * 900)[:-9]),
            "the gzip stream is truncated; fetch it again",
        ),
        ("a.md", _bytes(b"| id | ra |\n|---|---|\n| 1 | 2 |\n"), "Markdown draws it"),
        ("a.txt", _bytes(b" id | ra\n----+----\n  1 | 2\n(1 row)\n"), "write it as CSV"),
        ("a.tbl", _bytes(b"+---+---+\r\n| id|ra |\r\n+---+---+\r\n"), "a terminal .*draws it"),
        (
            "a.csv",
            _bytes("id,ra,dec\n1,2,3\n".encode("utf-16")),
            "is text in UTF-16; write it as UTF-8",
        ),
    ],
)
def test_a_table_that_cannot_be_read_is_one_line(
    name: str, write: Callable[[Path], Any], message: str, tmp_path: Path
) -> None:
    write(tmp_path / name)
    error = DetectionsError if not name.endswith(".gz") else DamagedFileError
    with pytest.raises(error, match=f"^{tmp_path}/{name}: .*({message})") as caught:
        read(f"{tmp_path}/{name}")
    assert "\n" not in str(caught.value)


def test_a_missing_table_is_named(tmp_path: Path) -> None:
    with pytest.raises(NotFoundError, match=r"none\.fits: no such file or object"):
        read(f"{tmp_path}/none.fits")


@pytest.mark.parametrize(
    ("url", "head", "kind"),
    [
        ("a.fits", b"PAR1", "parquet"),
        ("a", b"SIMPLE  =    T", "fits"),
        ("a.txt", b"<?xml version='1.0'?>\n<VOTABLE>", "votable"),
        ("a.csv", b"# %ECSV 1.0", "ecsv"),
        ("s3://b/a.CSV.GZ", b"", "csv"),
        ("a.pq", b"", "parquet"),
    ],
)
def test_kinds(url: str, head: bytes, kind: str) -> None:
    assert kind_of(url, head) == kind


def test_parts_are_read_one_by_one(tmp_path: Path) -> None:
    as_parquet(tmp_path / "a.parquet")
    parts = scan_table(f"{tmp_path}/a.parquet", lambda _names: ["mag", "id"])
    assert next(parts).column_names == ["mag", "id"]
