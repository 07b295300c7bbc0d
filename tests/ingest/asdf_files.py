"""ASDF files for tests: Roman's products by Roman's own makers, and gWCS of any kind."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import asdf
import astropy.units as u
import gwcs
import numpy as np
from astropy.coordinates import ICRS
from astropy.modeling import models
from gwcs import coordinate_frames as frames
from numpy.typing import NDArray

SCALE_ARCSEC = 0.055
RA, DEC = 270.0, 66.0


def gnomonic_wcs(
    point_xy: tuple[float, float] = (500.0, -20000.0),
    *,
    angle_deg: float = 12.0,
    distortion: Any = None,
    scale_arcsec: float = SCALE_ARCSEC,
) -> gwcs.WCS:
    """Return a gWCS as Roman's sky cells have: its point of projection may lie far off the image.

    ``distortion`` is a model of two inputs and outputs, before the projection, in pixels.
    """
    detector = frames.Frame2D(name="detector", unit=(u.pix, u.pix))
    sky = frames.CelestialFrame(reference_frame=ICRS(), name="icrs", unit=(u.deg, u.deg))
    plane = models.Shift(-point_xy[0]) & models.Shift(-point_xy[1])
    if distortion is not None:
        plane = plane | distortion
    scale = scale_arcsec / 3600
    turned = models.AffineTransformation2D(
        np.array([[-1.0, 0.0], [0.0, 1.0]]) @ _rotation(angle_deg), name="pc"
    )
    project = models.Scale(scale) & models.Scale(scale) | models.Pix2Sky_TAN()
    pipeline = plane | turned | project | models.RotateNative2Celestial(RA, DEC, 180.0)
    return gwcs.WCS([(detector, pipeline), (sky, None)])


def polynomial(strength: float, degree: int = 3) -> Any:
    """Return a smooth distortion that moves a pixel at (1000, 1000) by about ``strength`` pixels."""
    terms = {"c1_0": 1.0, "c2_0": strength / 1e6, f"c0_{degree}": strength / 1000.0**degree}
    mirrored = {f"c{key[3]}_{key[1]}": value for key, value in terms.items()}
    return models.Mapping((0, 1, 0, 1)) | (
        models.Polynomial2D(degree, **terms) & models.Polynomial2D(degree, **mirrored)
    )


def plain_asdf(path: Path, image: NDArray[np.float32], wcs: gwcs.WCS, packing: str = "") -> str:
    """Write an image and its gWCS as no data model does."""
    meta = {"wcs": wcs, "bunit_data": "nJy", "instrument": {"filter": "F200W"}}
    file = asdf.AsdfFile({"data": image, "meta": meta})
    file.write_to(path, all_array_compression=packing)
    return str(path)


def _rotation(angle_deg: float) -> NDArray[np.float64]:
    cos, sin = np.cos(np.radians(angle_deg)), np.sin(np.radians(angle_deg))
    return np.array([[cos, -sin], [sin, cos]])


def roman_mosaic(
    path: Path,
    image: NDArray[np.float32],
    sigma: float,
    *,
    wcs: gwcs.WCS | None = None,
    unseen: Any = None,
    packing: str = "lz4",
    **meta: Any,
) -> str:
    """Write a level 3 mosaic; ``unseen`` are pixels without data."""
    from roman_datamodels.datamodels import MosaicModel  # it reads all its schemas

    model = MosaicModel.create_fake_data(shape=image.shape)
    model.data = image.copy()
    model.err = np.full(image.shape, sigma, np.float32)
    model.weight = np.ones(image.shape, np.float32)
    model.context = np.ones((2, *image.shape), np.uint32)
    if unseen is not None:
        model.data[unseen], model.err[unseen], model.weight[unseen] = np.nan, np.nan, 0
        model.context[:, unseen[0], unseen[1]] = 0
    for name in ("var_poisson", "var_rnoise"):
        model[name] = np.full(image.shape, sigma**2 / 2, np.float32)
    model.meta.wcs = gnomonic_wcs() if wcs is None else wcs
    model.meta.instrument.optical_element = "F158"
    for key, value in meta.items():
        model.meta[key] = value
    model.save(path, all_array_compression=packing)
    return str(path)


def roman_image(
    path: Path,
    image: NDArray[np.float32],
    sigma: float,
    *,
    wcs: gwcs.WCS,
    dq: NDArray[np.uint32],
    conversion: float | None,
) -> str:
    """Write a calibrated level 2 image, in DN/s."""
    from roman_datamodels.datamodels import ImageModel

    model = ImageModel.create_fake_data(shape=image.shape)
    model.data, model.dq = image, dq
    model.err = np.full(image.shape, sigma, np.float16)
    model.meta.wcs = wcs
    model.meta.instrument.optical_element = "F106"
    model.meta.photometry = {
        "conversion_megajanskys": conversion,
        "conversion_megajanskys_uncertainty": None,
        "pixel_area": None,
    }
    model.save(path)
    return str(path)
