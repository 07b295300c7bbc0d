"""A field that refers to somebody's Zarr in a bucket."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr

from deblend_batch import storage
from deblend_batch.errors import FieldError
from deblend_batch.field.layout import Field
from deblend_batch.ingest.ingest import ingest
from deblend_batch.tiling.reader import read_tile
from deblend_batch.tiling.tile import Box
from tests.ingest.fits_files import noise_image
from tests.support import WCS_CARDS

pytest.importorskip("s3fs")

SHAPE = (150, 170)


@pytest.mark.parametrize("zarr_format", [2, 3])
def test_pixels_stay_in_the_bucket_and_a_change_is_found(
    zarr_format: Any, s3: Any, tmp_path: Path
) -> None:
    image = noise_image(SHAPE)
    image[40:80, 50:100] = np.nan
    group = zarr.open_group(f"{tmp_path}/a.zarr", mode="w", zarr_format=zarr_format)
    group.attrs["fits"] = dict(WCS_CARDS)
    array = group.create_array("image", shape=SHAPE, dtype="f4", chunks=(40, 50), fill_value=0.0)
    array[:40], array[80:] = image[:40], image[80:]
    array[40:80, :50], array[40:80, 100:] = image[40:80, :50], image[40:80, 100:]
    place = f"s3://survey/theirs-{zarr_format}.zarr"
    fs, path = storage.filesystem(place, s3.options)
    fs.put(f"{tmp_path}/a.zarr", path, recursive=True)
    how: dict[str, Any] = {"zero_points": [25.0], "psf_fwhm_arcsec": [0.4], "bands": ["r"]}
    named = {"s3://survey": s3.options}
    url = f"{tmp_path}/f.zarr"
    with pytest.raises(FieldError, match="as a section 's3://survey'"):
        ingest([place], url, by_reference=True, options=s3.options, **how)
    ingest([place], url, by_reference=True, options=named, **how)
    assert sum(each.stat().st_size for each in Path(url).rglob("*") if each.is_file()) < 10_000
    field = Field.open(url, named)
    np.testing.assert_array_equal(read_tile(field, Box(0, 0, *SHAPE)).image[0], image)
    chunk = next(name for name in fs.find(path) if name.endswith(("c/0/0", "image/0.0")))
    fs.pipe_file(chunk, fs.cat_file(chunk) + b"\0")
    with pytest.raises(FieldError, match="to which it refers, has changed since"):
        Field.open(url, named)
