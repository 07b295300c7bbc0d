"""Noise planes: what is a variance, and what says that there are no data."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from astropy.io import fits
from hypothesis import given
from hypothesis import strategies as st

from deblend_batch.ingest.files.opening import open_files
from deblend_batch.ingest.planes.noise_plane import NoisePlane, typical_variance, variance_of
from deblend_batch.ingest.reference import ImageRef

SENTINELS = {
    "rms": (0.0, -1.0, 1e10, 1e16, 1e30, np.inf, np.nan),
    "variance": (0.0, -1.0, 1e20, 1e32, 3e38, np.inf, np.nan),
    "weight": (0.0, -1.0, 1e-20, 1e-32, 1e-38, np.inf, np.nan),
}
KINDS = ("rms", "weight", "variance")
ROWS, COLUMNS = slice(0, 40), slice(0, 50)


@pytest.mark.parametrize("kind", KINDS)
def test_noise_planes_are_variances(kind: Any) -> None:
    values = variance_of(np.array([4.0, 0.0, -1.0, np.nan, np.inf]), kind)
    expected = {"rms": 16.0, "weight": 0.25, "variance": 4.0}[kind]
    np.testing.assert_array_equal(values, [expected, np.nan, np.nan, np.nan, np.nan])


@pytest.mark.parametrize("kind", KINDS)
@given(
    unit=st.floats(1e-6, 1e3), share=st.floats(0.05, 0.9), depth=st.floats(1, 100), data=st.data()
)
def test_what_stands_for_no_data_is_none(
    kind: Any, unit: float, share: float, depth: float, data: st.DataObject
) -> None:
    rng = np.random.default_rng(data.draw(st.integers(0, 1000)))
    sentinel = data.draw(st.sampled_from(SENTINELS[kind]))
    sigma = unit * rng.uniform(1, depth, 2000)  # depths of one mosaic
    missing = rng.random(2000) < share
    plane = {"rms": sigma, "weight": sigma**-2, "variance": sigma**2}[kind]
    if kind != "rms" and sentinel > 0:
        sentinel *= unit ** (-2 if kind == "weight" else 2)
    variances = variance_of(np.where(missing, sentinel, plane), kind)
    good = np.isfinite(variances) & (variances <= typical_variance(variances) * 1e6)
    np.testing.assert_array_equal(good, ~missing)


@pytest.mark.parametrize(
    ("kind", "number"), [("rms", 1e-10), ("weight", 1e30), ("variance", 1e-30)]
)
def test_what_is_known_too_well_is_no_data(kind: Any, number: float, tmp_path: Path) -> None:
    plane = np.ones((40, 50), np.float32)
    plane[5, 7:9] = number
    fits.PrimaryHDU(plane).writeto(tmp_path / "a.fits")
    with open_files() as files:
        noise = NoisePlane(files.plane(ImageRef(f"{tmp_path}/a.fits", None)), kind)
        _, bad = noise.with_limit([(ROWS, COLUMNS)]).read(ROWS, COLUMNS)
    assert np.argwhere(bad).tolist() == [[5, 7], [5, 8]]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("method", [-1, 1, 2])
def test_zeros_that_lossy_compression_moved_are_zeros(
    kind: Any, method: int, tmp_path: Path
) -> None:
    plane = 1 + 0.05 * np.random.default_rng(3).normal(size=(40, 50)).astype(np.float32)
    plane[10:20, 5:45] = 0
    plane[:, :3] = 0
    hdu = fits.CompImageHDU(plane, name="WHT", quantize_level=4, quantize_method=method)
    fits.HDUList([fits.PrimaryHDU(), hdu]).writeto(tmp_path / "a.fits")
    with open_files() as files:
        noise = NoisePlane(files.plane(ImageRef(f"{tmp_path}/a.fits", "WHT")), kind)
        variance, bad = noise.with_limit([(ROWS, COLUMNS)]).read(ROWS, COLUMNS)
        part, bad_part = noise.read(slice(8, 30), slice(2, 40))
    np.testing.assert_array_equal(bad, plane == 0)
    np.testing.assert_array_equal(np.isnan(variance), bad)
    np.testing.assert_array_equal(bad_part, bad[8:30, 2:40])
    np.testing.assert_array_equal(part, variance[8:30, 2:40])
