"""What would stop a run before its first tile stops its plan, too, with the same line."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from deblend_batch.config import make_config
from deblend_batch.engine.plan import plan_run
from deblend_batch.engine.run import process_field
from deblend_batch.errors import UserError
from tests.support import SmallField

Values = dict[str, Any]
Fault = Callable[[Values, Path], None]


def _no_field(values: Values, folder: Path) -> None:
    values["field"] = str(folder / "none.zarr")


def _field_in_memory(values: Values, _: Path) -> None:
    values["field"] = "memory://field.zarr"


def _no_table(values: Values, folder: Path) -> None:
    values["detections"] = str(folder / "none.parquet")


def _no_column(values: Values, _: Path) -> None:
    values["columns"] = {"id": "number"}


def _ids_twice(values: Values, folder: Path) -> None:
    if Path(values["detections"]).exists():
        table = pq.read_table(values["detections"])
        values["detections"] = str(folder / "twice.parquet")
        pq.write_table(pa.concat_tables([table, table]), values["detections"])


def _no_pairs_table(values: Values, folder: Path) -> None:
    values["pairs"] = {"table": str(folder / "none.parquet")}


def _broken_pairs_table(values: Values, folder: Path) -> None:
    values["pairs"] = {"table": str(folder / "pairs.parquet")}
    pq.write_table(pa.table({"central_id": [1]}), folder / "pairs.parquet")


def _no_model(values: Values, folder: Path) -> None:
    values["model"] = str(folder / "none.safetensors")


def _another_model(values: Values, _: Path) -> None:
    values["model_sha256"] = "0" * 64


def _output_read_only(values: Values, _: Path) -> None:
    values["output"] = "https://localhost/out"


def _output_of_something_else(values: Values, folder: Path) -> None:
    values["output"] = str(folder / "thesis")
    (folder / "thesis").mkdir(exist_ok=True)
    (folder / "thesis" / "thesis.tex").touch()


def _output_under_a_file(values: Values, folder: Path) -> None:
    (folder / "file").touch()
    values["output"] = str(folder / "file" / "out")


def _damaged_run(values: Values, folder: Path) -> None:
    values["output"] = str(folder / "damaged")
    (folder / "damaged").mkdir(exist_ok=True)
    (folder / "damaged" / "run.json").write_text("{")


def _two_bricks(values: Values, folder: Path) -> None:
    """Two fields of one sky, each with its own table, and a table of pairs that names sources by ids."""
    pairs = str(folder / "pairs.parquet")
    columns = {"central_id": [1000, 1002], "companion_id": [1001, 1003]}
    pq.write_table(pa.table(columns), pairs)
    values.setdefault("pairs", {"table": pairs})
    table = str(folder / "brick.parquet")
    if Path(values["detections"]).exists():
        shutil.copy(values["detections"], table)
    first = values.pop("field")
    second = str(folder / "brick.zarr")
    if Path(first).exists():
        shutil.copytree(first, second, dirs_exist_ok=True)
    values["survey"] = [first, {"field": second, "detections": table}]


FAULTS: dict[str, Fault] = {
    each.__name__.strip("_"): each
    for each in (
        _no_field,
        _field_in_memory,
        _no_table,
        _no_column,
        _ids_twice,
        _no_pairs_table,
        _broken_pairs_table,
        _no_model,
        _another_model,
        _output_read_only,
        _output_of_something_else,
        _output_under_a_file,
        _damaged_run,
        _two_bricks,
    )
}


def refusals(
    small_field: SmallField, folder: Path, faults: list[str]
) -> list[tuple[type[BaseException], str]]:
    """Break a set-up in some ways; return how plan and run refuse it."""
    values = small_field.config(str(folder / "out"))
    for name in faults:
        FAULTS[name](values, folder)
    config = make_config(values)
    found: list[tuple[type[BaseException], str]] = []
    for attempt in (plan_run, process_field):
        with pytest.raises(UserError) as caught:
            attempt(config)
        found.append((caught.type, str(caught.value)))
    return found


@pytest.mark.parametrize("fault", FAULTS)
def test_plan_and_run_refuse_with_the_same_line(
    small_field: SmallField, tmp_path: Path, fault: str
) -> None:
    planned, ran = refusals(small_field, tmp_path, [fault])
    assert planned == ran
    assert "\n" not in planned[1]


def test_pairs_of_two_bricks_with_tables_of_their_own_are_refused_by_plan(
    small_field: SmallField, tmp_path: Path
) -> None:
    planned, _ = refusals(small_field, tmp_path, ["two_bricks"])
    assert "where field and brick overlap one source has two" in planned[1]


# A run may leave a claimed output behind, so that each example has a folder of its own.
@settings(max_examples=8, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(faults=st.lists(st.sampled_from(sorted(FAULTS)), min_size=2, max_size=4, unique=True))
def test_of_several_faults_both_name_the_same_one(
    small_field: SmallField, tmp_path_factory: pytest.TempPathFactory, faults: list[str]
) -> None:
    faults.sort(key="two_bricks".__eq__)  # which is made of the others
    planned, ran = refusals(small_field, tmp_path_factory.mktemp("faults"), faults)
    assert planned == ran
