from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import fsspec
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from deblend_batch.errors import NotFoundError
from deblend_batch.evaluation.errors import EvaluationError
from deblend_batch.evaluation.truth import read_truth
from tests.limited import run_limited
from tests.parquet import hostile

FULL = {
    "id": [7, 3, 5],
    "ra": [150.0, 150.1, 150.2],
    "dec": [2.0, 2.1, 2.2],
    "mag": [21.4, 31.4, 26.4],
    "flux_njy": [10_000.0, 1.0, 100.0],
    "radius": [0.3, 0.4, 0.5],
    "type": ["sph", "disk", "irr"],
}


def _write(folder: Path, **changes: Any) -> str:
    columns = {name: value for name, value in (FULL | changes).items() if value is not None}
    path = str(folder / "truth.parquet")
    pq.write_table(pa.table(columns), path)
    return path


def test_a_simulated_truth_is_sorted_by_id(tmp_path: Path) -> None:
    truth = read_truth(_write(tmp_path), "h")
    assert truth.id.tolist() == [3, 5, 7]
    assert truth.flux.tolist() == [1.0, 100.0, 10_000.0]
    np.testing.assert_allclose(truth.mag, [31.4, 26.4, 21.4])
    assert truth.kind.tolist() == ["disk", "irr", "sph"]
    assert truth.radius_arcsec.tolist() == [0.4, 0.5, 0.3]
    assert truth.radec is not None
    np.testing.assert_allclose(truth.radec[0], [150.1, 2.1])


@pytest.mark.parametrize(
    "changes",
    [
        {"flux_njy": None},
        {"flux_njy": None, "mag": None, "flux_h": FULL["flux_njy"]},
        {"flux_njy": None, "mag": [0.0, 0.0, 0.0], "mag_h": FULL["mag"]},
        {"flux_njy": [9.0, 9.0, 9.0], "flux_h": FULL["flux_njy"]},
    ],
    ids=["magnitude", "flux of the band", "magnitude of the band", "the band's first"],
)
def test_flux_columns(tmp_path: Path, changes: dict[str, Any]) -> None:
    truth = read_truth(_write(tmp_path, **changes), "h")
    np.testing.assert_allclose(truth.flux, [1.0, 100.0, 10_000.0])


def test_optional_columns_may_be_absent(tmp_path: Path) -> None:
    truth = read_truth(_write(tmp_path, ra=None, radius=None, type=None), "h")
    assert truth.radec is None
    assert np.isnan(truth.radius_arcsec).all()
    assert truth.kind.tolist() == ["", "", ""]
    assert truth.galaxy_id.tolist() == truth.id.tolist()


@pytest.mark.parametrize("flux", [0.0, -1.0, np.nan])
def test_sources_without_a_positive_flux_are_no_truth(tmp_path: Path, flux: float) -> None:
    assert read_truth(_write(tmp_path, flux_njy=[flux, 1.0, 2.0]), "h").id.tolist() == [3, 5]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"id": None}, "column 'id' is missing; it has ra, dec"),
        ({"flux_njy": None, "mag": None}, "column 'flux_h' or 'flux_njy' or 'mag_h' or 'mag' is"),
        ({"id": [3, 4, 3]}, "id 3 is there twice"),
    ],
)
def test_a_bad_table_is_one_line(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(EvaluationError, match=message):
        read_truth(_write(tmp_path, **changes), "h")


def test_what_is_no_parquet_is_one_line(tmp_path: Path) -> None:
    path = tmp_path / "truth.parquet"
    path.write_text("id,mag\n1,20\n")
    with pytest.raises(EvaluationError, match=r"truth\.parquet: not Parquet") as caught:
        read_truth(str(path), "h")
    assert "\n" not in str(caught.value)


def test_an_absent_table_is_named(tmp_path: Path) -> None:
    with pytest.raises(NotFoundError, match=r"none\.parquet: no such file"):
        read_truth(str(tmp_path / "none.parquet"), "h")


def test_any_store_serves(tmp_path: Path) -> None:
    with fsspec.open("memory://truth/table.parquet", "wb") as file:
        file.write(Path(_write(tmp_path)).read_bytes())
    assert read_truth("memory://truth/table.parquet", "h").id.tolist() == [3, 5, 7]


READ = """
import sys
from deblend_batch.errors import UserError
from deblend_batch.evaluation.truth import read_truth
for url in sys.argv[1:]:
    try:
        print(len(read_truth(url, "h").id))
    except UserError as error:
        print(type(error).__name__, error)
"""


def test_a_table_that_announces_too_much_is_one_line_and_little_memory(tmp_path: Path) -> None:
    def bomb(n: int, ids: hostile.Column, word: bytes = b"") -> bytes:
        flux = hostile.constant("flux_h", hostile.double(1.0), n)
        words = [hostile.constant("kind", word, n, hostile.TEXT)] if word else []
        return hostile.parquet([ids, flux, *words], n, 5_000_000)

    equal = hostile.constant("id", bytes(8), 8_000_000, hostile.INT64)
    many = hostile.counting("id", 100_000_000)
    bombs = [
        (bomb(8_000_000, equal), "EvaluationError .*: id 0 is there twice"),
        (bomb(100_000_000, many), "TooLargeError .*: 5,.* bytes of Parquet announce"),
        (
            bomb(1000, hostile.counting("id", 1000), b"x" * 40_000),
            "EvaluationError .*texts of more",
        ),
    ]
    urls = [str(tmp_path / f"{number}.parquet") for number in range(len(bombs))]
    for url, (content, _) in zip(urls, bombs, strict=True):
        Path(url).write_bytes(content)
    ended = run_limited(
        ["python", "-c", READ, *urls], memory=600_000_000, cwd=Path(__file__).parents[2]
    )
    assert (ended.code, ended.err) == (0, "")
    for line, (_, message) in zip(ended.out.splitlines(), bombs, strict=True):
        assert re.match(message, line)
