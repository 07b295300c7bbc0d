"""The main job: complete, exactly once, resumable, independent of its division."""

from __future__ import annotations

import io
import json
import os
import re
import shutil
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
import zarr
from scipy.spatial import cKDTree

from deblend_batch import __version__, flags, storage
from deblend_batch.catalog.ledger import Ledger
from deblend_batch.catalog.output import Output
from deblend_batch.config import make_config
from deblend_batch.engine import run as run_module
from deblend_batch.engine.account.reader import read_status
from deblend_batch.engine.audit.verify import verify_run
from deblend_batch.engine.plan import plan_run
from deblend_batch.engine.run import process_field, retry_run
from deblend_batch.errors import (
    ConfigError,
    DetectionsError,
    InterruptedRunError,
    NotFoundError,
    OutputConflictError,
    StorageError,
)
from deblend_batch.field.layout import create_field, finish_field
from deblend_batch.field.photometry import nanojansky_per_unit
from deblend_batch.progress import ProgressMeter
from deblend_batch.tiling.pairing import blend_ids, match_within
from tests.engine.stopped import StoppedMeter
from tests.support import (
    SmallField,
    make_meta,
    member,
    read_shards,
    same_rows,
    write_tiny_model,
)


@pytest.fixture(scope="module")
def finished(small_field: SmallField, tmp_path_factory: pytest.TempPathFactory) -> str:
    """A complete run of the small field."""
    output = str(tmp_path_factory.mktemp("run") / "out")
    summary = process_field(small_field.config(output))
    assert summary.exit_code == 0
    return output


def test_every_pair_is_in_the_catalogue_once(finished: str, small_field: SmallField) -> None:
    rows = read_shards(finished)
    from deblend_batch.field.layout import Field

    radec = Field.open(small_field.url).pixel_to_world(small_field.yx)
    members = match_within(radec[:, 0], radec[:, 1], 2.0)
    ids = small_field.ids[members]
    expected = np.sort(blend_ids(ids[:, 0], ids[:, 1]))
    np.testing.assert_array_equal(rows["blend_id"].to_numpy()[::2], expected)
    np.testing.assert_array_equal(rows["blend_id"].to_numpy()[1::2], expected)
    assert rows["role"].to_pylist() == ["central", "companion"] * len(expected)


def test_each_source_has_one_primary_row(finished: str) -> None:
    rows = read_shards(finished)
    primary = rows.filter(rows["is_primary"])["source_id"].to_numpy()
    assert len(np.unique(primary)) == len(primary)
    assert set(primary) == set(rows["source_id"].to_numpy())


def test_the_central_is_the_brighter(finished: str, small_field: SmallField) -> None:
    rows = read_shards(finished)
    mag_of = dict(zip(small_field.ids.tolist(), small_field.mag.tolist(), strict=True))
    mags = np.array([mag_of[i] for i in rows["source_id"].to_pylist()]).reshape(-1, 2)
    assert (mags[:, 0] <= mags[:, 1]).all()


def test_shards_carry_units_and_the_contract_s_columns(finished: str) -> None:
    name = storage.list_names(storage.join(finished, "shards"))[0]
    schema = pq.read_schema(storage.join(finished, "shards", name))
    assert schema.names == [
        *("blend_id", "source_id", "neighbour_id", "role", "is_primary", "ra", "dec", "x", "y"),
        *("separation", "flux_h", "flux_err_h", "mag_h", "mag_err_h", "mask_area", "mask_overlap"),
        *("flags", "tile", "_healpix_29"),
    ]
    assert schema.field("flux_h").metadata[b"unit"] == b"nJy"
    assert schema.field("flux_h").metadata[b"ucd"] == b"phot.flux"
    assert schema.field("separation").metadata[b"unit"] == b"arcsec"
    assert all(b"description" in schema.field(column).metadata for column in schema.names)


def test_totals_add_up_and_the_ledger_agrees(finished: str) -> None:
    run = json.loads(Path(finished, "run.json").read_text())
    rows = read_shards(finished)
    assert run["state"] == "complete"
    assert run["totals"]["rows"] == len(rows) == 2 * run["totals"]["pairs"]["expected"]
    assert run["totals"]["flags"] == flags.count(rows["flags"].to_numpy())
    ledger = Ledger(Output(finished))
    assert sum(r.rows for r in ledger.read_receipts(ledger.output.receipts())) == len(rows)
    found = verify_run(Output(finished))
    assert (found.exit_code, found.problems) == (0, ())
    status = read_status(Output(finished))
    assert (status.pairs_written, status.pairs_expected) == (len(rows) // 2, len(rows) // 2)


@pytest.mark.parametrize(
    "changes",
    [
        {"tiles": {"size": 64}},
        {"tiles": {"size": 4096, "max_pairs": 16}, "engine": {"batch_size": 50}},
        {"engine": {"actors": 1, "batch_size": 7, "tiles_in_flight": 1}},
    ],
    ids=[
        "many tiles",
        "one tile in units",
        "one actor",
    ],
)
def test_rows_do_not_depend_on_how_the_work_is_divided(
    finished: str, small_field: SmallField, tmp_path: Path, changes: dict[str, Any]
) -> None:
    output = str(tmp_path / "out")
    process_field(small_field.config(output, **changes))
    assert same_rows(read_shards(output), read_shards(finished))


def test_running_again_does_nothing_over(finished: str, small_field: SmallField) -> None:
    shards = {path: path.stat().st_mtime_ns for path in Path(finished, "shards").iterdir()}
    summary = process_field(small_field.config(finished))
    assert summary.pairs_per_second == 0
    assert summary.notes == ("nothing left to do: 93 pairs in 9 shards were already there",)
    assert shards == {path: path.stat().st_mtime_ns for path in Path(finished, "shards").iterdir()}
    assert summary.totals["flags"] == flags.count(read_shards(finished)["flags"].to_numpy())


@pytest.mark.parametrize("lost", ["shards", "ledger"])
def test_a_run_resumes_where_it_stopped(
    finished: str, small_field: SmallField, tmp_path: Path, lost: str
) -> None:
    output = str(tmp_path / "out")
    process_field(small_field.config(output))
    before = {path.name: path.read_bytes() for path in Path(output, "shards").iterdir()}
    for path in sorted(Path(output, lost).iterdir())[:4]:
        path.unlink()
    summary = process_field(small_field.config(output))
    assert summary.totals["pairs"]["written"] == summary.totals["pairs"]["expected"]
    assert before == {path.name: path.read_bytes() for path in Path(output, "shards").iterdir()}


def test_an_interrupted_run_says_what_is_pending_and_resumes(
    finished: str, small_field: SmallField, tmp_path: Path
) -> None:
    output = str(tmp_path / "out")
    with pytest.raises(
        InterruptedRunError, match=r"with \d+ of 93 pairs still to do; run the same command again"
    ):
        process_field(small_field.config(output), progress=StoppedMeter("pairs"))
    run = Ledger(Output(output)).read_run()
    assert run["state"] == "interrupted"
    totals = run["totals"]
    for counts, expected in ((totals["pairs"], 93), (totals["tiles"], 9)):
        assert counts["expected"] == expected
        assert counts["pending"] == expected - counts["written"] - counts["quarantined"] > 0
    assert run["totals"]["tiles"]["written"] == 3
    assert process_field(small_field.config(output)).exit_code == 0
    assert Ledger(Output(output)).read_run()["totals"]["pairs"]["pending"] == 0
    assert same_rows(read_shards(output), read_shards(finished))


def test_a_run_interrupted_while_ray_starts_is_known_to_be(
    small_field: SmallField, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    @contextmanager
    def stopped(_where: str) -> Iterator[None]:
        signal.raise_signal(signal.SIGTERM)
        yield

    monkeypatch.setattr(run_module, "open_place", stopped)
    output = str(tmp_path / "out")
    with pytest.raises(
        InterruptedRunError, match="out: interrupted before its first tile; run the"
    ):
        process_field(small_field.config(output))
    assert Ledger(Output(output)).read_run()["state"] == "interrupted"


def test_another_release_does_not_mix_its_rows_in(
    finished: str, small_field: SmallField, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("deblend_batch.engine.inputs.fingerprint.__version__", "99.0.0")
    with pytest.raises(
        OutputConflictError,
        match=rf"begun by deblend-batch {__version__}, and this is 99.0.0, whose",
    ):
        process_field(small_field.config(finished))


def test_a_run_without_pairs_says_why(small_field: SmallField, tmp_path: Path) -> None:
    output = str(tmp_path / "out")
    config = small_field.config(output, pairs={"max_separation": 0.001})
    for _ in range(2):
        summary = process_field(config)
        assert (summary.exit_code, summary.totals["pairs"]["expected"]) == (0, 0)
        nearest = cKDTree(small_field.yx).query(small_field.yx, k=2)[0][:, 1].min() / 10
        (note,) = summary.notes
        assert note.startswith("no pairs within pairs.max_separation = 0.001 arcsec: the nearest")
        assert note.endswith(f" two of 160 detections are {nearest:.4g} arcsec apart")


def test_a_plan_refuses_what_a_run_would(
    finished: str, small_field: SmallField, tmp_path: Path
) -> None:
    other = make_config(small_field.config(finished, pairs={"max_separation": 1.0}))
    with pytest.raises(
        OutputConflictError, match=r"belongs to another run \(pairs differs\); give"
    ):
        plan_run(other)
    remote = make_config(small_field.config("memory://out"))
    with pytest.raises(ConfigError, match="memory://"):
        plan_run(remote)
    assert plan_run(make_config(small_field.config(finished))).tiles_done == 9


def test_what_a_finished_tile_lacks_makes_another_run(
    small_field: SmallField, tmp_path: Path
) -> None:
    model = write_tiny_model(str(tmp_path / "m.safetensors"), masks=True)
    output = str(tmp_path / "out")
    process_field(small_field.config(output, model=model))
    with pytest.raises(OutputConflictError, match=r"another run \(masks differs"):
        process_field(small_field.config(output, model=model, masks=True))


def test_a_mistake_leaves_a_complete_run_complete(small_field: SmallField, tmp_path: Path) -> None:
    output = str(tmp_path / "out")
    process_field(small_field.config(output))
    with pytest.raises(NotFoundError, match=r"gone\.parquet: no such detection"):
        process_field(small_field.config(output, detections=str(tmp_path / "gone.parquet")))
    run = Ledger(Output(output)).read_run()
    assert (run["state"], run["totals"]["pairs"]["written"]) == ("complete", 93)


def test_run_json_holds_the_config_of_the_last_start(
    small_field: SmallField, tmp_path: Path
) -> None:
    output = str(tmp_path / "out")
    with pytest.raises(ConfigError, match="99 actors do not fit"):
        process_field(small_field.config(output, engine={"actors": 99}))
    process_field(small_field.config(output, engine={"actors": 1}))
    assert Ledger(Output(output)).read_run()["config"]["engine"]["actors"] == 1
    assert retry_run(Output(output)).exit_code == 0


def test_a_field_without_pixels_is_not_passed_over_in_silence(
    small_field: SmallField, tmp_path: Path
) -> None:
    shutil.copytree(small_field.url, tmp_path / "empty.zarr")
    shutil.rmtree(tmp_path / "empty.zarr" / "image" / "c")
    config = small_field.config(str(tmp_path / "out"), field=str(tmp_path / "empty.zarr"))
    summary = process_field(config)
    assert summary.exit_code == 3
    assert summary.totals["pairs"] == {
        "expected": 93,
        "written": 0,
        "quarantined": 93,
        "pending": 0,
    }
    ledger = Ledger(Output(str(tmp_path / "out")))
    reasons = {ledger.read_quarantine(tile).reason for tile in ledger.output.quarantined()}
    assert reasons == {"no usable pixel that its light reaches, in any band"}


def test_pairs_in_a_region_without_data_are_quarantined(
    finished: str, small_field: SmallField, tmp_path: Path
) -> None:
    shutil.copytree(small_field.url, tmp_path / "field.zarr")
    image = member(zarr.open_group(str(tmp_path / "field.zarr")), "image")
    image[0, 210:330, 250:390] = np.nan
    output = str(tmp_path / "out")
    summary = process_field(small_field.config(output, field=str(tmp_path / "field.zarr")))
    ledger = Ledger(Output(output))
    records = [ledger.read_quarantine(tile) for tile in ledger.output.quarantined()]
    lost = [blend for record in records for blend, _, _ in record.pairs]
    assert 0 < len(lost) == summary.totals["pairs"]["quarantined"]
    every, kept = read_shards(finished), read_shards(output)
    gone = np.isin(every["blend_id"].to_numpy(), lost)
    assert (every["y"].to_numpy()[gone][::2] > 210).all()
    assert (
        np.sort(kept["blend_id"].to_numpy()).tolist()
        == np.sort(every["blend_id"].to_numpy()[~gone]).tolist()
    )
    assert verify_run(Output(output)).exit_code == 3


@pytest.mark.parametrize("lost", ["run.json", "index"])
def test_what_was_lost_beside_the_shards_is_made_anew(
    finished: str, small_field: SmallField, tmp_path: Path, lost: str
) -> None:
    ledger = Ledger(Output(str(shutil.copytree(finished, tmp_path / "out"))))
    storage.remove_tree(storage.join(ledger.output.url, lost))
    first, second, *_ = ledger.output.receipts()
    storage.write_bytes(ledger.output.receipt_url(first), b"")
    storage.write_bytes(ledger.output.quarantine_url(second), b"")
    log = io.StringIO()
    meter = ProgressMeter("pairs", log)
    summary = process_field(small_field.config(ledger.output.url), progress=meter)
    assert summary.exit_code == 0
    assert same_rows(read_shards(finished), read_shards(ledger.output.url))
    assert (ledger.output.quarantined(), verify_run(ledger.output).problems) == ([], ())
    # Tiles and pairs are those of the whole run, not of what was left of it.
    assert log.getvalue().splitlines()[-1].startswith("tiles 9/9  pairs 93/93")


def test_another_run_s_output_is_refused(finished: str, small_field: SmallField) -> None:
    with pytest.raises(
        OutputConflictError, match=r"belongs to another run \(pairs differs\); give"
    ):
        process_field(small_field.config(finished, pairs={"max_separation": 1.0}))


def test_other_weights_are_another_run(
    finished: str, small_field: SmallField, tmp_path: Path
) -> None:
    other = write_tiny_model(str(tmp_path / "other.safetensors"), seed=1)
    with pytest.raises(OutputConflictError, match=r"another run \(model differs\)"):
        process_field(small_field.config(finished, model=other))


def test_a_folder_of_something_else_is_refused(small_field: SmallField, tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("x")
    with pytest.raises(OutputConflictError, match=r"not empty \(thesis.tex is there\)"):
        process_field(small_field.config(str(tmp_path)))


def test_pairs_from_a_table(small_field: SmallField, tmp_path: Path) -> None:
    ids = small_field.ids
    table = pa.table(
        {
            "central_id": [ids[0], ids[1], ids[2], 999_999],
            "companion_id": [ids[60], ids[61], ids[110], ids[3]],
        }
    )
    pq.write_table(table, str(tmp_path / "pairs.parquet"))
    output = str(tmp_path / "out")
    summary = process_field(
        small_field.config(output, pairs={"table": str(tmp_path / "pairs.parquet")})
    )
    rows = read_shards(output)
    centrals = rows["source_id"].to_numpy()[::2]
    assert set(centrals) == {ids[0], ids[1], ids[2]}
    assert summary.exit_code == 3
    assert summary.totals["pairs"] == {"expected": 4, "written": 3, "quarantined": 1, "pending": 0}
    record = Ledger(Output(output)).read_quarantine("unplaced")
    assert [list(pair)[1:] for pair in record.pairs] == [[999_999, int(ids[3])]]
    assert "not in the detection table" in record.reason
    # Where nothing else is in quarantine, a retry says why it cannot help, and loses nothing.
    again = retry_run(Output(output))
    assert again.exit_code == 3
    assert again.totals["pairs"] == summary.totals["pairs"]
    assert again.notes[-1] == summary.notes[-1]
    assert again.notes[-1].startswith("1 of the pairs in quarantine cannot be retried: no field")
    assert Ledger(Output(output)).output.quarantined() == ["unplaced"]
    # The third pair's members are far apart: the companion is outside the stamp, said and not guessed.
    far = rows.filter(pa.compute.equal(rows["neighbour_id"], int(ids[2])))
    assert np.isnan(far["flux_h"].to_numpy()[0])
    assert far["flags"].to_pylist()[0] & flags.COMPANION_OUTSIDE.value


def test_positions_that_cannot_be_used_are_listed(small_field: SmallField, tmp_path: Path) -> None:
    table = pq.read_table(small_field.detections)
    strange = pa.table(
        {
            "id": pa.array([1, 2, 3], pa.int64()),
            "x": [np.nan, 1e7, -30.0],
            "y": [5.0, 5.0, -30.0],
            "mag": pa.array([20.0] * 3, pa.float32()),
        }
    )
    detections = str(tmp_path / "more.parquet")
    pq.write_table(pa.concat_tables([table, strange]), detections)
    output = str(tmp_path / "out")
    summary = process_field(small_field.config(output, detections=detections))
    found = summary.totals["detections"]
    assert (found["read"], found["not_finite"], found["outside"]) == (163, 1, 2)
    unused = pq.read_table(summary.unused[0]).to_pylist()
    assert unused == [
        {"id": 1, "reason": "position is not finite"},
        {"id": 2, "reason": "outside the image"},
        {"id": 3, "reason": "outside the image"},
    ]


def test_flux_is_in_nanojansky(finished: str, small_field: SmallField, tmp_path: Path) -> None:
    """A field whose zero point is 2.5 mag brighter has fluxes 10 times larger, same pixels."""
    import shutil

    import zarr

    copy = str(tmp_path / "bright.zarr")
    shutil.copytree(small_field.url, copy)
    zarr.open_group(copy, mode="a").attrs["zero_point"] = [25.96 - 2.5]
    output = str(tmp_path / "out")
    process_field(small_field.config(output, field=copy))
    ratio = read_shards(output)["flux_h"].to_numpy() / read_shards(finished)["flux_h"].to_numpy()
    np.testing.assert_allclose(ratio[np.isfinite(ratio)], 10, rtol=1e-5)
    assert nanojansky_per_unit(np.array(31.4)) == pytest.approx(1.0)


def test_an_empty_detection_table_is_no_complete_run(
    small_field: SmallField, tmp_path: Path
) -> None:
    nothing = pq.read_table(small_field.detections).slice(0, 0)
    pq.write_table(nothing, str(tmp_path / "none.parquet"))
    output = str(tmp_path / "out")
    with pytest.raises(DetectionsError, match=r"none\.parquet: holds no rows; give the catalogue"):
        process_field(small_field.config(output, detections=str(tmp_path / "none.parquet")))


def test_pairs_on_a_corrupt_chunk_are_quarantined_and_retried(
    finished: str, small_field: SmallField, tmp_path: Path
) -> None:
    copy = tmp_path / "field.zarr"
    shutil.copytree(small_field.url, copy)
    shard = next(path for path in (copy / "image" / "c").rglob("*") if path.is_file())
    whole = shard.read_bytes()
    broken = bytearray(whole)
    broken[100:4000] = os.urandom(3900)
    shard.write_bytes(bytes(broken))
    output = str(tmp_path / "out")
    summary = process_field(small_field.config(output, field=str(copy)))
    assert summary.exit_code == 3
    pairs = summary.totals["pairs"]
    held = Ledger(Output(output)).output.quarantined()
    records = [Ledger(Output(output)).read_quarantine(tile) for tile in held]
    lost = [blend for record in records for blend, _, _ in record.pairs]
    assert all("cannot decode a chunk" in record.reason for record in records)
    assert 0 < len(lost) == pairs["quarantined"] < pairs["expected"]
    assert pairs["written"] == pairs["expected"] - len(lost)
    every, kept = read_shards(finished), read_shards(output)
    sound = ~np.isin(every["blend_id"].to_numpy(), lost)
    assert same_rows(kept, every.filter(pa.array(sound)))
    assert verify_run(Output(output)).exit_code == 3
    status = read_status(Output(output))
    assert (status.pairs_written, status.pairs_quarantined) == (pairs["written"], len(lost))
    again = process_field(small_field.config(output, field=str(copy)))
    assert again.totals["pairs"] == pairs
    shard.write_bytes(whole)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("deblend_batch.engine.inputs.fingerprint.__version__", "99.0.0")
        with pytest.raises(OutputConflictError, match=r"99.0.0, whose rows may differ"):
            retry_run(Output(output))
    assert Ledger(Output(output)).output.quarantined() == held
    assert retry_run(Output(output)).exit_code == 0
    assert same_rows(read_shards(output), read_shards(finished))


@pytest.mark.parametrize(
    ("damage", "problem"),
    [
        (lambda folder: next((folder / "shards").iterdir()).unlink(), "no shard"),
        (lambda folder: next((folder / "ledger").iterdir()).unlink(), "no receipt"),
        (
            lambda folder: (path := next((folder / "shards").iterdir())).write_bytes(
                path.read_bytes()[:-9]
            ),
            "altered or truncated",
        ),
        (
            lambda folder: (folder / "shards" / "y9999x9999.parquet").write_bytes(b"?"),
            "orphan",
        ),
    ],
    ids=["shard gone", "receipt gone", "shard truncated", "stranger"],
)
def test_verify_finds_damage(finished: str, tmp_path: Path, damage: Any, problem: str) -> None:
    import shutil

    copy = tmp_path / "out"
    shutil.copytree(finished, copy)
    damage(copy)
    found = verify_run(Output(str(copy)))
    assert found.exit_code == 2
    assert any(problem in line for line in found.problems)


def test_two_fields_share_a_table_and_own_each_pair_once(
    small_field: SmallField, finished: str, tmp_path: Path
) -> None:
    """Two overlapping cut-outs of one sky, one table: the union has each pair exactly once."""
    import zarr

    image = np.asarray(member(zarr.open_group(small_field.url, mode="r"), "image")[0])
    wcs = dict(make_meta().wcs_cards)
    reference = float(wcs["CRPIX1"])
    left, right = str(tmp_path / "left.zarr"), str(tmp_path / "right.zarr")
    for url, x0, x1 in ((left, 0, 350), (right, 250, 600)):
        meta = make_meta(wcs_cards=wcs | {"CRPIX1": reference - x0})
        group = create_field(url, meta, (500, x1 - x0), with_variance=False)
        member(group, "image")[0] = image[:, x0:x1]
        finish_field(group, meta)
    sky = str(tmp_path / "sky.parquet")
    from deblend_batch.field.layout import Field

    radec = Field.open(small_field.url).pixel_to_world(small_field.yx)
    pq.write_table(
        pa.table(
            {"id": small_field.ids, "ra": radec[:, 0], "dec": radec[:, 1], "mag": small_field.mag}
        ),
        sky,
    )
    output = str(tmp_path / "out")
    config = small_field.config(output, field=None, survey=[left, right], detections=sky)
    summary = process_field({key: value for key, value in config.items() if value is not None})
    assert summary.exit_code == 0
    blends = read_shards(output)["blend_id"].to_numpy()
    np.testing.assert_array_equal(blends, read_shards(finished)["blend_id"].to_numpy())
    assert verify_run(Output(output)).problems == ()


def test_memory_urls_and_http_outputs_are_refused(small_field: SmallField) -> None:
    with pytest.raises(ConfigError, match="memory:// lives in one process"):
        process_field(small_field.config("memory://out"))
    with pytest.raises(StorageError, match=r"http\(s\):// is read-only"):
        process_field(small_field.config("http://127.0.0.1:9/out"))


def test_duplicate_ids_stop_the_run(small_field: SmallField, tmp_path: Path) -> None:
    table = pq.read_table(small_field.detections)
    pq.write_table(pa.concat_tables([table, table.slice(0, 2)]), str(tmp_path / "twice.parquet"))
    with pytest.raises(DetectionsError, match=r"twice.parquet: 2 values of column 'id' occur more"):
        process_field(
            small_field.config(str(tmp_path / "out"), detections=str(tmp_path / "twice.parquet"))
        )


def _survey_of_two(small_field: SmallField, folder: Path) -> list[str]:
    """Two fields far apart on the sky, with the small field's pixels."""
    import zarr

    image = np.asarray(member(zarr.open_group(small_field.url, mode="r"), "image")[0])
    urls = [str(folder / "a.zarr"), str(folder / "b.zarr")]
    for number, url in enumerate(urls):
        meta = make_meta(wcs_cards={**make_meta().wcs_cards, "CRVAL1": 150.0 + 10 * number})
        group = create_field(url, meta, (500, 600), with_variance=False)
        member(group, "image")[0] = image
        finish_field(group, meta)
    return urls


def test_tables_of_a_survey_may_name_sources_alike(
    small_field: SmallField, finished: str, tmp_path: Path
) -> None:
    import shutil

    first, second = _survey_of_two(small_field, tmp_path)
    other = str(tmp_path / "other.parquet")
    shutil.copy(small_field.detections, other)
    config = small_field.config(str(tmp_path / "out"))
    del config["field"]
    config["survey"] = [first, {"field": second, "detections": other}]
    summary = process_field(config)
    assert summary.exit_code == 0
    assert summary.totals["pairs"]["written"] == 2 * 93
    rows = read_shards(str(tmp_path / "out"))
    assert len(np.unique(rows["blend_id"].to_numpy())) == 2 * 93
    for field in ("a", "b"):
        own = rows.filter(pc.equal(rows["field"], field))
        assert sorted(own["source_id"].to_pylist()) == sorted(
            read_shards(finished)["source_id"].to_pylist()
        )
    assert verify_run(Output(str(tmp_path / "out"))).problems == ()


def test_pairs_that_no_field_of_a_survey_holds_are_quarantined(
    small_field: SmallField, tmp_path: Path
) -> None:
    """One table for both fields; one pair in each, one pair of an unknown source, one source nowhere."""
    first, second = _survey_of_two(small_field, tmp_path)
    sky = pa.table(
        {
            "id": [1, 2, 3, 4, 5],
            "ra": [150.0, 150.0, 160.0, 160.0, np.nan],
            "dec": [2.0, 2.0003, 2.0, 2.0003, 2.0],
        }
    )
    pq.write_table(sky, str(tmp_path / "sky.parquet"))
    pairs = pa.table({"central_id": [1, 4, 3], "companion_id": [2, 3, 99]})
    pq.write_table(pairs, str(tmp_path / "pairs.parquet"))
    config = small_field.config(str(tmp_path / "out"), detections=str(tmp_path / "sky.parquet"))
    del config["field"]
    config |= {"survey": [first, second], "pairs": {"table": str(tmp_path / "pairs.parquet")}}
    summary = process_field(config)
    assert summary.totals["pairs"] == {"expected": 3, "written": 2, "quarantined": 1, "pending": 0}
    assert summary.exit_code == 3
    assert summary.totals["detections"] == {"read": 5, "not_finite": 1, "used": 4}
    assert pq.read_table(summary.unused[0])["id"].to_pylist() == [5]
    (record,) = Ledger(Output(str(tmp_path / "out"))).output.quarantined()
    assert Ledger(Output(str(tmp_path / "out"))).read_quarantine(record).pairs[0][2] == 99
    assert verify_run(Output(str(tmp_path / "out"))).exit_code == 3


def test_masks_stand_beside_their_shards(small_field: SmallField, tmp_path: Path) -> None:
    model = write_tiny_model(str(tmp_path / "m.safetensors"), seed=3, masks=True)
    outputs = []
    for name, size in (("one", 200), ("two", 350)):
        outputs.append(str(tmp_path / name))
        config = {"model": model, "masks": True, "tiles": {"size": size}}
        assert process_field(small_field.config(outputs[-1], **config)).exit_code == 0
    first, second = (masks_of(output) for output in outputs)
    rows = read_shards(outputs[0])
    assert sorted(first) == sorted(second) == rows["blend_id"].to_pylist()[::2]
    assert all((first[blend] == second[blend]).all() for blend in first)
    for blend, role, area, overlap in zip(
        *(rows[name].to_pylist() for name in ("blend_id", "role", "mask_area", "mask_overlap")),
        strict=True,
    ):
        pixels = (first[blend] > 127).sum(axis=(1, 2))
        assert (overlap, area) == (pixels[0], pixels[1 if role == "central" else 2])
    assert verify_run(Output(outputs[0])).exit_code == 0


def masks_of(output: str) -> dict[int, np.ndarray]:
    """Every pair's masks, by blend id."""
    root = zarr.open_group(f"{output}/masks.zarr", mode="r")
    found: dict[int, np.ndarray] = {}
    for _, tile in root.groups():
        found.update(
            zip(member(tile, "blend_id")[...].tolist(), member(tile, "masks")[...], strict=True)  # type: ignore[union-attr, arg-type]
        )
    return found


def test_masks_that_are_lost_or_altered_are_made_again(
    small_field: SmallField, tmp_path: Path
) -> None:
    model = write_tiny_model(str(tmp_path / "m.safetensors"), masks=True)
    output = str(tmp_path / "out")
    process_field(small_field.config(output, model=model, masks=True))
    gone, altered, *_ = sorted(Ledger(Output(output)).output.receipts())
    groups = {
        tile: f"{output}/masks.zarr/{tile}-{Ledger(Output(output)).read_receipt(tile).masks_sha256[:16]}"  # type: ignore[index]
        for tile in (gone, altered)
    }
    storage.remove_tree(groups[gone])
    storage.remove(f"{groups[altered]}/masks/c/0/0/0/0")  # zarr reads zeros then
    for problem, tile, what in zip(
        verify_run(Output(output)).problems,
        (gone, altered),
        ("missing or damaged", "altered"),
        strict=True,
    ):
        assert re.search(rf"{tile}-.*: masks {what}; remove .* receipt, and run again", problem)
    for tile in (gone, altered):
        storage.remove(f"{output}/ledger/{tile}.json")
    process_field(small_field.config(output, model=model, masks=True))
    assert verify_run(Output(output)).problems == ()
