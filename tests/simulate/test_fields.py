from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

from deblend_batch.errors import ConfigError, OutputConflictError
from deblend_batch.field.layout import Field
from deblend_batch.simulate.fields.field import simulate_field
from deblend_batch.simulate.fields.truth import FieldTruth
from deblend_batch.simulate.presets import get_preset

SMALL: dict[str, Any] = {
    "shape_yx": (500, 640),
    "n_pairs": 14,
    "n_isolated": 8,
    "n_groups": 2,
    "seed": 4,
    "tile_size": 256,
}


@pytest.fixture(scope="module")
def simulated(tmp_path_factory: pytest.TempPathFactory) -> FieldTruth:
    url = str(tmp_path_factory.mktemp("field") / "sky.zarr")
    return simulate_field(url, with_variance=True, **SMALL)


def read(truth: FieldTruth) -> np.ndarray:
    return np.array(Field.open(truth.field_url).image[0])


def column(url: str, name: str) -> np.ndarray:
    return np.asarray(pq.read_table(url).column(name).to_numpy())


def test_the_field_opens_with_its_photometry(simulated: FieldTruth) -> None:
    field, preset = Field.open(simulated.field_url), get_preset("candels-h")
    assert field.shape_yx == (500, 640)
    assert field.meta.bands == ("F160W",)
    assert field.meta.zero_point == (25.96,)
    assert field.pixel_scale_arcsec == pytest.approx(0.06)
    assert field.variance is not None
    np.testing.assert_allclose(np.array(field.variance[0, :5, :5]), preset.noise_sigma**2)
    assert np.isfinite(read(simulated)).all()


@pytest.mark.parametrize(
    ("change", "same"),
    [
        ({"draw_px": 200}, True),
        ({"draw_px": 333}, True),
        ({"with_variance": True}, True),
        ({"seed": 5}, False),
    ],
    ids=["tiles-200", "tiles-333", "variance", "seed"],
)
def test_only_the_seed_decides_the_pixels(
    simulated: FieldTruth, tmp_path: Path, change: dict[str, Any], same: bool
) -> None:
    other = simulate_field(str(tmp_path / "other.zarr"), **(SMALL | change))
    assert np.array_equal(read(simulated), read(other)) == same
    assert pq.read_table(simulated.truth_url).equals(pq.read_table(other.truth_url)) == same
    assert (
        pq.read_table(simulated.detections_url).equals(pq.read_table(other.detections_url)) == same
    )


def test_the_truth_counts_every_source(simulated: FieldTruth) -> None:
    table = pq.read_table(simulated.truth_url)
    assert table.num_rows == simulated.n_sources
    np.testing.assert_array_equal(table["id"], np.arange(1, table.num_rows + 1))
    sizes = np.unique(column(simulated.truth_url, "group"), return_counts=True)[1]
    assert ((sizes == 2).sum(), (sizes == 1).sum(), (sizes > 2).sum()) == (14, 8, 2)
    assert table["companion_id"].null_count == table.num_rows - 28
    assert table.schema.field("flux_njy").metadata[b"unit"] == b"nJy"


def test_positions_agree_in_pixels_and_on_the_sky(simulated: FieldTruth) -> None:
    url, field = simulated.truth_url, Field.open(simulated.field_url)
    yx = field.world_to_pixel(column(url, "ra"), column(url, "dec"))
    np.testing.assert_allclose(
        yx, np.stack([column(url, "y"), column(url, "x")], axis=1), atol=1e-6
    )


def test_the_image_holds_the_light_of_the_truth(simulated: FieldTruth) -> None:
    total = (10 ** (-0.4 * (column(simulated.truth_url, "mag") - 25.96))).sum()
    assert read(simulated).sum() == pytest.approx(total, rel=0.05)
    njy = 10 ** (-0.4 * (column(simulated.truth_url, "mag") - 31.4))
    np.testing.assert_allclose(column(simulated.truth_url, "flux_njy"), njy)


def test_sources_are_bright_where_the_truth_says(simulated: FieldTruth) -> None:
    image, url = read(simulated), simulated.truth_url
    yx = np.rint(np.stack([column(url, "y"), column(url, "x")], axis=1)).astype(int)
    peak = np.array([image[y - 2 : y + 3, x - 2 : x + 3].max() for y, x in yx])
    assert (peak > 5 * get_preset("candels-h").noise_sigma).mean() > 0.95


def test_detections_have_errors_of_a_detectors_size(simulated: FieldTruth) -> None:
    field = Field.open(simulated.field_url)
    found, true = (
        field.world_to_pixel(column(url, "ra"), column(url, "dec"))
        for url in (simulated.detections_url, simulated.truth_url)
    )
    error = found - true
    assert 0.02 < error.std() < 0.5
    np.testing.assert_array_equal(
        column(simulated.detections_url, "id"), column(simulated.truth_url, "id")
    )
    mag_error = column(simulated.detections_url, "mag") - column(simulated.truth_url, "mag")
    assert 0.01 < mag_error.std() < 0.1
    assert column(simulated.detections_url, "radius").min() > 0.08


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"preset": "candels"}, "preset 'candels' is unknown; did you mean 'candels-h'"),
        ({"n_pairs": 0, "n_isolated": 0, "n_groups": 0}, "a field without galaxies is of no use"),
        ({"n_pairs": 4000}, "4010 systems in 500 x 640 px are too dense"),
    ],
)
def test_fields_that_cannot_be_made(tmp_path: Path, change: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        simulate_field(str(tmp_path / "none.zarr"), **(SMALL | change))
    assert not (tmp_path / "none.zarr").exists()


def test_a_finished_field_is_kept(simulated: FieldTruth) -> None:
    with pytest.raises(OutputConflictError, match=r"sky\.zarr: exists already"):
        simulate_field(simulated.field_url, **SMALL)
