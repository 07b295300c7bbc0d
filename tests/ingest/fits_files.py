"""FITS files for tests: a celestial header, a sky with stars, files of every kind."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from astropy.io import fits
from numpy.typing import NDArray

from tests.support import WCS_CARDS


def celestial_header(**cards: Any) -> fits.Header:
    """Return a header with a TAN WCS of 0.1 arcsec a pixel, and more cards."""
    header = fits.Header()
    header.update(WCS_CARDS)
    header.update({key.upper(): value for key, value in cards.items()})
    return header


def noise_image(
    shape_yx: tuple[int, int] = (300, 320), sigma: float = 1.0, level: float = 0.0, seed: int = 1
) -> NDArray[np.float32]:
    """Return a sky without sources."""
    return np.random.default_rng(seed).normal(level, sigma, shape_yx).astype(np.float32)


def add_gaussians(
    image: NDArray[np.float32], yx: NDArray[np.float64], flux: Any, fwhm_px: Any
) -> NDArray[np.float32]:
    """Add round Gaussian sources, rendered at pixel centres."""
    sigma = np.broadcast_to(np.asarray(fwhm_px) / 2.3548200450309493, len(yx))[:, None]
    rows, columns = (
        np.exp(-(((np.arange(edge) - at[:, None]) / sigma) ** 2) / 2)
        for edge, at in zip(image.shape, yx.T, strict=True)
    )
    columns *= np.broadcast_to(flux, len(yx))[:, None] / (2 * np.pi * sigma**2)
    for profile in (rows, columns):
        profile[profile < 1e-100] = 0  # no numbers that processors are slow with
    return np.asarray(image + rows.T @ columns, np.float32)


def grid_positions(
    shape_yx: tuple[int, int], step: int, seed: int = 2, margin: int = 20
) -> NDArray[np.float64]:
    """Return positions (y, x) on a jittered grid, well apart from each other."""
    rng = np.random.default_rng(seed)
    rows, columns = (np.arange(margin, edge - margin, step) for edge in shape_yx)
    yx = np.stack(np.meshgrid(rows, columns, indexing="ij"), -1).reshape(-1, 2).astype(np.float64)
    return np.ascontiguousarray(yx + rng.uniform(-0.5, 0.5, yx.shape))


def write_image(path: Path, data: NDArray[Any], **cards: Any) -> str:
    """Write a primary image with a celestial header."""
    fits.PrimaryHDU(data, celestial_header(**cards)).writeto(path)
    return str(path)


def write_extensions(path: Path, **planes: tuple[NDArray[Any], dict[str, Any]]) -> str:
    """Write a file of image extensions; the names are the keywords."""
    hdus = [fits.PrimaryHDU()]
    for name, (data, cards) in planes.items():
        hdus.append(fits.ImageHDU(data, celestial_header(**cards), name=name))
    fits.HDUList(hdus).writeto(path)
    return str(path)
