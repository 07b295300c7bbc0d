"""A field of round Gaussians at known places, and what a detection finds of it."""

from __future__ import annotations

from typing import Any

import numpy as np

from deblend_batch.detections.table import Detections, read_detections
from deblend_batch.field.layout import Field, create_field, finish_field
from tests.support import gaussian_image, make_meta

SHAPE_YX = (300, 360)
SOURCES_YX = np.array(
    [
        # On borders and corners of 128 px tiles, just before and just after them.
        *[(127.5, 127.5), (255.49, 128.2), (128.0, 255.6), (256.3, 255.8), (40.0, 127.6)],
        *[(127.4, 40.0), (255.5, 320.0)],
        # In the middle of tiles, near the edges of the image, and two close pairs.
        *[(64.2, 64.7), (200.3, 60.1), (285.1, 345.2), (12.0, 12.4), (20.0, 200.0), (90.0, 300.0)],
        *[(180.0, 200.0), (180.0, 212.0), (60.0, 230.0), (69.0, 236.0)],
    ]
)
MAG = np.linspace(20, 23, len(SOURCES_YX))


def make_field(url: str, n_bands: int = 1, *, variance: bool = False) -> str:
    """Write a field of round Gaussians; the second band, where there is one, is empty sky."""
    bands = ("h", "empty")[:n_bands]
    meta = make_meta(
        bands=bands,
        zero_point=(25.96,) * n_bands,
        psf_fwhm_arcsec=(0.3,) * n_bands,
        noise_sigma=(0.01,) * n_bands,
    )
    group = create_field(url, meta, SHAPE_YX, with_variance=variance)
    flux = 10 ** (-0.4 * (MAG - 25.96))
    arrays: dict[str, Any] = dict(group.arrays())
    arrays["image"][0] = gaussian_image(SHAPE_YX, SOURCES_YX, flux)
    if n_bands == 2:
        arrays["image"][1] = np.random.default_rng(8).normal(0, 0.01, SHAPE_YX)
    if variance:
        arrays["variance"][:] = 0.01**2
    finish_field(group, meta)
    return url


def read(url: str) -> Detections:
    """Read a whole table."""
    return Detections.concatenate(list(read_detections(url)))


def nearest(field_url: str, found: Detections) -> tuple[np.ndarray, np.ndarray]:
    """For each true source the row that is nearest, and how far it is, px."""
    yx = Field.open(field_url).world_to_pixel(found.ra, found.dec)
    distances = np.linalg.norm(SOURCES_YX[:, None] - yx[None], axis=-1)
    return distances.argmin(axis=1), distances.min(axis=1)
