"""What a user may say of a table: ids, conditions, fluxes, units; and what its maker says of it."""

from __future__ import annotations

import decimal
from pathlib import Path
from typing import Any

import astropy.units as u
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from astropy.coordinates import SkyCoord
from astropy.table import MaskedColumn, Table
from hypothesis import given
from hypothesis import strategies as st

from deblend_batch.config import make_config
from deblend_batch.detections.columns import Source
from deblend_batch.detections.table import Detections, read_detections, read_pairs_table
from deblend_batch.detections.values import floats, hashed, ids
from deblend_batch.detections.where import Condition
from deblend_batch.errors import ConfigError, DetectionsError
from deblend_batch.table_columns import Column, ColumnConfig

PLACE = {"ra": [150.0, 150.1, 150.2], "dec": [2.0, 2.1, 2.2]}
WRITERS = {"parquet": "parquet", "fits": "fits", "ecsv": "ascii.ecsv", "vot": "votable"}


def write(path: Path, **columns: Any) -> str:
    pq.write_table(pa.table(columns), path)
    return str(path)


def read(url: str, columns: dict[str, Column] | None = None, **how: Any) -> Detections:
    return Detections.concatenate(list(read_detections(url, columns, **how)))


@given(st.lists(st.text(max_size=20), max_size=30, unique=True))
def test_texts_are_ids_that_differ(names: list[str]) -> None:
    found = hashed(pa.array(names, pa.string()))
    assert len(set(found.tolist())) == len(names)
    assert (found >= 0).all()


def test_the_hash_of_a_text_never_changes() -> None:
    assert hashed(pa.array(["KiDS J1", "9010-1-1"])).tolist() == [
        7399376811196828818,
        8378168773645424162,
    ]


@pytest.mark.parametrize("form", WRITERS)
def test_ids_of_text_are_kept_beside_integers(form: str, tmp_path: Path) -> None:
    url = f"{tmp_path}/a.{form}"
    Table({"ID": ["KiDS J1 ", "b", "c"], **PLACE}).write(url, format=WRITERS[form])
    found = read(url)
    assert found.id.tolist()[0] == 7399376811196828818
    assert found.carried is not None
    assert found.carried["source_name"].to_pylist() == ["KiDS J1", "b", "c"]


@pytest.mark.parametrize("form", WRITERS)
def test_ids_of_several_columns(form: str, tmp_path: Path) -> None:
    url = f"{tmp_path}/a.{form}"
    parts = {"release": [9010] * 3, "brickid": [1, 1, 2], "objid": [1, 2, 1]}
    Table({**parts, **PLACE}).write(url, format=WRITERS[form])
    found = read(url, {"id": ["release", "brickid", "objid"]})
    assert found.id.tolist()[0] == 8378168773645424162
    assert found.carried is not None
    assert found.carried["source_name"].to_pylist() == ["9010-1-1", "9010-1-2", "9010-2-1"]


def test_pairs_name_sources_by_text_too(tmp_path: Path) -> None:
    url = write(tmp_path / "p.parquet", central_id=["a"], companion_id=["b"])
    ((central, companion),) = read_pairs_table(url)
    assert [*central, *companion] == hashed(pa.array(["a", "b"])).tolist()


def test_ids_that_are_text_in_some_rows_only_are_refused(tmp_path: Path) -> None:
    rows = [f"{n},150,2" for n in range(600_000)] + ["x1,150,2"]
    (tmp_path / "a.csv").write_text("\n".join(["id,ra,dec", *rows]))
    with pytest.raises(
        DetectionsError, match=r"numbers in some rows and text in others.*id: \[id\]"
    ):
        read(f"{tmp_path}/a.csv")


@pytest.mark.parametrize("scale", [0, 9])
def test_decimals_are_numbers(scale: int, tmp_path: Path) -> None:
    kind = pa.decimal128(20, scale)
    values = pa.array([decimal.Decimal(str(value)) for value in (1, 2, 3)], kind)
    ra = pa.array([decimal.Decimal("150.000000001")] * 3, pa.decimal128(20, 9))
    found = read(write(tmp_path / "a.parquet", id=values, ra=ra, dec=PLACE["dec"]))
    assert found.id.tolist() == [1, 2, 3]
    assert found.ra[0] == 150.000000001


@pytest.mark.parametrize("form", WRITERS)
def test_what_astropy_masks_is_unknown_in_every_format(form: str, tmp_path: Path) -> None:
    made = Table({"id": [1, 2, 3], **PLACE})
    made["mag"] = MaskedColumn([20.0, 1.0, 22.0], mask=[False, True, False], unit="mag")
    made["dec"] = MaskedColumn(PLACE["dec"], mask=[False, False, True])
    made.write(tmp_path / f"a.{form}", format=WRITERS[form])
    found = read(f"{tmp_path}/a.{form}")
    assert str(found.mag.tolist()) == "[20.0, nan, 22.0]"
    assert str(found.dec.tolist()) == "[2.0, 2.1, nan]"


@pytest.mark.parametrize("mapping", [{}, {"ra": "centre", "dec": "centre"}])
@pytest.mark.parametrize("form", ["parquet", "fits", "ecsv"])
def test_columns_of_sky_coordinates(form: str, mapping: dict[str, Column], tmp_path: Path) -> None:
    sky = SkyCoord(PLACE["ra"] * u.deg, PLACE["dec"] * u.deg)
    Table({"id": [1, 2, 3], "centre": sky}).write(tmp_path / f"a.{form}", format=WRITERS[form])
    found = read(f"{tmp_path}/a.{form}", mapping)
    np.testing.assert_allclose(found.ra, PLACE["ra"], rtol=1e-14)
    np.testing.assert_allclose(found.dec, PLACE["dec"], rtol=1e-14)


@pytest.mark.parametrize("form", ["parquet", "fits"])
def test_sky_coordinates_of_another_frame_are_refused(form: str, tmp_path: Path) -> None:
    sky = SkyCoord(PLACE["ra"] * u.deg, PLACE["dec"] * u.deg, frame="fk4")
    Table({"id": [1, 2, 3], "centre": sky}).write(tmp_path / f"a.{form}", format=WRITERS[form])
    with pytest.raises(DetectionsError, match="of frame 'fk4'; write them as ICRS"):
        read(f"{tmp_path}/a.{form}")


def column(values: list[float], unit: str = "", name: str = "c") -> pa.Table:
    field = pa.field(name, pa.float64(), metadata={"unit": unit} if unit else None)
    return pa.Table.from_arrays([pa.array(values, pa.float64())], schema=pa.schema([field]))


@pytest.mark.parametrize(
    "unit",
    ["nJy", "uJy", "mJy", "Jy", "microJansky", "10.0*nanoJansky", "nanomaggy", "nanomaggies", "maggy",
     "erg s-1 cm-2 Hz-1", "W m-2 Hz-1"],
)  # fmt: skip
@pytest.mark.parametrize("is_flux", [True, False])
def test_a_flux_with_its_unit_is_a_magnitude(unit: str, is_flux: bool) -> None:
    parsed = u.Unit(unit.replace("maggies", "maggy"))
    in_unit = (23.9 * u.ABmag).to(parsed, u.zero_point_flux(3631 * u.Jy)).value
    source = Source(("c",), is_flux=is_flux)
    found = floats(column([in_unit, -1.0, 0.0, np.nan], unit), source, "mag", "a")
    assert found[0] == pytest.approx(23.9, abs=2e-4)
    assert np.isnan(found[1:]).all()


@pytest.mark.parametrize("unit", ["", "mag", "mag(AB)", "ABmag", "AB"])
def test_a_magnitude_stays_one(unit: str) -> None:
    assert floats(column([23.9], unit), Source(("c",)), "mag", "a").tolist() == [23.9]


@pytest.mark.parametrize("name", ["flux_r", "FLUX_AUTO", "i_cModelFlux", "counts", "nanomaggies"])
def test_a_flux_is_never_taken_for_a_magnitude(name: str) -> None:
    with pytest.raises(DetectionsError, match=f"'{name}' seems to be a flux.*mag: {{flux: {name}"):
        floats(column([23.9], "", name), Source((name,)), "mag", "a")


@given(
    fluxes=st.lists(st.floats(51, 1e6), min_size=12, max_size=50, unique=True),
    magnitudes=st.lists(st.floats(10, 30), max_size=10),
)
def test_numbers_that_are_no_magnitudes_are_refused(
    fluxes: list[float], magnitudes: list[float]
) -> None:
    part = pa.table({"m_r": [*fluxes, *magnitudes, 99.0, None]})
    with pytest.raises(DetectionsError, match=r"'m_r' holds .* are no magnitudes; if it is a flux"):
        floats(part, Source(("m_r",)), "mag", "t")
    sentinels = pa.table({"m_r": [99.0, -99.0, 999.0, None] * 20 + [20.0]})
    assert np.isfinite(floats(sentinels, Source(("m_r",)), "mag", "t")).sum() == 1


def test_a_flux_without_a_unit_needs_a_zero_point() -> None:
    with pytest.raises(DetectionsError, match="the flux 'c' states no unit"):
        floats(column([100.0]), Source(("c",), is_flux=True), "mag", "a")
    with pytest.raises(DetectionsError, match="is in 'count', which is no flux density"):
        floats(column([100.0], "count"), Source(("c",), is_flux=True), "mag", "a")
    source = Source(("c",), is_flux=True, zero_point=25.0)
    assert floats(column([100.0], "count"), source, "mag", "a").tolist() == [20.0]


@given(st.floats(allow_nan=True, allow_infinity=True))
def test_a_magnitude_is_one_or_unknown(value: float) -> None:
    (found,) = floats(column([value]), Source(("c",)), "mag", "a").tolist()
    assert np.isnan(found) or (found == value and -30 < found < 50)


def test_hours_are_of_right_ascension() -> None:
    assert floats(column([10.0], "h"), Source(("c",)), "ra", "a")[0] == pytest.approx(150.0)
    given = Source(("c",), unit="rad")
    assert floats(column([np.pi], ""), given, "ra", "a").tolist() == [180.0]


PART = pa.table(
    {
        "n": pa.array([1, 2, None], pa.int32()),
        "f": pa.array([1.5, np.nan, 3.0]),
        "ok": pa.array([True, False, None]),
        "kind": pa.array(["PSF ", "EXP", None]).dictionary_encode(),
        "a b": pa.array([1, 2, 3]),
    }
)


@pytest.mark.parametrize(
    ("text", "rows"),
    [
        ("ok", [True, False, False]),
        ("not ok", [False, True, False]),
        ("ok == 1", [True, False, False]),
        ("n > 1", [False, True, False]),
        ("f != 1.5", [False, False, True]),
        ("1 <= n < 2 or f > 2", [True, False, True]),
        ("(n == 2) | (f == 3)", [False, True, True]),
        ("n & 2 == 2", [False, True, False]),
        ("kind == 'PSF'", [True, False, False]),
        ("kind in ['PSF', 'DEV']", [True, False, False]),
        ("kind not in ('PSF',)", [False, True, False]),
        ("`a b` / 2 > 0.9", [False, True, True]),
        ("-n < -1", [False, True, False]),
    ],
)
def test_a_condition_selects_rows(text: str, rows: list[bool]) -> None:
    condition = Condition(text)
    assert condition.rows(PART.select(list(condition.columns))).tolist() == rows
    assert condition.rows(PART.select(list(condition.columns))[:0]).tolist() == []


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("n = 1", "is no condition; compare with '=='"),
        ("", "is no condition"),
        ("1 < 2", "looks at no column"),
        ("n", "gives int32, not true or false"),
        ("n + 1", "gives int64|gives int32"),
        ("kind == 3", "cannot be computed"),
        ("n.real > 1", "has 'n.real', which is not known"),
        ("n[0] == 1", "which is not known"),
        ("open(n)", "which is not known"),
        ("(lambda: n)()", "which is not known"),
        ("n in ok", "'in' without a list"),
        ("n is ok", "compares in a way that is not known"),
        ("n == 0 & n > 3", r"has & or \| between comparisons; write 'and' or 'or'"),
        ("n == " + "(" * 500 + "1" + ")" * 500, "is no condition"),
        ("n == 1 or " * 300 + "ok", "more than 2,000 characters"),
    ],
)
def test_what_is_no_condition_is_one_line(text: str, message: str) -> None:
    with pytest.raises(ConfigError, match=f"^where: .*({message})") as caught:
        Condition(text).rows(PART)
    assert len(str(caught.value)) < 400


def test_rows_that_are_not_selected_are_counted(tmp_path: Path) -> None:
    url = write(tmp_path / "a.parquet", id=[1, 2, 3], n=[1, 2, 3], **PLACE)
    found = read(url, where="n > 1")
    assert (found.id.tolist(), found.n_left_out) == ([2, 3], 1)
    with pytest.raises(DetectionsError, match=r"no column 'idd' \(where\).*did you mean 'id'"):
        read(url, where="idd > 1")


CONFIG = {"field": "f.zarr", "output": "out"}


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"mag": {"flux": "F", "column": "F"}}, "exactly one of 'column' and 'flux'"),
        ({"mag": {"unit": "nJy"}}, "exactly one of 'column' and 'flux'"),
        ({"mag": {"flux": "F", "unit": "nJy", "zero_point": 25}}, "in the place of 'unit'"),
        ({"id": []}, "columns must name a column for 'id'"),
        ({"mag": {"flux": "F", "unitt": "nJy"}}, "unknown key 'columns.mag.*unitt'"),
    ],
)
def test_a_mapping_that_says_too_much_or_too_little(columns: Any, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        make_config({**CONFIG, "detections": "a.csv", "columns": columns})


def test_a_section_of_detections_says_what_the_top_says() -> None:
    columns = {"mag": {"flux": "F", "unit": "uJy"}, "id": ["a", "b"]}
    section = {"table": "/d/a.fits[CAT]", "columns": columns, "where": "ok", "origin": 1}
    reading = make_config({**CONFIG, "detections": section}).reading(None)
    assert reading.table == "/d/a.fits[CAT]"
    assert reading.columns == {"mag": ColumnConfig(flux="F", unit="uJy"), "id": ["a", "b"]}
    assert (reading.where, reading.origin) == ("ok", 1)


def test_only_ids_are_composed_and_only_magnitudes_are_fluxes(tmp_path: Path) -> None:
    url = write(tmp_path / "a.parquet", id=[1, 2, 3], **PLACE)
    with pytest.raises(DetectionsError, match=r"columns\.ra: only ids are made of several"):
        read(url, {"ra": ["ra", "dec"]})
    with pytest.raises(DetectionsError, match=r"columns\.ra: only 'mag' may come from a flux"):
        read(url, {"ra": ColumnConfig(flux="ra")})


@pytest.mark.parametrize("kind", [pa.float64(), pa.date32(), pa.bool_()])
def test_an_id_is_not_made_of_what_has_many_texts(kind: pa.DataType) -> None:
    part = pa.table({"a": pa.array([None], kind), "b": pa.array([1])})
    with pytest.raises(DetectionsError, match="ids are made of integers and texts"):
        ids(part, Source(("a", "b"), composed=True), "id", "a")
