"""A field of one band and its detections, for runs of the profile fit."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from deblend_batch.field.layout import create_field, finish_field
from tests.support import make_meta, member

SCALE_ARCSEC, ZERO_POINT = 0.1, 27.0


def write_run(
    folder: Path, image: np.ndarray, fwhm_px: float, detections: Mapping[str, Any]
) -> dict[str, object]:
    """Write an image of noise 1, and a table; return the config of a run."""
    meta = make_meta(
        bands=("r",),
        zero_point=(ZERO_POINT,),
        psf_fwhm_arcsec=(fwhm_px * SCALE_ARCSEC,),
        noise_sigma=(1.0,),
    )
    group = create_field(str(folder / "field.zarr"), meta, image.shape, with_variance=False)
    member(group, "image")[0] = image.astype(np.float32)
    finish_field(group, meta)
    pq.write_table(pa.table(dict(detections)), folder / "detections.parquet")
    return {
        "field": str(folder / "field.zarr"),
        "detections": str(folder / "detections.parquet"),
        "output": str(folder / "out"),
        "model": "profile-fit",
    }
