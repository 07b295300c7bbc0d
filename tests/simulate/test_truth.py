from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from deblend_batch.field.layout import Field, create_field, finish_field
from deblend_batch.simulate.fields.field import field_meta
from deblend_batch.simulate.fields.truth import Sources, detections_table, truth_table, write_table
from deblend_batch.simulate.presets import get_preset

PRESET = get_preset("euclid-vis")


@pytest.fixture
def field(tmp_path: Path) -> Field:
    url, meta = str(tmp_path / "sky.zarr"), field_meta(PRESET, (300, 400), "sky.zarr")
    finish_field(create_field(url, meta, (300, 400), with_variance=False), meta)
    return Field.open(url)


def make_sources(n: int = 400) -> Sources:
    rng = np.random.default_rng(1)
    return Sources(
        id=np.arange(1, n + 1),
        system=np.arange(n) // 2,
        companion=np.arange(1, n + 1) ^ 1,
        yx=rng.uniform(0, 300, (n, 2)),
        mag=np.linspace(19.0, 24.0, n),
        radius_arcsec=np.full(n, 0.4),
        axis_ratio=np.full(n, 0.25),
        kind=np.arange(n) % 4,
    )


def test_truth_has_units_types_and_companions(field: Field) -> None:
    table = truth_table(make_sources(4), field)
    assert table["type"].to_pylist() == ["sph", "sphd", "disk", "irr"]
    assert table["group_size"].to_pylist() == [2, 2, 2, 2]
    assert table["companion_id"].to_pylist() == [None, 3, 2, 5]
    assert {f.name: f.metadata[b"unit"] for f in table.schema if f.metadata}["ra"] == b"deg"
    np.testing.assert_allclose(table["flux_njy"][0].as_py(), 10 ** (-0.4 * (19.0 - 31.4)))


@pytest.mark.parametrize(("brighter", "fainter"), [("mag", (0, 100)), ("position", (0, 100))])
def test_faint_sources_are_measured_worse(
    field: Field, brighter: str, fainter: tuple[int, int]
) -> None:
    sources = make_sources()
    table = detections_table(sources, field, PRESET, 2)
    if brighter == "mag":
        error = np.abs(table["mag"].to_numpy() - sources.mag)
    else:
        found = field.world_to_pixel(table["ra"].to_numpy(), table["dec"].to_numpy())
        error = np.hypot(*(found - sources.yx).T)
    bright, faint = error[:100].mean(), error[300:].mean()
    assert faint > 1.3 * bright > 0


def test_detected_radii_are_round_and_with_psf(field: Field) -> None:
    radius = detections_table(make_sources(), field, PRESET, 2)["radius"].to_numpy()
    expected = np.hypot(0.4 * np.sqrt(0.25), 0.5 * PRESET.psf.fwhm_arcsec)
    assert np.median(radius) == pytest.approx(expected, rel=0.02)


def test_tables_are_written_whole(tmp_path: Path) -> None:
    url, table = str(tmp_path / "table.parquet"), pa.table({"id": [1, 2]})
    write_table(url, table)
    assert pq.read_table(url).equals(table)
