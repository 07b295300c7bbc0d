"""Measuring pairs again: what is drawn, what differs, and what is said where it cannot be done."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import zarr

from deblend_batch.catalog.compare import differences
from deblend_batch.catalog.ledger import Ledger
from deblend_batch.engine.audit.recompute import draw_pairs
from deblend_batch.engine.audit.verify import verify_run
from tests.engine.finished import commit, finish_run, read_rows
from tests.support import SmallField, member

TILE = "y0000x0000"


@pytest.fixture
def own_field(small_field: SmallField, tmp_path: Path) -> SmallField:
    """A copy of the small field and its tables that a test may spoil."""
    url, model = str(tmp_path / "field.zarr"), str(tmp_path / "tiny.safetensors")
    detections = str(tmp_path / "detections.parquet")
    shutil.copytree(small_field.url, url)
    shutil.copy(small_field.detections, detections)
    shutil.copy(small_field.model, model)
    return replace(small_field, url=url, detections=detections, model=model)


@pytest.fixture
def run(own_field: SmallField, tmp_path: Path) -> Ledger:
    """A complete run."""
    return finish_run(own_field, str(tmp_path / "out"))


def scale_flux(run: Ledger, factor: float, device: str) -> None:
    """Change the fluxes of a tile, with its receipt: only the inputs can tell."""
    rows = read_rows(run, TILE)
    flux = pa.array(rows["flux_h"].to_numpy() * np.float32(factor))
    commit(run, TILE, rows.set_column(rows.schema.names.index("flux_h"), "flux_h", flux))
    run.replace_receipt(replace(run.read_receipt(TILE), worker={"device": device}))


def test_a_flux_that_differs_in_its_last_bits_is_found(run: Ledger) -> None:
    scale_flux(run, 1.000001, "cpu")
    found = verify_run(run.output, recompute=93)
    (problem,) = found.problems
    assert problem.startswith(f"shard {TILE}: flux_h of ")
    assert (found.recomputed, found.exit_code) == (93, 2)


@pytest.mark.parametrize(("factor", "sound"), [(1.001, True), (1.1, False)])
def test_fluxes_of_a_gpu_are_compared_within_a_tolerance(
    run: Ledger, factor: float, sound: bool
) -> None:
    scale_flux(run, factor, "cuda:0")
    found = verify_run(run.output, recompute=93)
    assert (found.problems == ()) == sound
    assert found.notes == ("fluxes of GPUs compared within 1%",)


def _remove_field(field: SmallField) -> None:
    shutil.rmtree(field.url)


def _change_detections(field: SmallField) -> None:
    with Path(field.detections).open("ab") as file:
        file.write(b"more")


def _remove_model(field: SmallField) -> None:
    Path(field.model).unlink()


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        (_remove_field, "field.zarr"),
        (_change_detections, "detections changed since the run"),
        (_remove_model, "tiny.safetensors"),
    ],
)
def test_inputs_that_are_gone_or_changed_are_a_note(
    run: Ledger, own_field: SmallField, spoil: Callable[[SmallField], None], reason: str
) -> None:
    spoil(own_field)
    found = verify_run(run.output)
    assert (found.problems, found.recomputed, found.exit_code) == ((), 0, 0)
    (note,) = found.notes
    assert note.startswith("not recomputed: ")
    assert reason in note
    assert "\n" not in note


def test_pixels_that_changed_since_the_run_are_found(run: Ledger, own_field: SmallField) -> None:
    image = member(zarr.open_group(own_field.url, mode="r+"), "image")
    image[:] = np.asarray(image[:]) * 2
    found = verify_run(run.output)
    assert found.exit_code == 2
    assert "the field's pixels or this machine's arithmetic" in found.problems[0]


def test_every_pair_has_the_same_chance() -> None:
    written = {"a": 10, "b": 0, "c": 30}
    met = [draw_pairs(written, 4, seed) for seed in range(500)]
    assert all(sum(map(len, each.values())) == 4 for each in met)
    assert sum(len(each.get("a", ())) for each in met) == pytest.approx(500, rel=0.1)
    assert {int(n) for each in met for n in each.get("c", ())} == set(range(30))
    assert all("b" not in each for each in met)


def test_a_column_that_is_missing_differs() -> None:
    again = pa.table({"blend_id": [1, 1], "tile": ["t", "t"], "flux_h": np.ones(2, np.float32)})
    assert differences(again.drop(["flux_h"]), again, 0.0) == ["flux_h"]
    assert differences(again.drop(["flux_h"]), again, 0.1) == ["flux_h"]
    assert differences(again, again.drop(["flux_h"]), 0.0) == ["flux_h"]
    assert differences(again, again.drop(["flux_h"]), 0.1) == ["flux_h"]
    nothing = again.set_column(2, "flux_h", pa.array(np.full(2, np.nan, np.float32)))
    assert differences(nothing, nothing, 0.0) == differences(nothing, nothing, 0.1) == []
    assert differences(nothing, again, 0.1) == ["flux_h"]
