"""Which column is which."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from deblend_batch.detections.columns import (
    DETECTION_COLUMNS,
    Source,
    check_mapping,
    find_column,
    resolve_detections,
)
from deblend_batch.detections.values import floats, ids
from deblend_batch.errors import DetectionsError


def sources(names: dict[str, str]) -> dict[str, Source]:
    return {ours: Source((name,)) for ours, name in names.items()}


SKY = {"id": "id", "ra": "ra", "dec": "dec"}


@pytest.mark.parametrize(
    ("names", "mapping", "expected"),
    [
        (["id", "ra", "dec", "flux"], {}, SKY),
        (["ID", "RA", "Dec", "MAG"], {}, {"id": "ID", "ra": "RA", "dec": "Dec", "mag": "MAG"}),
        (["id", "ID", "ra", "dec"], {}, SKY),
        (
            ["NUMBER", "ALPHA_J2000", "DELTA_J2000"],
            {"id": "NUMBER", "ra": "ALPHA_J2000", "dec": "DELTA_J2000"},
            {"id": "NUMBER", "ra": "ALPHA_J2000", "dec": "DELTA_J2000"},
        ),
        (["id", "x", "y", "mag", "radius"], {}, {n: n for n in ("id", "x", "y", "mag", "radius")}),
        (["id", "ra", "dec", "x", "y"], {}, SKY),
        (["id", "ra", "dec", "X", "Y"], {"x": "X", "y": "Y"}, {"id": "id", "x": "X", "y": "Y"}),
        (["id", "ra", "dec", "X", "Y"], {"ra": "ra", "x": "X", "y": "Y"}, SKY),
    ],
)
def test_columns_are_found(
    names: list[str], mapping: dict[str, str], expected: dict[str, str]
) -> None:
    assert resolve_detections(names, mapping, "a.parquet") == sources(expected)


@pytest.mark.parametrize(
    ("name", "arcsec"),
    [
        *((name, 0.6) for name in ("r50_pix", "hlr_px", "R_PIXELS", "sma.pixel", "FLUX_RADIUS", "A_IMAGE")),
        *((name, 10800.0) for name in ("r_deg", "FWHM_WORLD", "re_degrees")),
        *((name, 180.0) for name in ("reff_arcmin", "R_ARCMINUTES")),
        ("re_mas", 0.003),
        *((name, 3.0) for name in ("radius", "shape_r", "r_arcsec", "a", "hlr", "mass", "pixel_hint")),
    ],
)  # fmt: skip
def test_a_size_is_in_the_unit_of_its_name(name: str, arcsec: float) -> None:
    part = pa.table({name: [3.0]})
    found = floats(part, Source((name,)), "radius", "a", 0.2)
    assert found[0] == pytest.approx(arcsec)
    told = floats(part, Source((name,), unit="arcsec"), "radius", "a", 0.2)
    assert told[0] == 3.0


@pytest.mark.parametrize(
    ("name", "degrees"),
    [
        *((name, 57.29578) for name in ("ra_rad", "RA_radians", "coord.rad")),
        *((name, 15.0) for name in ("ra_hours", "RA_hourangle")),
        *((name, 1.0) for name in ("ra", "ra_deg", "alpha", "grad", "hours")),
    ],
)
def test_a_position_is_in_the_unit_of_its_name(name: str, degrees: float) -> None:
    found = floats(pa.table({name: [1.0]}), Source((name,)), "ra", "a")
    assert found[0] == pytest.approx(degrees)


@pytest.mark.parametrize(
    "unit", ["adu", "ct", "electron / s", "MJy / sr", "dex", "mag / arcsec2", "nJy s", "W", "pix"]
)
def test_what_is_in_another_unit_is_no_magnitude(unit: str) -> None:
    field = pa.field("m", pa.float64(), metadata={"unit": unit})
    with pytest.raises(DetectionsError, match="which is neither a magnitude nor a flux density"):
        floats(pa.table([[20.0]], schema=pa.schema([field])), Source(("m",)), "mag", "a")


@pytest.mark.parametrize(
    "unit", ["mag", "AB mag", "mag(AB)", "STmag", "Vega mag", "magnitudes", ""]
)
def test_what_magnitudes_are_called(unit: str) -> None:
    field = pa.field("m", pa.float64(), metadata={"unit": unit})
    part = pa.table([[20.0]], schema=pa.schema([field]))
    assert floats(part, Source(("m",)), "mag", "a").tolist() == [20.0]


@given(
    mapped=st.sets(st.sampled_from(["id", "ra", "dec", "mag", "radius"])),
    extra=st.lists(st.text("abcXYZ_", min_size=3, max_size=8), max_size=5),
)
def test_a_mapping_is_obeyed_whatever_else_the_table_has(
    mapped: set[str], extra: list[str]
) -> None:
    mapping = {ours: f"their {ours}" for ours in mapped}
    names = [mapping.get(ours, ours) for ours in ("id", "ra", "dec", "mag", "radius")]
    found = resolve_detections([*extra, *names], mapping, "a.parquet")
    wanted = {ours: mapping.get(ours, ours) for ours in ("id", "ra", "dec", "mag", "radius")}
    assert found == sources(wanted)


@pytest.mark.parametrize(
    ("names", "mapping", "message"),
    [
        (["number", "ra", "dec"], {}, r"no column 'id'; the table has number, ra, dec; .*id: NAME"),
        (["id", "ra"], {}, "no position: needs columns 'ra' and 'dec', or 'x' and 'y'"),
        (["id", "mag"], {}, "no position"),
        (["id", "x"], {}, "no position"),
        (["id", "ra", "dec"], {"id": "NUMBER"}, r"no column 'NUMBER' \(mapped to 'id'\)"),
        ([f"c{i}" for i in range(30)], {}, "c11, and 18 more"),
        ([], {}, "the table has no columns"),
        (["ID", "Id", "ra", "dec"], {}, "no column 'id'"),
    ],
)
def test_a_table_that_lacks_columns_says_which_it_has(
    names: list[str], mapping: dict[str, str], message: str
) -> None:
    with pytest.raises(DetectionsError, match=f"^a.parquet: .*{message}"):
        resolve_detections(names, mapping, "a.parquet")


@pytest.mark.parametrize(
    ("key", "message"),
    [("raa", "'raa', which is none of id, ra, dec, .*did you mean 'ra'"), ("flux", "'flux'")],
)
def test_unknown_keys_of_a_mapping_are_refused(key: str, message: str) -> None:
    with pytest.raises(DetectionsError, match=message):
        check_mapping({key: "A"}, DETECTION_COLUMNS, "a.parquet")


def test_a_name_that_differs_in_case_alone_must_be_the_only_one() -> None:
    assert find_column(["Ra", "RA"], "ra", {}, "a") is None
    assert find_column(["Ra", "RA"], "ra", {"ra": "RA"}, "a") == Source(("RA",))


def column(values: Any, kind: pa.DataType | None = None, unit: str = "") -> pa.Table:
    array = pa.array(values, kind)
    field = pa.field("c", array.type, metadata={"unit": unit} if unit else None)
    return pa.Table.from_arrays([array], schema=pa.schema([field]))


@pytest.mark.parametrize("kind", [pa.int8(), pa.uint16(), pa.int32(), pa.int64(), pa.uint64()])
def test_integers_of_any_width(kind: pa.DataType) -> None:
    found, names = ids(column([1, 2, 3], kind), Source(("c",)), "id", "a.parquet")
    assert found.dtype == np.int64
    assert found.tolist() == [1, 2, 3]
    assert names is None


@given(st.lists(st.integers(-(2**53) + 1, 2**53 - 1), max_size=20))
def test_floats_that_are_whole_are_integers(values: list[int]) -> None:
    found, _ = ids(column(values, pa.float64()), Source(("c",)), "id", "a.parquet")
    assert found.tolist() == values


@given(
    numbers=st.lists(st.floats(-1e30, 1e30), min_size=1, max_size=9),
    form=st.sampled_from(["{:.17g}", " {:+.17E} ", "{:.17E}~D", "{:.17g}~-"]),
    nothing=st.sampled_from(["", "***", "<NA>", "--", "-inf", "Infinity", "nan"]),
)
def test_texts_that_are_numbers_are_numbers(numbers: list[float], form: str, nothing: str) -> None:
    form, _, other = form.partition("~")
    texts = [form.format(number) for number in numbers]
    texts = [each.replace("E", "D") if other == "D" else each for each in texts]
    texts = [each.replace("-", "\N{MINUS SIGN}") if other == "-" else each for each in texts]
    found = floats(column([*texts, nothing, None], pa.string()), Source(("c",)), "x", "a.parquet")
    np.testing.assert_array_equal(found, [*numbers, np.nan, np.nan])


@pytest.mark.parametrize("text", ["ten", ">25.3", "1,5", "0x10", "1D", "--1", "1" * 500])
def test_a_text_that_is_no_number_is_shown(text: str) -> None:
    with pytest.raises(DetectionsError, match="column 'mag' holds string") as raised:
        floats(column(["1.5", text], pa.string()), Source(("c",)), "mag", "a.parquet")
    assert text[:20] in str(raised.value)


@pytest.mark.parametrize(
    ("values", "kind", "message"),
    [
        ([1.0, 2.5], pa.float64(), "column 'id' holds double; ids must be integer"),
        ([1.0, None], pa.float64(), "column 'id' is empty in 1 rows"),
        ([1.0, float("nan")], pa.float64(), "column 'id' is empty in 1 rows"),
        ([1.0, float("inf")], pa.float64(), r"holds double of 2\*\*53 or more"),
        (
            [2.0**53],
            pa.float64(),
            r"holds double of 2\*\*53 or more, where ids that differ may be one",
        ),
        ([2.0**24], pa.float32(), r"holds float of 2\*\*24 or more"),
        ([True], pa.bool_(), "holds bool"),
        ([1, None], pa.int64(), "column 'id' is empty in 1 rows"),
        ([2**63], pa.uint64(), "must fit int64"),
        ([None], pa.null(), "holds null"),
    ],
)
def test_other_ids_are_refused(values: list[Any], kind: pa.DataType, message: str) -> None:
    with pytest.raises(DetectionsError, match=rf"^a\.parquet: .*{message}"):
        ids(column(values, kind), Source(("c",)), "id", "a.parquet")


@pytest.mark.parametrize(
    ("ours", "unit", "factor"),
    [
        ("ra", "", 1.0),
        ("ra", "deg", 1.0),
        ("ra", "rad", 180 / np.pi),
        ("ra", "hourangle", 15.0),
        ("dec", "arcsec", 1 / 3600),
        ("ra", "DEG", 1.0),
        ("dec", "degrees", 1.0),
        ("ra", "RADIANS", 180 / np.pi),
        ("ra", "Hours", 15.0),
        ("radius", "ARCSECS", 1.0),
        ("radius", "arcsec", 1.0),
        ("radius", "deg", 3600.0),
        ("radius", "mas", 1e-3),
        ("mag", "mag(AB)", 1.0),
        ("x", "pixel", 1.0),
    ],
)
def test_units_are_converted(ours: str, unit: str, factor: float) -> None:
    values = floats(column([1.0, 2.5], unit=unit), Source(("c",)), ours, "a.parquet")
    np.testing.assert_allclose(values, np.array([1.0, 2.5]) * factor, rtol=1e-12)


@pytest.mark.parametrize("unit", ["nonsense", "mag"])
def test_a_radius_in_no_angle_is_refused(unit: str) -> None:
    with pytest.raises(
        DetectionsError, match=f"column 'radius' is in '{unit}', .*give it in arcsec"
    ):
        floats(column([1.0], unit=unit), Source(("c",)), "radius", "a.parquet")


@pytest.mark.parametrize("kind", [pa.float32(), pa.float64(), pa.int32(), pa.null()])
def test_nulls_are_nan(kind: pa.DataType) -> None:
    values = floats(column([None, None], kind), Source(("c",)), "mag", "a.parquet")
    assert np.isnan(values).all()


def test_text_is_no_number() -> None:
    with pytest.raises(DetectionsError, match=r"column 'ra' holds string \('north'\); it must be"):
        floats(column(["north"]), Source(("c",)), "ra", "a.parquet")


@pytest.mark.parametrize(
    "unit", [b"10**99999999 deg", b"10+9999999deg", b"s", b"\xff", b"deg" * 9999, b"deg/0"]
)
def test_a_unit_that_is_no_angle_is_one_short_line_at_once(unit: bytes) -> None:
    field = pa.field("ra", pa.float64(), metadata={b"unit": unit})
    part = pa.table([pa.array([1.0])], schema=pa.schema([field]))
    with pytest.raises(DetectionsError, match=r"'ra' is in .*, which is not an angle") as raised:
        floats(part, Source(("ra",)), "ra", "a.parquet")
    assert len(str(raised.value)) < 200


@pytest.mark.parametrize("kind", [pa.bool_(), pa.list_(pa.int64())])
def test_ids_of_another_type_are_refused_without_a_row(kind: pa.DataType) -> None:
    part = pa.table({"id": pa.array([], kind)})
    with pytest.raises(DetectionsError, match=r"'id' holds .*; ids must be integer"):
        ids(part, Source(("id",)), "id", "a.parquet")
