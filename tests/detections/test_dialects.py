"""Texts as their makers write them: one table, whatever stands between its values."""

from __future__ import annotations

import io
from pathlib import Path

import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from deblend_batch.detections.columns import Source, origin_of
from deblend_batch.detections.formats import delimited
from deblend_batch.detections.formats.bounds import IdName
from deblend_batch.detections.formats.delimited import scan
from deblend_batch.detections.table import Detections, read_detections
from deblend_batch.detections.values import floats
from deblend_batch.errors import DetectionsError
from deblend_batch.table_columns import Column

ROWS = [(1, 150.5, 2.25, 21.5), (2, 150.0, -2.5, 22.0), (30, 0.125, 2.0, 23.75)]
NAMES = ["id", "ra", "dec", "mag"]


def read(path: Path, text: str | bytes, **columns: Column) -> Detections:
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return Detections.concatenate(list(read_detections(str(path), columns)))


def check(found: Detections) -> None:
    columns = (found.id, found.ra, found.dec, found.mag)
    assert list(zip(*(column.tolist() for column in columns), strict=True)) == ROWS


@settings(
    suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=60, deadline=None
)
@given(
    delimiter=st.sampled_from([",", ";", "\t", "|", " ", "   "]),
    end=st.sampled_from(["\n", "\r\n", "\r"]),
    comments=st.lists(st.sampled_from(["# made by TOPCAT", "#", "# a, b; c | d"]), max_size=3),
    header_is_comment=st.booleans(),
    decimal=st.sampled_from([".", ","]),
    bom=st.booleans(),
    last=st.booleans(),
    between=st.booleans(),
)
def test_a_table_is_the_same_in_every_dialect(
    delimiter: str, end: str, comments: list[str], header_is_comment: bool, decimal: str, bom: bool,
    last: bool, between: bool, tmp_path: Path,
) -> None:  # fmt: skip
    if delimiter == ",":
        decimal = "."
    lines = [delimiter.join(map(str, row)).replace(".", decimal) for row in ROWS]
    header = delimiter.join(NAMES)
    lines.insert(0, f"# {header}" if header_is_comment else header)
    if between:
        lines.insert(2, "# half of them")
    text = end.join([*comments, *lines]) + (end if last else "")
    check(read(tmp_path / "a.csv", ("\ufeff" if bom and not comments else "") + text))


def test_the_units_that_vizier_puts_below_the_names_are_obeyed(tmp_path: Path) -> None:
    text = "#RESOURCE=yCat\n#\nid\tra\tdec\n \trad\tdeg\n---\t---\t---\n1\t3.141592653589793\t2\n"
    assert read(tmp_path / "a.tsv", text).ra[0] == pytest.approx(180.0)


@pytest.mark.parametrize(
    "null", ["", "null", "NULL", "nan", "NaN", "N/A", "--", "-", "\\N", "INDEF", "-99", "99.0", "999", "-999"]
)  # fmt: skip
def test_what_stands_for_no_magnitude_is_unknown(null: str, tmp_path: Path) -> None:
    found = read(tmp_path / "a.csv", f"id,ra,dec,mag\n1,150,2,{null}\n2,150,2,20\n")
    assert str(found.mag.tolist()) == "[nan, 20.0]"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("id,ra,dec\n1,150,2\n#2,150,2\n", "a row that begins with '#' has as many values"),
        ("id,ra,dec,id\n1,150,2,1\n", "several columns 'id'"),
        ("id;ra;dec\n1;1.150,5;2\n", "column 'ra' holds string \\('1.150,5'\\)"),
        ("id,ra,dec\n1,10:00:00,2\n", r"column 'ra' \(ra\) holds texts such as hh:mm:ss"),
        ("id,ra,dec\n1.5,150,2\n", "column 'id' holds double"),
        ("id,coord_ra,coord_dec,x,y\n1,1,1,1,1\n", "has pixel positions .*'coord_ra'.*say which"),
    ],
)
def test_what_could_be_meant_in_two_ways_is_refused(
    text: str, message: str, tmp_path: Path
) -> None:
    with pytest.raises(DetectionsError, match=message):
        read(tmp_path / "a.csv", text)


IDS = st.one_of(
    st.from_regex(r"[0-9]{1,25}", fullmatch=True),
    st.from_regex(r"[-+]?[0-9]{1,5}", fullmatch=True),
    st.sampled_from(["0x1F", "12E34", "2026-01-02", "10:00:01", "true", "J0959+02", "007", "1e5"]),
)


@given(
    ids=st.lists(IDS, min_size=1, max_size=6, unique=True),
    bricks=st.lists(IDS, min_size=6, max_size=6),
    delimiter=st.sampled_from([",", ";", "\t", "|", " "]),
)
def test_an_id_is_what_stands_there(ids: list[str], bricks: list[str], delimiter: str) -> None:
    rows = [delimiter.join([*row, "150", "2"]) for row in zip(bricks, ids, strict=False)]
    text = "\n".join([delimiter.join(["brick", "id", "ra", "dec"]), *rows])
    found = list(scan(io.BytesIO(text.encode()), lambda _: [IdName("id"), IdName("brick")]))
    (part,) = found
    for name, written in (("id", ids), ("brick", bricks[: len(ids)])):
        assert [str(value) for value in part[name].to_pylist()] == written


def test_an_id_stays_a_text_in_later_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(delimited, "PART_BYTES", 64)
    rows = [f"{number:03d},150,2" for number in range(90, 110)]
    text = "\n".join(["id,ra,dec", *rows])
    parts = list(scan(io.BytesIO(text.encode()), lambda _: [IdName("id")]))
    assert len(parts) > 2
    found = [value for part in parts for value in part["id"].to_pylist()]
    assert found == [row[:3] for row in rows]


@pytest.mark.parametrize(("text", "name"), [("0012", "0012"), ("18446744073709551615",) * 2])
def test_a_number_that_is_none_keeps_its_name(text: str, name: str, tmp_path: Path) -> None:
    found = read(tmp_path / "a.csv", f"id,ra,dec\n{text},150,2\n")
    assert found.carried is not None
    assert found.carried["source_name"].to_pylist() == [name]
    joined = read(tmp_path / "a.csv", f"tract,id,ra,dec\n007,{text},150,2\n", id=["tract", "id"])
    assert joined.carried is not None
    assert joined.carried["source_name"].to_pylist() == [f"007-{name}"]


HEAD = """#   1 NUMBER       Running object number
#   2 MAG_AUTO     Kron-like elliptical aperture magnitude    [mag]
#   3 X_IMAGE      Object position along x                    [pixel]
#   4 Y_IMAGE      Object position along y                    [pixel]
#   5 MAG_APER     Fixed aperture magnitude vector            [mag]
#   8 FLUX_RADIUS  Fraction-of-light radii                    [pixel]
"""
SEXTRACTOR: dict[str, Column] = {
    "id": "NUMBER", "x": "X_IMAGE", "y": "Y_IMAGE", "mag": "MAG_AUTO", "radius": "FLUX_RADIUS",
}  # fmt: skip


@pytest.mark.parametrize(("origin", "first"), [(None, 1), (1, 1), (0, 0)])
def test_sextractor_counts_from_one_and_in_pixels(
    origin: int | None, first: int, tmp_path: Path
) -> None:
    (tmp_path / "a.cat").write_text(
        HEAD + "  1  21.5  10.0  20.0  1 2 3  2.5\n 2 99.0 1 1 1 2 3 -1\n"
    )
    (found,) = read_detections(
        f"{tmp_path}/a.cat", SEXTRACTOR, origin=origin, pixel_arcsec=0.2, carry=["MAG_APER_2"]
    )
    assert found.yx is not None
    assert found.carried is not None
    assert found.yx[0].tolist() == [20.0 - first, 10.0 - first]
    assert str(found.mag.tolist()) == "[21.5, nan]"
    assert str(found.radius_arcsec.tolist()) == "[0.5, nan]"
    assert found.carried["MAG_APER_2"].to_pylist() == [3, 3]


def test_columns_that_are_not_numbered_one_by_one_are_refused(tmp_path: Path) -> None:
    text = HEAD.replace("#   2 MAG", "#   1 MAG") + " 1 2 3 4 5 6 7 8\n"
    with pytest.raises(DetectionsError, match="do not number its columns one by one"):
        read(tmp_path / "a.cat", text, **SEXTRACTOR)


@given(
    stem=st.sampled_from(["", "win", "peak", "psf", "model", "sphermodel", "min"]),
    end=st.sampled_from(["", "_DBL", "_F814W", "_r"]),
    upper=st.booleans(),
)
def test_all_names_of_sextractor_s_positions_count_from_one(
    stem: str, end: str, upper: bool
) -> None:
    names = [f"{axis}{stem}_image{end}" for axis in "xy"]
    for x, y in (names, [f"pixel_centroid_{axis}{end}" for axis in "xy"]):
        found = {
            "x": Source((x.upper() if upper else x,)),
            "y": Source((y.upper() if upper else y,)),
        }
        assert origin_of(found) == 1
    assert origin_of({"x": Source(("xcentroid",)), "y": Source(("ycentroid",))}) == 0
    assert origin_of({"x": Source(("ERRX_IMAGE",)), "y": Source(("y",))}) == 0


@pytest.mark.parametrize(
    ("name", "arcsec"),
    [
        ("FLUX_RADIUS_2", 0.6),
        ("A_IMAGE", 0.6),
        ("awin_image_r", 0.6),
        ("FWHM_IMAGE", 0.6),
        ("A_WORLD", 10800.0),
        ("fwhmpsf_world", 10800.0),
        ("shape_r", 3.0),
    ],
)
@pytest.mark.parametrize("ours", ["radius", "psf_fwhm"])
def test_sextractor_s_sizes_are_in_the_units_of_their_names(
    name: str, arcsec: float, ours: str
) -> None:
    part = pa.table({name: [3.0]})
    assert floats(part, Source((name,)), ours, "t", 0.2) == pytest.approx([arcsec])
    stated = pa.table(
        [part[name]], schema=pa.schema([pa.field(name, pa.float64(), metadata={"unit": "arcsec"})])
    )
    assert floats(stated, Source((name,)), ours, "t", 0.2) == pytest.approx([3.0])


@pytest.mark.parametrize("first", ["#   1 id  [-]\n", "# 1 id\n"])
def test_names_of_any_case_stand_in_numbered_comments(first: str, tmp_path: Path) -> None:
    text = f"{first}# 2 ra  RA [deg]\n# 3 dec\n# 4 mag\n" + "".join(
        " ".join(map(str, row)) + "\n" for row in ROWS
    )
    check(read(tmp_path / "a.cat", text))
    check(
        read(
            tmp_path / "b.csv",
            "# 1 table of many\nid,ra,dec,mag\n"
            + "".join(",".join(map(str, row)) + "\n" for row in ROWS),
        )
    )  # a comment like others
