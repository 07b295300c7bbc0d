"""Halos of saturated stars: whole whatever the windows, and where a run and a detection see them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy.ndimage import label

from deblend_batch.detect.bits import NEAR_BRIGHT_STAR
from deblend_batch.detect.field import detect_field
from deblend_batch.field.layout import Field
from deblend_batch.field.mask_bits import MaskBits, bad_pixels, near_bright_star
from deblend_batch.field.sky.background import BackgroundMesh
from deblend_batch.ingest.ingest import ingest
from deblend_batch.ingest.planes.halos import Halos, SaturatedCores, with_halos
from tests.ingest.fits_files import add_gaussians, noise_image, write_extensions, write_image

SHAPE = (300, 320)
STAR_YX = np.array([[150.0, 155.0]])
BESIDE_YX, FAR_YX = np.array([[150.0, 180.0]]), np.array([[40.0, 40.0]])
LEVEL = 2000.0


def collected(saturated: NDArray[np.bool_], cell_px: int, most_px: int) -> Halos:
    """The halos of an image that is read in windows of some size."""
    cores = SaturatedCores((saturated.shape[0], saturated.shape[1]))
    for rows, columns in BackgroundMesh(saturated.shape, cell_px).windows(most_px):
        cores.add(saturated[rows, columns], rows, columns)
    return cores.halos(1000.0, 1.0)


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 10_000), st.floats(0.3, 0.6), st.sampled_from([(5, 5), (7, 20), (11, 1)]))
def test_windows_change_no_core(seed: int, share: float, size: tuple[int, int]) -> None:
    """Cores that cross edges and corners of windows, in any direction, are one."""
    saturated = np.random.default_rng(seed).random((31, 37)) < share
    whole, cut = collected(saturated, 40, 9999), collected(saturated, *size)
    labels, n = label(saturated, np.ones((3, 3)))
    area = np.bincount(labels.ravel(), minlength=n + 1)[1:]
    assert len(whole) == (area >= 4).sum() == len(cut)
    for each in (whole, cut):
        middles, expected = (sorted(of.yx.round(6).tolist()) for of in (each, whole))
        np.testing.assert_allclose(middles, expected, atol=1e-5)
        radius = np.sort(np.sqrt(area[area >= 4] / np.pi) * 1000 ** (1 / 2.76))
        np.testing.assert_allclose(np.sort(each.radius_px), radius)


@given(st.lists(st.tuples(*[st.floats(-20, 60)] * 2, st.floats(0, 30)), max_size=5))
def test_a_plane_is_its_circles(circles: list[tuple[float, float, float]]) -> None:
    of = np.array(circles).reshape(-1, 3)
    found = Halos(of[:, :2], of[:, 2]).plane(slice(10, 40), slice(5, 45))
    y, x = np.mgrid[10:40, 5:45]
    expected = np.zeros(found.shape, bool)
    for middle_y, middle_x, radius in circles:
        expected |= np.hypot(y - middle_y, x - middle_x) <= radius
    np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize(
    ("level", "noise"), [(5.0, 0.0), (0.5, 1.0), (-3.0, 1.0), (float("nan"), 1.0)]
)
def test_without_a_level_that_means_saturation_there_are_none(level: float, noise: float) -> None:
    cores = SaturatedCores((8, 8))
    cores.add(np.ones((8, 8), bool), slice(0, 8), slice(0, 8))
    assert len(cores.halos(level, noise)) == 0


def test_a_level_within_the_noise_takes_no_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("deblend_batch.ingest.planes.halos._MOST_CORES", 100)
    assert len(collected(noise_image((200, 200)) > 1, 50, 50)) == 0


@pytest.mark.parametrize(
    ("bits", "names"),
    [
        (None, {"BAD": 0, "BRIGHT_STAR": 1}),
        (MaskBits({"SAT": 1, "CR": 0}, ("SAT",)), {"SAT": 1, "CR": 0, "BRIGHT_STAR": 2}),
        (MaskBits({"BRIGHT_OBJECT": 9}, ()), {"BRIGHT_OBJECT": 9}),
    ],
)
def test_a_bit_is_added_where_there_is_none(bits: MaskBits | None, names: dict[str, int]) -> None:
    found = with_halos(bits)
    assert found.bits == names
    assert "BRIGHT_STAR" not in found.bad


def image() -> NDArray[np.float32]:
    """A saturated star, a source in its halo, one far from it."""
    sky = add_gaussians(noise_image(SHAPE), STAR_YX, 1e6, 4.0)
    sky = add_gaussians(sky, np.concatenate([BESIDE_YX, FAR_YX]), 500.0, 4.0)
    return np.minimum(sky, np.float32(LEVEL))


@pytest.mark.parametrize("mask", [None, "plain", "named"])
def test_a_field_marks_halos_and_its_detections_know(tmp_path: Path, mask: str | None) -> None:
    bad = np.zeros(SHAPE, np.int32)
    bad[5:8, 5:8] = 2
    cards = {"MP_SAT": 0, "MP_BAD": 1} if mask == "named" else {}
    planes = {"SCI": (image(), {"saturate": LEVEL})} | ({"MASK": (bad, cards)} if mask else {})
    given = {"hdu": ["SCI"], "mask_hdu": ["MASK"] if mask else []}
    url, field_url = write_extensions(tmp_path / "a.fits", **planes), f"{tmp_path}/a.zarr"
    options = {"zero_points": [25.0], "psf_fwhm_arcsec": [0.4], "background": "keep"}
    (band,) = ingest([url], field_url, **given, **options).bands  # type: ignore[arg-type]
    assert "halos of 1 saturated stars" in band.describe()
    field = Field.open(field_url)
    bits = field.meta.mask_bits
    assert bits is not None
    plane = field.plane(0, slice(0, SHAPE[0]), slice(0, SHAPE[1]), "mask")
    np.testing.assert_array_equal(bad_pixels(plane, bits), (bad != 0) & (mask is not None))
    near = near_bright_star(plane, bits)
    assert near[150, 155]
    assert near[150, 180]
    assert not near[40, 40]
    assert 3000 < near.sum() < 30_000
    table = tmp_path / "d.parquet"
    detect_field(field_url, str(table))
    found = pq.read_table(table).to_pandas().sort_values("y")
    assert len(found) == 3
    assert (found["flags"].to_numpy() & NEAR_BRIGHT_STAR > 0).tolist() == (
        [False, *(abs(x - 180) < 2 for x in found["x"][1:])]
    )


def test_without_a_saturated_star_nothing_is_marked(tmp_path: Path) -> None:
    url = write_image(tmp_path / "a.fits", noise_image(SHAPE), saturate=LEVEL)
    (band,) = ingest([url], f"{tmp_path}/a.zarr", zero_points=[25.0], psf_fwhm_arcsec=[0.4]).bands
    assert "halos" not in band.describe()
    assert Field.open(f"{tmp_path}/a.zarr").mask is None
