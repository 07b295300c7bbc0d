"""Files of PSFs for tests: kernels, a PSFEx model, stamps on a canvas."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from astropy.io import fits
from astropy.wcs import WCS

from tests.ingest.fits_files import celestial_header

SHAPE = (700, 600)
"""Rows and columns of the image that they belong to."""


def gaussian(fwhm_px: float, edge: int = 21, shift: int = 0) -> np.ndarray:
    y, x = np.indices((edge, edge)) - edge // 2
    image = np.exp(-(y**2 + (x - shift) ** 2) / (2 * (fwhm_px / 2.3548) ** 2))
    return np.asarray(image / image.sum())


def psfex_file(path: Path, degree: int, sample: float, edge: int = 25, **cards: Any) -> str:
    """A model whose PSF becomes wider along x, and wider still along y."""
    terms = [gaussian(3.0 / sample, edge)]
    wider = gaussian(4.5 / sample, edge) - gaussian(3.0 / sample, edge)
    for j in range(degree + 1):
        terms += [wider * (0.1 + 0.1 * j)] * (degree + 1 - j - (j == 0))
    mask = np.array(terms, np.float32)
    n, height, width = mask.shape
    column = fits.Column(
        "PSF_MASK", f"{mask.size}E", dim=f"({width},{height},{n})", array=mask[None]
    )
    table = fits.BinTableHDU.from_columns([column], name="PSF_DATA")
    header = {
        "PSF_SAMP": sample,
        "PSFNAXIS": 3,
        "PSFAXIS1": width,
        "PSFAXIS2": height,
        "PSFAXIS3": n,
    }
    header |= {
        "POLNAXIS": 2,
        "POLNGRP": 1,
        "POLDEG1": degree,
        "LOADED": 9,
        "ACCEPTED": 9,
        "CHI2": 1.0,
    }
    for axis, name, half in ((1, "X_IMAGE", 300.0), (2, "Y_IMAGE", 350.0)):
        header |= {
            f"POLGRP{axis}": 1,
            f"POLNAME{axis}": name,
            f"POLZERO{axis}": half,
            f"POLSCAL{axis}": half,
        }
    table.header.update(header | {"PSF_FWHM": 3.0} | cards)
    fits.HDUList([fits.PrimaryHDU(), table]).writeto(path)
    return str(path)


def canvas_file(path: Path, origin: int, shift: int = 0) -> str:
    """Stamps of 15 px on a canvas, and where on the sky each belongs: wider towards larger x."""
    edge, n = 15, 4
    sky = WCS(celestial_header())
    canvas, rows = np.zeros((edge * n, edge * n), np.float32), []
    for i in range(n):
        for j in range(n):
            y, x = edge * i + edge // 2, edge * j + edge // 2
            stamp = gaussian(2.0 + 0.5 * j, edge, shift)
            canvas[y - 7 : y + 8, x - 7 : x + 8] = 3 * stamp
            at = sky.pixel_to_world((j + 0.5) * SHAPE[1] / n, (i + 0.5) * SHAPE[0] / n)
            rows.append((x + origin, y + origin, at.ra.deg, at.dec.deg))
    table = np.array(rows, [("x", "f8"), ("y", "f8"), ("RA", "f8"), ("Dec", "f8")])
    image = fits.ImageHDU(canvas, fits.Header([("STMPSIZE", edge)]))
    fits.HDUList([fits.PrimaryHDU(), image, fits.BinTableHDU(table)]).writeto(path)
    return str(path)
