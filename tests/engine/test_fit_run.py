"""A run of the fit: one row a source, right in both bands, whatever the tiles, and flags that say why not."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zarr

from deblend_batch import flags
from deblend_batch.catalog.ledger import Ledger
from deblend_batch.catalog.output import Output
from deblend_batch.catalog.schema import shard_schema
from deblend_batch.catalog.shard import make_rows
from deblend_batch.cli.main import main
from deblend_batch.config import make_config
from deblend_batch.engine.account.summary import RunSummary
from deblend_batch.engine.audit.verify import verify_run
from deblend_batch.engine.batching.batcher import Batcher
from deblend_batch.engine.inputs.index.indexing import index_field
from deblend_batch.engine.inputs.prepare import prepare
from deblend_batch.engine.inputs.work import load_blends
from deblend_batch.engine.methods.choice import method_of
from deblend_batch.engine.plan import plan_run
from deblend_batch.engine.run import process_field
from deblend_batch.engine.worker.measurer import Measurer
from deblend_batch.errors import ConfigError, OutputConflictError
from deblend_batch.models import load_model
from deblend_batch.report.page import write_report
from tests.engine.fitted_field import COUNTS, SOURCES, config_of, write_fitted_field

NJY = 10 ** (0.4 * (31.4 - 27.0))


class Run(NamedTuple):
    """A finished run."""

    output: str
    summary: RunSummary
    rows: pd.DataFrame


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, str]:
    return write_fitted_field(tmp_path_factory.mktemp("fitted"))


@pytest.fixture(scope="module")
def run(inputs: tuple[str, str], tmp_path_factory: pytest.TempPathFactory) -> Run:
    output = str(tmp_path_factory.mktemp("run") / "out")
    summary = process_field(config_of(*inputs, output))
    rows = pa.concat_tables(
        [pq.read_table(path) for path in sorted(Path(output, "shards").iterdir())]
    )
    return Run(output, summary, rows.to_pandas().set_index("source_id").sort_index())


def measured(config: dict[str, Any], at_once: int) -> pa.Table:
    """The rows of a run, made in this process: batches of another size, tiles of another."""
    prepared = prepare(make_config(config))
    (index,) = [index_field(task) for task in prepared.index_tasks()]
    (tiles,) = prepared.tiles([index])
    method = method_of(load_model("profile-fit"))
    measurer = Measurer(prepared.context, Batcher(method, at_once, 4), method)
    tables = []
    for spec in tiles.specs():
        blends = load_blends(spec, prepared.context)
        found = measurer.measure(spec, blends).measurement
        field = prepared.fields[0]
        scale = field.pixel_scale_arcsec
        tables.append(make_rows("", blends, found, field.meta, "profile-fit", scale))
    return pa.concat_tables(tables).sort_by("source_id")


def has(row: Any, flag: flags.Flag, band: str = "") -> bool:
    """Whether a row has a flag, or a band of it."""
    return bool(row[f"flags_{band}" if band else "flags"] & flag.value)


def test_every_source_in_the_image_has_one_row(run: Run) -> None:
    assert run.summary.state == "complete_with_quarantine"
    (record,) = Ledger(Output(run.output)).read_quarantines(Output(run.output).quarantined())
    assert [members for _, *members in record.pairs] == [[9]]
    assert "no usable pixel" in record.reason
    assert run.rows.index.tolist() == [1, 2, 3, 4, 5, 6, 7, 8, 10]
    assert run.rows.is_primary.all()
    assert run.rows.n_members.tolist() == [1, 3, 3, 3, 2, 2, 1, 2, 1]
    assert run.rows.method.unique().tolist() == ["profile-fit"]
    assert run.summary.totals["rows"] == 9
    counts = run.summary.totals["pairs"]
    assert (counts["expected"], counts["written"], counts["quarantined"]) == (7, 6, 1)


def test_what_became_of_the_sources_before_the_run_is_told(run: Run) -> None:
    assert run.summary.totals["refined"] == COUNTS
    assert json.loads(Path(run.output, "run.json").read_text())["totals"]["refined"] == COUNTS
    said = dict(run.summary.to_rows())["refined"]
    assert said == "12 detected, 1 added, 2 dropped (no flux of its own 2), 11 kept"


def test_columns_are_those_of_the_contract(run: Run) -> None:
    shard = next(Path(run.output, "shards").iterdir())
    schema = pq.read_schema(shard)
    assert schema.equals(shard_schema(["g", "r"], fitted=True), check_metadata=True)
    for name in ("n_members", "x_err", "y_err", "radius_err", "sersic_n", "axis_ratio_err"):
        assert name in schema.names
    for name in ("flux_corr", "blendedness", "chi2", "sky", "sky_err", "flags"):
        assert f"{name}_r" in schema.names


def test_fluxes_are_right_in_both_bands(run: Run) -> None:
    for source in SOURCES:
        if source.id in {8, 9}:
            continue
        row = run.rows.loc[source.id]
        for band, flux in zip("gr", source.flux, strict=True):
            if (source.id, band) == (10, "r"):
                continue
            off = row[f"flux_{band}"] - NJY * flux
            assert abs(off) < max(4 * row[f"flux_err_{band}"], 0.03 * NJY * flux), (source, band)


def test_positions_are_better_than_those_given(run: Run) -> None:
    for source in SOURCES:
        if source.id in {8, 9}:
            continue
        row = run.rows.loc[source.id]
        for axis, true in zip("yx", source.yx, strict=True):
            assert abs(row[axis] - true) < max(5 * row[f"{axis}_err"], 0.05), source
        assert row.ra == pytest.approx(run.rows.ra.mean(), abs=0.02)


def test_the_star_is_a_star_and_its_neighbour_is_not(run: Run) -> None:
    star, beside = run.rows.loc[5], run.rows.loc[6]
    assert star.is_star
    assert star.radius == 0
    assert np.isnan(star.sersic_n)
    assert not beside.is_star
    # The radius is that of a circle of the same area.
    assert beside.radius == pytest.approx(0.3, rel=0.2)
    assert (star.neighbour_id, beside.neighbour_id) == (6, 5)
    assert (star.role, beside.role) == ("central", "companion")


def test_what_is_wrong_is_said_of_the_band_that_is_to_blame(run: Run) -> None:
    star, lonely, half = (run.rows.loc[number] for number in (5, 7, 10))
    assert has(star, flags.SATURATED, "g")
    assert has(star, flags.SATURATED, "r")
    assert not has(run.rows.loc[6], flags.SATURATED)
    near = (run.rows["flags"] & flags.NEAR_BRIGHT_STAR.value) != 0
    assert run.rows.index[near].tolist() == [6]
    assert has(half, flags.NO_DATA, "r")
    assert not has(half, flags.NO_DATA, "g")
    assert np.isnan(half.flux_r)
    assert np.isfinite(half.flux_g)
    assert has(run.rows.loc[8], flags.EDGE)
    assert has(star, flags.PSF_UNCERTAIN)  # its cell has no kernel of its own
    assert not has(lonely, flags.PSF_UNCERTAIN)
    wrong = flags.UNRECOGNISED.value | flags.NOT_CONVERGED.value | flags.POOR_FIT.value
    assert not run.rows.loc[[1, 2, 3, 4, 7], "flags"].to_numpy().__and__(wrong).any()


def test_a_band_whose_noise_is_correlated_has_larger_errors(run: Run) -> None:
    """By 1.5 times, beside 1.5 times the noise of a pixel; shapes, which both bands share, hide a part."""
    row = run.rows.loc[1]
    assert 1.6 < row.flux_err_r / row.flux_err_g < 3.0
    assert row.chi2_r == pytest.approx(1.0, abs=0.1)
    assert row.chi2_g == pytest.approx(1.0, abs=0.1)


def test_its_output_is_sound_and_can_be_shown(run: Run) -> None:
    found = verify_run(Output(run.output))
    assert found.problems == ()
    assert found.recomputed == 6
    assert (found.rows, found.quarantined) == (9, 1)
    write_report(Output(run.output))


@pytest.mark.parametrize(("size", "at_once"), [(64, 1), (300, 64)])
def test_tiles_and_batches_change_no_bit(
    inputs: tuple[str, str], run: Run, tmp_path: Path, size: int, at_once: int
) -> None:
    again = measured(config_of(*inputs, str(tmp_path), tiles={"size": size}), at_once)
    kept = again.filter(pa.array(np.isin(again["source_id"].to_numpy(), run.rows.index)))
    for name in kept.schema.names:
        if name in {"tile", "source_id"}:
            continue
        one, other = kept[name].to_numpy(), run.rows[name].to_numpy()
        assert one.tolist() == other.tolist() or one.tobytes() == other.tobytes(), name


def _without_psf(field: Path) -> None:
    zarr.open_array(str(field / "psf" / "kernels"), mode="r+")[0, 0, 0] = 0


def _without_variance(field: Path) -> None:
    array = zarr.open_array(str(field / "variance"), mode="r+")
    array[1] = np.nan
    array[0, 90:120] = -1


def test_a_psf_that_is_none_stops_a_run_before_its_start(
    inputs: tuple[str, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    field = tmp_path / "field.zarr"
    shutil.copytree(inputs[0], field)
    _without_psf(field)
    config = tmp_path / "c.json"  # which is YAML, too
    config.write_text(json.dumps(config_of(str(field), inputs[1], str(tmp_path / "out"))))
    for verb in ("plan", "run"):
        assert main([verb, str(config)]) == 2
        (line,) = capsys.readouterr().err.strip().splitlines()
        assert re.match(
            r"error: .*field\.zarr: the kernel of band 'g', .* sums to 0; it must sum to 1", line
        ), line
    assert not (tmp_path / "out").exists()


def test_weights_that_are_none_are_no_data(inputs: tuple[str, str], tmp_path: Path) -> None:
    """A band whose variance is NaN has no fluxes, and says so; rows of it elsewhere stay as they are."""
    field = tmp_path / "field.zarr"
    shutil.copytree(inputs[0], field)
    _without_variance(field)
    config = config_of(str(field), inputs[1], str(tmp_path / "out"))
    rows = measured(config, 64).to_pandas().set_index("source_id")
    assert rows.flux_r.isna().all()
    assert (rows.flags_r & flags.NO_DATA.value).all()
    assert abs(rows.flux_g[1] / NJY / 60.0 - 1) < 0.1
    # All three members of the group lie in the strip where the first band has none, either.
    assert rows.flux_g[[2, 3, 4]].isna().all() or (rows.flux_err_g[[2, 3, 4]] > 0).all()


def test_a_member_outside_its_stamp_is_flagged(inputs: tuple[str, str], tmp_path: Path) -> None:
    """A pair of a table that no stamp holds: sources 1 and 9 are 220 px apart."""
    pairs = tmp_path / "pairs.csv"
    pairs.write_text("central_id,companion_id\n1,9\n")
    config = config_of(*inputs, str(tmp_path / "out"), pairs={"table": str(pairs)})
    rows = measured(config, 64).to_pandas().set_index("source_id")
    assert (rows["flags"] & flags.COMPANION_OUTSIDE.value).all()
    assert (rows["flags"] & flags.LARGER_THAN_STAMP.value).all()


def test_another_psf_is_another_run(inputs: tuple[str, str], run: Run, tmp_path: Path) -> None:
    """Kernels are no part of a field's metadata, which is all that is hashed of it otherwise."""
    field, output = tmp_path / "field.zarr", tmp_path / "out"
    shutil.copytree(inputs[0], field)
    shutil.copytree(run.output, output)
    first = prepare(make_config(config_of(str(field), inputs[1], str(output))))
    kernel = zarr.open_array(str(field / "psf" / "kernels"), mode="r+")
    kernel[0, 0, 0] = np.roll(np.asarray(kernel[0, 0, 0]), 1)
    again = prepare(make_config(config_of(str(field), inputs[1], str(output))))
    assert first.fingerprint_parts["psf"] != again.fingerprint_parts["psf"]
    with pytest.raises(OutputConflictError, match="belongs to another run"):
        process_field(config_of(str(field), inputs[1], str(output)))


def test_a_plan_says_what_a_run_will_do(inputs: tuple[str, str], tmp_path: Path) -> None:
    found = plan_run(make_config(config_of(*inputs, str(tmp_path / "out"))))
    assert (found.pairs, found.tiles, found.where) == (7, 6, "local")
    assert found.stamps_per_second > 1
    assert found.duration.seconds > 0


def test_masks_are_those_of_networks(inputs: tuple[str, str], tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="masks: profile-fit predicts no masks"):
        prepare(make_config(config_of(*inputs, str(tmp_path / "out"), masks=True)))


def test_sources_that_are_alone_can_be_left_out(inputs: tuple[str, str], tmp_path: Path) -> None:
    rows = measured(config_of(*inputs, str(tmp_path), sources="blended"), 64)
    assert rows["source_id"].to_pylist() == [2, 3, 4, 5, 6, 8]


def test_a_table_of_pairs_is_measured_as_it_is(inputs: tuple[str, str], tmp_path: Path) -> None:
    """The table says who is central, and a source in two pairs has one row to use: that of the closer."""
    pairs = tmp_path / "pairs.csv"
    pairs.write_text("central_id,companion_id\n4,2\n4,3\n")
    rows = measured(config_of(*inputs, str(tmp_path / "out"), pairs={"table": str(pairs)}), 64)
    found = {
        (source, neighbour): (role, primary)
        for source, neighbour, role, primary in zip(
            *(
                rows[name].to_pylist()
                for name in ("source_id", "neighbour_id", "role", "is_primary")
            ),
            strict=True,
        )
    }
    assert found == {
        (4, 2): ("central", False),
        (2, 4): ("companion", True),
        (4, 3): ("central", True),
        (3, 4): ("companion", True),
    }
