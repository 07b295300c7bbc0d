"""A run of two fields that overlap, with a table each: from its plan to its verification."""

from __future__ import annotations

import pickle
import shutil
from collections import Counter
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zarr

from deblend_batch.catalog.ledger import Ledger
from deblend_batch.catalog.output import Output
from deblend_batch.engine.audit.verify import verify_run
from deblend_batch.engine.inputs.prepare import prepare
from deblend_batch.engine.plan import plan_run
from deblend_batch.engine.run import process_field, settle
from deblend_batch.errors import ConfigError, DetectionsError
from deblend_batch.field.footprint import Footprint
from deblend_batch.field.layout import Field, create_field, finish_field
from tests.support import SmallField, make_meta, member, read_shards


class Survey(NamedTuple):
    """Two halves of the small field, and its config without an output."""

    fields: list[dict[str, str]]
    truth: dict[tuple[str, int], int]


def write_halves(
    small_field: SmallField, folder: Path, footprints: dict[str, Footprint] | None = None
) -> Survey:
    """Cut the small field into two that overlap; tables are off by a third of a pixel, and count alike."""
    image = np.asarray(member(zarr.open_group(small_field.url, mode="r"), "image")[0])
    cards = make_meta().wcs_cards
    rng = np.random.default_rng(2)
    fields: list[dict[str, str]] = []
    truth: dict[tuple[str, int], int] = {}
    for name, x0, x1 in (("left", 0, 350), ("right", 250, 600)):
        place = {"CRPIX1": float(cards["CRPIX1"]) - x0}
        footprint = (footprints or {}).get(name)
        meta = make_meta(name=name, wcs_cards={**cards, **place}, footprint=footprint)
        url = str(folder / f"{name}.zarr")
        group = create_field(url, meta, (500, x1 - x0), with_variance=False)
        member(group, "image")[0] = image[:, x0:x1]
        finish_field(group, meta)
        yx = small_field.yx - (0, x0)
        own = np.flatnonzero((yx[:, 1] > -8) & (yx[:, 1] < x1 - x0 + 8))
        moved = yx[own] + rng.uniform(-0.3, 0.3, (len(own), 2))
        ids = rng.permutation(len(own)) + 1
        table = str(folder / f"{name}.parquet")
        columns = {"id": ids, "x": moved[:, 1], "y": moved[:, 0], "mag": small_field.mag[own]}
        pq.write_table(pa.table(columns), table)
        fields.append({"field": url, "detections": table})
        truth |= {(name, int(n)): int(o) for n, o in zip(ids, own, strict=True)}
    return Survey(fields, truth)


def config_of(small_field: SmallField, survey: Survey, output: Path, **changes: Any) -> Any:
    """Return a run's config."""
    config = small_field.config(str(output), survey=survey.fields, **changes)
    del config["field"]
    return config


@pytest.fixture(scope="module")
def halves(small_field: SmallField, tmp_path_factory: pytest.TempPathFactory) -> Survey:
    return write_halves(small_field, tmp_path_factory.mktemp("halves"))


@pytest.fixture(scope="module")
def finished(
    small_field: SmallField, halves: Survey, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    output = tmp_path_factory.mktemp("overlaps") / "out"
    assert process_field(config_of(small_field, halves, output)).exit_code == 0
    return output


def test_every_source_has_one_primary_row(
    small_field: SmallField, halves: Survey, finished: Path, undisturbed: dict[str, bytes]
) -> None:
    rows = read_shards(str(finished))
    names = zip(rows["field"].to_pylist(), rows["source_id"].to_pylist(), strict=True)
    sources = [halves.truth[name] for name in names]
    primary = rows["is_primary"].to_pylist()
    found = Counter(source for source, one in zip(sources, primary, strict=True) if one)
    assert set(found.values()) == {1}
    pairs = {frozenset(sources[i : i + 2]) for i in range(0, len(sources), 2)}
    whole = pa.concat_tables(
        [pq.read_table(pa.BufferReader(content)) for content in undisturbed.values()]
    )
    number = {int(n): i for i, n in enumerate(small_field.ids)}
    expected = [number[source] for source in whole["source_id"].to_pylist()]
    wanted = {frozenset(expected[i : i + 2]) for i in range(0, len(expected), 2)}
    # A third of a pixel decides of a few pairs whether they are within 2 arcsec, or on the image.
    assert len(pairs & wanted) > 0.95 * len(wanted)
    assert len(pairs) == len(sources) / 2


def test_counts_add_up_and_tell_what_is_deferred(finished: Path) -> None:
    totals = Ledger(Output(str(finished))).read_run()["totals"]
    found = totals["detections"]
    assert found["read"] == found["used"] + found["outside"] + found["deferred"]
    assert sum(totals["deferred"].values()) == found["deferred"] > 20
    assert set(totals["deferred"]) == {"left", "right"}
    assert totals["pairs"]["expected"] == totals["pairs"]["written"]


def test_a_plan_says_what_fields_leave_to_each_other(
    small_field: SmallField, halves: Survey, finished: Path
) -> None:
    planned = plan_run(settle(config_of(small_field, halves, finished)))
    totals = Ledger(Output(str(finished))).read_run()["totals"]
    left, right = planned.deferred["left"]["right"], planned.deferred["right"]["left"]
    assert totals["deferred"] == {"right": left, "left": right}
    lines = [text for name, text in planned.to_rows() if name == "overlap"]
    assert lines == [
        f"left leaves {left} sources to right",
        f"right leaves {right} sources to left",
    ]
    assert any("sources that fields with other tables show" in line for line in planned.checks)


def test_verification_finds_lists_that_do_not_agree(finished: Path, tmp_path: Path) -> None:
    assert verify_run(Output(str(finished))).problems == ()
    copy = tmp_path / "out"
    shutil.copytree(finished, copy)
    one, other = (copy / "index" / f"f000{n}.deferred.parquet" for n in (0, 1))
    whole = pq.read_table(one)
    pq.write_table(whole.slice(1), one)
    assert any(
        "list of deferred sources is another's" in line
        for line in verify_run(Output(str(copy)), recompute=0).problems
    )
    theirs = pq.read_table(other)
    pq.write_table(
        whole.set_column(
            2, "field_source_id", theirs["source_id"].slice(0, 1).take([0] * len(whole))
        ),
        one,
    )
    assert any(
        "which does not measure them" in line
        for line in verify_run(Output(str(copy)), recompute=0).problems
    )
    one.unlink()
    assert verify_run(Output(str(copy)), recompute=0).exit_code == 2


def test_a_footprint_decides_before_the_edge(
    small_field: SmallField, finished: Path, tmp_path: Path
) -> None:
    """All that both show is the right one's own, and both say so."""
    corners = Field.open(small_field.url).pixel_to_world(
        np.array([(-1.0, 249.0), (-1.0, 600.0), (500.0, 600.0), (500.0, 249.0)])
    )
    right = Footprint((tuple(map(tuple, corners.tolist())),))
    survey = write_halves(small_field, tmp_path, {"right": right})
    planned = plan_run(settle(config_of(small_field, survey, tmp_path / "out")))
    assert set(planned.deferred) == {"left"}
    shared = Ledger(Output(str(finished))).read_run()["totals"]["deferred"]
    assert planned.deferred["left"]["right"] == sum(shared.values())


def test_a_table_for_several_fields_gives_sky_positions(
    small_field: SmallField, halves: Survey, tmp_path: Path
) -> None:
    fields = [each["field"] for each in halves.fields]
    config = {**config_of(small_field, halves, tmp_path / "out"), "survey": fields}
    with pytest.raises(DetectionsError, match="gives pixel positions, and several fields use it"):
        process_field(config)


def test_a_carried_column_may_not_be_called_field(
    small_field: SmallField, halves: Survey, tmp_path: Path
) -> None:
    config = config_of(small_field, halves, tmp_path / "out", carry=["Field"])
    with pytest.raises(ConfigError, match="the catalogue has a column 'field' of its own"):
        process_field(config)


def test_fields_of_one_sky_in_different_bands_are_told_of(
    small_field: SmallField, halves: Survey, tmp_path: Path
) -> None:
    other = str(tmp_path / "right.zarr")
    shutil.copytree(halves.fields[1]["field"], other)
    zarr.open_group(other, mode="r+").attrs.update(bands=["r"])
    survey = Survey([halves.fields[0], {**halves.fields[1], "field": other}], halves.truth)
    planned = plan_run(settle(config_of(small_field, survey, tmp_path / "out")))
    assert any(
        "to right, whose bands are r and not h: each is measured" in n for n in planned.notes
    )


def test_what_a_worker_is_sent_of_a_survey_is_small(
    small_field: SmallField, halves: Survey, tmp_path: Path
) -> None:
    tasks = prepare(settle(config_of(small_field, halves, tmp_path / "out"))).index_tasks()
    sent = pickle.dumps(tasks[0])
    assert len(sent) < 10_000
    assert pickle.loads(sent).entry.neighbours[0].name == "right"
