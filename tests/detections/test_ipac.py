"""IPAC tables, as IRSA and astropy write them."""

from __future__ import annotations

import gzip
from pathlib import Path

import numpy as np
import pytest
from astropy.table import MaskedColumn, Table
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from deblend_batch.detections.table import Detections, read_detections
from deblend_batch.errors import DetectionsError, UserError

IRSA = """\
\\fixlen = T
\\catalog = "2MASS (fp_psc)"
\\ a comment of many words
|   ra      |   dec     |designation      |j_m   |cntr     |
|   double  |   double  |char             |double|long     |
|   deg     |   deg     |                 |mag   |         |
|   null    |   null    |null             |null  |null     |
  150.000500    2.000250 10000012+0200009  14.250 900000001
  150.125000   -2.500000 10003000-0230000  null   900000002
\\ a comment between

  150.250000    2.750000 10010000+0245000  15.000 900000003
"""


def read(path: Path, **columns: str) -> Detections:
    return Detections.concatenate(list(read_detections(str(path), columns)))


@pytest.mark.parametrize(
    ("name", "end", "packed"),
    [("a.tbl", "\n", False), ("a.txt", "\r\n", False), ("a.csv", "\n", True), ("a.tbl", "", False)],
)
def test_a_table_of_an_archive(name: str, end: str, packed: bool, tmp_path: Path) -> None:
    content = (IRSA.rstrip("\n") if not end else IRSA.replace("\n", end)).encode()
    (tmp_path / name).write_bytes(gzip.compress(content) if packed else content)
    found = read(tmp_path / name, id="cntr", mag="j_m")
    assert found.id.tolist() == [900000001, 900000002, 900000003]
    np.testing.assert_array_equal(found.ra, [150.0005, 150.125, 150.25])
    np.testing.assert_array_equal(found.dec, [2.00025, -2.5, 2.75])
    np.testing.assert_array_equal(found.mag, np.array([14.25, np.nan, 15.0], "f4"))
    assert read(tmp_path / name, id="designation").carried is not None


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=25)
@given(data=st.data(), n=st.integers(0, 40))
def test_what_astropy_writes_is_read(data: st.DataObject, n: int, tmp_path: Path) -> None:
    numbers = st.lists(st.floats(-89, 89), min_size=n, max_size=n)
    table = Table({"id": np.arange(n), "ra": data.draw(numbers), "dec": data.draw(numbers)})
    missing = np.array(data.draw(st.lists(st.booleans(), min_size=n, max_size=n)), bool)
    table["mag"] = MaskedColumn(np.linspace(20, 25, n), mask=missing)
    table.write(tmp_path / "a.tbl", format="ascii.ipac", overwrite=True)
    found = read(tmp_path / "a.tbl")
    np.testing.assert_allclose(found.ra, np.asarray(table["ra"], float), rtol=1e-12)
    np.testing.assert_array_equal(np.isnan(found.mag), missing)


def test_a_large_table_comes_in_parts(tmp_path: Path) -> None:
    n = 30_000
    rows = "".join(f" {i:9d} {150 + i / 1e5:12.7f} {2 + i / 1e5:12.7f}\n" for i in range(n))
    (tmp_path / "a.tbl").write_text("|   id    |    ra      |    dec     |\n" + rows)
    parts = list(read_detections(str(tmp_path / "a.tbl")))
    assert len(parts) > 1
    np.testing.assert_array_equal(np.concatenate([part.id for part in parts]), np.arange(n))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"\\ nothing follows\n", "an IPAC table with 0 lines between bars"),
        (b"|id|ra|dec|\n" * 5, "an IPAC table with 5 lines between bars"),
        (b"|" + b"a|" * 20_000 + b"\n", "more than 10,000 columns"),
        (b"|id |ra |dec|\n|int|nonsense|int|\n 1 2 3\n", "cannot read this ipac table"),
        (b"|id |ra |dec|\n 10001 2  3\n", "does not stand between the bars"),
        (b"|id |ra |dec|\n   1   2   3 4\n", "does not stand between the bars"),
        (b"\\" + b"x" * (1 << 21), "a line of more than"),
        (b"\\ a\n" * (1 << 19), "a header of more than"),
    ],
)
def test_what_is_no_such_table_is_one_line(content: bytes, message: str, tmp_path: Path) -> None:
    (tmp_path / "a.tbl").write_bytes(content)
    with pytest.raises(UserError, match=message) as caught:
        read(tmp_path / "a.tbl")
    assert "\n" not in str(caught.value)


def test_a_damaged_one_is_refused_or_read(tmp_path: Path) -> None:
    for cut in range(0, len(IRSA), 23):
        (tmp_path / "a.tbl").write_text(IRSA[:cut])
        try:
            read(tmp_path / "a.tbl", id="cntr", mag="j_m")
        except DetectionsError as error:
            assert "\n" not in str(error)  # noqa: PT017
