"""A field of two bands for the fit: drawn by GalSim, with all that a field may say from 0.2 on."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import galsim
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from deblend_batch.detections.counted import dropped, to_metadata
from deblend_batch.field.layout import create_field, finish_field
from deblend_batch.field.mask_bits import MaskBits
from deblend_batch.field.psf.varying import FieldPsf, PsfKernels, square_grid
from tests.support import make_meta, member

SHAPE_YX = (230, 260)
SCALE_ARCSEC = 0.1
FWHM_PX = (2.5, 3.2)
NOISE = (0.02, 0.03)
SATURATE = 60.0
BITS = MaskBits({"BAD": 0, "SAT": 1, "NOTE": 2, "BRIGHT_STAR": 3}, ("BAD", "SAT"))


class Drawn(NamedTuple):
    """One source: place (px), flux in both bands (image units), radius (px; 0 a star)."""

    id: int
    yx: tuple[float, float]
    flux: tuple[float, float]
    radius: float


SOURCES = (
    Drawn(1, (40.2, 40.7), (60.0, 90.0), 3.0),
    Drawn(
        2, (99.4, 99.2), (80.0, 60.0), 3.0
    ),  # a group of three over the corner of four tiles of 100 px
    Drawn(3, (103.1, 107.9), (50.0, 70.0), 2.5),
    Drawn(4, (110.0, 101.3), (40.0, 40.0), 3.0),
    Drawn(5, (170.0, 60.0), (3000.0, 2500.0), 0.0),  # a saturated star with a galaxy beside it
    Drawn(6, (176.0, 67.5), (90.0, 90.0), 3.0),
    Drawn(7, (60.0, 180.5), (70.0, 80.0), 3.5),
    Drawn(8, (3.0, 220.0), (80.0, 60.0), 3.0),  # at the edge
    Drawn(9, (190.0, 200.0), (60.0, 60.0), 3.0),  # where no band has a usable pixel
    Drawn(10, (120.0, 210.0), (70.0, 60.0), 3.0),  # where the second band has none
)
COUNTS = {"detected": 12, "added": 1, "kept": 11, dropped("no flux of its own"): 2}
"""What the table says of how its sources came to be."""
NOTHING_AT = slice(150, 230), slice(160, 250)
SECOND_MISSING_AT = slice(85, 150), slice(175, 245)


def write_fitted_field(folder: Path) -> tuple[str, str]:
    """Write the field and its detections, whose positions are off by some tenths of a pixel."""
    url, detections = str(folder / "field.zarr"), str(folder / "detections.parquet")
    meta = make_meta(
        bands=("g", "r"),
        zero_point=(27.0, 27.0),
        psf_fwhm_arcsec=tuple(fwhm * SCALE_ARCSEC for fwhm in FWHM_PX),
        noise_sigma=None,
        saturate=(SATURATE, None),
        noise_correlation=(1.0, 1.5),
        mask_bits=BITS,
    )
    group = create_field(url, meta, SHAPE_YX, with_variance=True, mask=True, psf=_psf())
    rng = np.random.default_rng(4)
    mask = np.zeros((2, *SHAPE_YX), np.uint8)
    mask[:, *NOTHING_AT] = 1
    mask[1, *SECOND_MISSING_AT] = 1
    mask[:, 40:44, 36:39] = 4  # a remark, which spoils nothing
    mask[1, 150:190, 40:80] = 8  # the star's halo
    mask[1, 168:173, 58:63] = 10
    for band in (0, 1):
        image = _drawn(band) + rng.normal(0, NOISE[band], SHAPE_YX)
        image = np.minimum(image, SATURATE) if band == 0 else image
        member(group, "image")[band] = image.astype(np.float32)
        member(group, "variance")[band] = np.full(SHAPE_YX, NOISE[band] ** 2, np.float32)
        member(group, "mask")[band] = mask[band]
    finish_field(group, meta)
    _write_detections(detections, rng)
    return url, detections


def config_of(field: str, detections: str, output: str, **changes: Any) -> dict[str, Any]:
    """A run of the fit in this machine's processes."""
    return {
        "field": field,
        "detections": detections,
        "output": output,
        "model": "profile-fit",
        "blends": {"link": 1.2},
        "tiles": {"size": 100},
        "engine": {"gpus_per_actor": 0, "where": "local", "actors": 1},
        **changes,
    }


def _star(band: int) -> galsim.GSObject:
    return galsim.Moffat(beta=3.5, fwhm=FWHM_PX[band])


def _psf() -> FieldPsf:
    """Kernels of the first cell of four, by which the others are taken for like it."""
    grid = square_grid(150.0, SHAPE_YX)
    images = np.full((2, *grid.counts_yx, 31, 31), np.nan, np.float32)
    for band in (0, 1):
        drawn = galsim.Convolve(_star(band), galsim.Pixel(1.0)).drawImage(
            nx=31, ny=31, scale=1.0, method="no_pixel"
        )
        images[band, 0] = drawn.array / drawn.array.sum()
    width = np.array(FWHM_PX, np.float32)[:, None, None] * np.float32(SCALE_ARCSEC)
    return FieldPsf(square_grid(300.0, SHAPE_YX), width, PsfKernels.of_cells(grid, images))


def _drawn(band: int) -> np.ndarray:
    image = galsim.ImageD(SHAPE_YX[1], SHAPE_YX[0], xmin=0, ymin=0, scale=1.0)
    for source in SOURCES:
        light = _star(band).withFlux(source.flux[band])
        if source.radius:
            galaxy = galsim.Sersic(1.2, half_light_radius=source.radius, flux=source.flux[band])
            light = galsim.Convolve(galaxy.shear(g1=0.2, g2=-0.1), _star(band))
        place = galsim.PositionD(source.yx[1], source.yx[0])
        light.drawImage(image=image, center=place, add_to_image=True)
    return np.asarray(image.array)


def _write_detections(url: str, rng: np.random.Generator) -> None:
    yx = np.array([source.yx for source in SOURCES]) + rng.normal(0, 0.3, (len(SOURCES), 2))
    outside = [[-4.0, 221.0]]  # near the edge, beyond it: fitted, and not measured
    y, x = np.concatenate([yx, outside]).T
    flux = np.array([source.flux[1] for source in SOURCES] + [50.0])
    table = {
        "id": np.array([source.id for source in SOURCES] + [11]),
        "x": x,
        "y": y,
        "mag": (27.0 - 2.5 * np.log10(flux)).astype(np.float32),
    }
    pq.write_table(pa.table(table).replace_schema_metadata(to_metadata(COUNTS)), url)
