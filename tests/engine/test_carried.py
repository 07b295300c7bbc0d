"""Columns that the detections bring, and the PSF's widths: from the table to the catalogue and to the fit."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from deblend_batch.catalog.output import Output
from deblend_batch.catalog.schema import bands_of
from deblend_batch.config import make_config
from deblend_batch.detections.table import read_detections
from deblend_batch.engine.audit.verify import verify_run
from deblend_batch.engine.inputs.fingerprint import option_parts
from deblend_batch.engine.inputs.prepare import prepare
from deblend_batch.engine.methods.psf_mixtures import PsfMixtures
from deblend_batch.engine.run import process_field
from deblend_batch.errors import ConfigError, DetectionsError
from deblend_batch.field.layout import Field
from deblend_batch.tiling.blends import Blends
from tests.blends import blends_of_two
from tests.engine.fitted_field import config_of, write_fitted_field
from tests.support import SmallField

COLUMNS = ["z_phot", "flux_auto", "flux_err_auto"]


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, str]:
    """The field, with a table that says more: of one source it does not know the redshift."""
    field, url = write_fitted_field(tmp_path_factory.mktemp("carried"))
    table = pq.read_table(url)
    ids = table["id"].to_pylist()
    redshift = pa.array([None if number == 3 else 0.1 * number for number in ids], pa.float32())
    table = table.append_column(pa.field("z_phot", redshift.type), redshift)
    for name in COLUMNS[1:]:
        unit = pa.field(name, pa.float64(), metadata={"unit": "mJy"})
        table = table.append_column(unit, pa.array([float(number) for number in ids]))
    pq.write_table(table, url)
    return field, url


def test_columns_go_through_to_the_catalogue(inputs: tuple[str, str], tmp_path: Path) -> None:
    output = str(tmp_path / "out")
    process_field(config_of(*inputs, output, carry=COLUMNS))
    shards = [pq.read_table(path) for path in sorted((tmp_path / "out" / "shards").iterdir())]
    for row in pa.concat_tables(shards).to_pylist():
        number = row["source_id"]
        expected = None if number == 3 else pytest.approx(0.1 * number, rel=1e-6)
        assert row["z_phot"] == expected
        assert row["flux_auto"] == number
    schema = shards[0].schema
    assert schema.names[-3:] == COLUMNS
    assert schema.field("flux_auto").metadata[b"unit"] == b"mJy"
    assert bands_of(schema) == ["g", "r"], "a carried flux is no band's"
    assert verify_run(Output(output), recompute=20).problems == ()


def test_pairs_carry_too(small_field: SmallField, tmp_path: Path) -> None:
    table = pq.read_table(small_field.detections)
    kind = pa.array(np.arange(len(table), dtype=np.int16))
    url, output = str(tmp_path / "with-kinds.parquet"), str(tmp_path / "out")
    pq.write_table(table.append_column("kind", kind), url)
    process_field(small_field.config(output, detections=url, carry=["kind"]))
    shards = [pq.read_table(path) for path in sorted((tmp_path / "out" / "shards").iterdir())]
    rows = pa.concat_tables(shards)
    kinds = dict(zip(table["id"].to_pylist(), kind.to_pylist(), strict=True))
    assert rows["kind"].to_pylist() == [kinds[number] for number in rows["source_id"].to_pylist()]


@pytest.mark.parametrize("names", [["z_phot", "source_id"], ["flux_g"], ["_healpix_29"]])
def test_names_of_the_catalogue_are_refused(inputs: tuple[str, str], names: list[str]) -> None:
    config = make_config(config_of(*inputs, "out", carry=names))
    with pytest.raises(
        ConfigError, match=f"carry: the catalogue has a column '{names[-1]}' of its own"
    ):
        prepare(config)


def test_a_column_that_is_not_there_is_named(inputs: tuple[str, str], tmp_path: Path) -> None:
    with pytest.raises(DetectionsError, match=r"no column 'z_spec' \(carry\); the table has id"):
        process_field(config_of(*inputs, str(tmp_path / "out"), carry=["z_spec"]))


def test_a_run_without_them_is_the_run_of_before(inputs: tuple[str, str]) -> None:
    plain = config_of(*inputs, "out")
    assert "carry" not in option_parts(make_config(plain))
    assert "carry" in option_parts(make_config({**plain, "carry": ["z_phot"]}))


def blends_with(widths: list[list[float]]) -> Blends:
    yx = np.full((len(widths), 2, 2), 50.0)
    return blends_of_two(yx, psf_fwhm_arcsec=np.array(widths, np.float32))


def test_a_width_of_the_table_goes_before_the_fields(small_field: SmallField) -> None:
    field = Field.open(small_field.url)
    (known,) = field.meta.psf_fwhm_arcsec
    found = PsfMixtures(field).at(blends_with([[np.nan], [2 * known], [known]]))
    widths = found.fwhm_px[:, 0] * field.pixel_scale_arcsec
    np.testing.assert_allclose(widths, [known, 2 * known, known], rtol=1e-6)
    spread = (found.weight * found.covariance[..., 0]).sum(axis=-1)[:, 0]
    assert spread[1] / spread[0] > 3
    assert spread[2] / spread[0] == pytest.approx(1, abs=0.01)


@pytest.mark.parametrize("given", [{"psf_fwhm": [0.5, -1.0]}, {"psf_fwhm_r": [0.5, 0.0]}])
def test_widths_are_found_by_their_names(given: dict[str, Any], tmp_path: Path) -> None:
    url = str(tmp_path / "a.parquet")
    pq.write_table(pa.table({"id": [1, 2], "x": [1.0, 2.0], "y": [1.0, 2.0], **given}), url)
    (part,) = read_detections(url, bands=["g", "r"])
    assert part.psf_fwhm_arcsec is not None
    expected = [[0.5], [np.nan]] if "psf_fwhm" in given else [[np.nan, 0.5], [np.nan, np.nan]]
    np.testing.assert_allclose(part.psf_fwhm_arcsec, expected)
