"""Chunks that were never stored."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import zarr

from deblend_batch.detect.correlation import measure_correlation
from deblend_batch.field.layout import Field
from tests.support import make_meta


@pytest.mark.parametrize("fill", [0.0, -999.0, 1e30, float("inf"), float("nan")])
@pytest.mark.parametrize("n_axes", [2, 3])
def test_chunks_that_were_never_stored_are_no_pixels(
    fill: float, n_axes: int, tmp_path: Path
) -> None:
    group = zarr.create_group(tmp_path / "a.zarr")
    group.attrs.update(make_meta(noise_sigma=None).to_attributes())
    shape = (1,) * (n_axes - 2) + (300, 320)
    chunks = (1,) * (n_axes - 2) + (64, 64)
    array = group.create_array("image", shape=shape, chunks=chunks, dtype="f4", fill_value=fill)
    pixels = np.random.default_rng(1).normal(0, 1, (300, 320)).astype(np.float32)
    stored = np.zeros((300, 320), bool)
    for y in range(0, 300, 64):
        for x in range(0, 320, 64):
            if (y + x) // 64 % 2:
                stored[y : y + 64, x : x + 64] = True
                here = slice(y, y + 64), slice(x, x + 64)
                array[..., *here] = pixels[here] if n_axes == 2 else pixels[None, *here]
    field = Field.open(f"{tmp_path}/a.zarr")
    window = slice(10, 290), slice(70, 300)
    expected = np.where(stored, pixels, np.nan)[window]
    np.testing.assert_array_equal(field.plane(0, *window), expected)
    assert field.measure_noise()[0] == pytest.approx(1.0, abs=0.03)
    assert measure_correlation(field, 0, field.psf_fwhm_px[0]) == pytest.approx(1.0, abs=0.1)
