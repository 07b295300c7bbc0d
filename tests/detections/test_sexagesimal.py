"""Positions as texts of hours or degrees, minutes and seconds."""

from __future__ import annotations

from pathlib import Path

import astropy.units as u
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from astropy.coordinates import Angle
from astropy.table import Table
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from deblend_batch.detections.table import Detections, read_detections
from deblend_batch.errors import DetectionsError
from deblend_batch.table_columns import Column, ColumnConfig

FORMS = ("colon", "letters", "blank")


def text(angle: Angle, form: str, unit: u.Unit, *, pad: bool, sign: bool) -> str:
    separators = {"colon": ":", "blank": " ", "letters": "hms" if unit is u.hourangle else "dms"}
    return str(
        angle.to_string(unit=unit, sep=separators[form], precision=4, pad=pad, alwayssign=sign)
    )


def read(path: Path, **columns: Column) -> Detections:
    return Detections.concatenate(list(read_detections(str(path), columns)))


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=60)
@given(
    positions=st.lists(
        st.tuples(st.floats(0, 359.9), st.floats(-89.9, 89.9)), min_size=1, max_size=5
    ),
    form=st.sampled_from(FORMS),
    in_hours=st.booleans(),
    pad=st.booleans(),
    sign=st.booleans(),
    suffix=st.sampled_from([".parquet", ".csv", ".vot", ".fits", ".ecsv"]),
)
def test_texts_are_what_astropy_takes_them_for(
    positions: list[tuple[float, float]], form: str, in_hours: bool, pad: bool, sign: bool, suffix: str,
    tmp_path: Path,
) -> None:  # fmt: skip
    ra, dec = (Angle(list(values), u.deg) for values in zip(*positions, strict=True))
    unit = u.hourangle if in_hours else u.deg
    columns = {
        "id": np.arange(len(positions)),
        "ra": [text(each, form, unit, pad=pad, sign=False) for each in ra],
        "dec": [text(each, form, u.deg, pad=pad, sign=sign) for each in dec],
    }
    path = tmp_path / f"a{suffix}"
    if suffix == ".parquet":
        pq.write_table(pa.table(columns), path)
    else:
        kind = {".csv": "ascii.csv", ".vot": "votable", ".ecsv": "ascii.ecsv"}.get(suffix)
        Table(columns).write(path, format=kind, overwrite=True)
    said: dict[str, Column] = {}
    if form != "letters":
        with pytest.raises(DetectionsError, match=r"hh:mm:ss or dd:mm:ss, and nothing says which"):
            read(path)
        said = {"ra": ColumnConfig(column="ra", unit=unit.to_string())}
    found = read(path, **said)
    np.testing.assert_allclose(found.ra, ra.deg, atol=1e-6)
    np.testing.assert_allclose(found.dec, dec.deg, atol=1e-7)


@pytest.mark.parametrize(
    ("unit", "expected"),
    [('"h:m:s"', 161.25), ("hourangle", 161.25), ('"d:m:s"', 10.75), ("deg", 10.75)],
)
def test_a_unit_of_the_table_says_which(unit: str, expected: float, tmp_path: Path) -> None:
    fields = [
        pa.field("id", pa.int64()),
        pa.field("ra", pa.string(), metadata={"unit": unit}),
        pa.field("dec", pa.string()),
    ]
    rows = pa.table([[1], ["10:45:00"], ["-05:30:00"]], schema=pa.schema(fields))
    pq.write_table(rows, tmp_path / "a.parquet")
    found = read(tmp_path / "a.parquet")
    assert (found.ra[0], found.dec[0]) == (expected, -5.5)


def test_what_is_missing_has_no_position(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("id,ra,dec\n1,10h45m00s,-0d30m00s\n2,,\n3,--,+1d00m00.0s\n")
    found = read(tmp_path / "a.csv")
    np.testing.assert_array_equal(found.ra, [161.25, np.nan, np.nan])
    np.testing.assert_array_equal(found.dec, [-0.5, np.nan, 1.0])


@pytest.mark.parametrize(
    "wrong", ["10:99:00", "10:10:61", "north", "1:2", "10h45m00s E", "1" * 500]
)
def test_a_text_that_is_no_position_is_shown(wrong: str, tmp_path: Path) -> None:
    pq.write_table(
        pa.table({"id": [1], "ra": [wrong], "dec": ["1d00m00s"]}), tmp_path / "a.parquet"
    )
    with pytest.raises(
        DetectionsError, match=r"column 'ra' holds string .* such as 10h45m03.6s"
    ) as e:
        read(tmp_path / "a.parquet", ra=ColumnConfig(column="ra", unit="hourangle"))
    assert len(str(e.value)) < 400
