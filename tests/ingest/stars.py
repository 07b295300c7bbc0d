"""Images of stars, drawn by GalSim, whose PSF varies as we say."""

from __future__ import annotations

from functools import cache

import galsim
import numpy as np
from numpy.typing import NDArray

SHAPE_YX = (1100, 1100)
_STAMP_PX = 81
_FINE = 3
_COARSE = galsim.GSParams(folding_threshold=0.01, maxk_threshold=0.01)
"""For galaxies, which only have to be wider than stars."""


def psf_at(yx: NDArray[np.float64], fwhm_px: float, gradient: float) -> galsim.GSObject:
    """A Moffat profile that grows along x and is sheared along y, by a share of the image."""
    y, x = np.asarray(yx) / SHAPE_YX - 0.5
    round_one = galsim.Moffat(beta=3.0, fwhm=fwhm_px * (1 + gradient * x))
    return round_one.shear(g1=0.02, g2=0.06 * y)


def true_kernel(
    yx: NDArray[np.float64], fwhm_px: float, gradient: float, size: int
) -> NDArray[np.float64]:
    """What a star of flux 1 looks like, the pixel included."""
    return drawn(psf_at(yx, fwhm_px, gradient), size)


def drawn(
    star: galsim.GSObject, size: int, offset_yx: NDArray[np.float64] | None = None
) -> NDArray[np.float64]:
    """Draw a profile, the pixel included, as sums of finer ones: cheaper than by its Fourier transform."""
    dy, dx = (0.0, 0.0) if offset_yx is None else offset_yx
    fine = star.shift(dx, dy).drawImage(
        nx=size * _FINE, ny=size * _FINE, scale=1 / _FINE, method="no_pixel"
    )
    summed = fine.array.astype(np.float64).reshape(size, _FINE, size, _FINE).sum(axis=(1, 3))
    return np.asarray(summed, np.float64)


def add(image: NDArray[np.float64], stamp: NDArray[np.float64], middle: NDArray[np.int64]) -> None:
    """Add what of a stamp lies inside an image."""
    half = len(stamp) // 2
    low, high = np.maximum(half - middle, 0), np.minimum(half - middle + image.shape, len(stamp))
    at = middle - half
    image[at[0] + low[0] : at[0] + high[0], at[1] + low[1] : at[1] + high[1]] += stamp[
        low[0] : high[0], low[1] : high[1]
    ]


@cache
def star_field(
    fwhm_px: float,
    gradient: float,
    n_stars: int,
    *,
    flux: tuple[float, float] = (1e4, 3e5),
    n_galaxies: int = 50,
    seed: int = 1,
) -> NDArray[np.float32]:
    """Stars and galaxies on a noise of 1 a pixel; read only, since several tests look at the same."""
    rng = np.random.default_rng(seed)
    image = np.zeros(SHAPE_YX)
    for number in range(n_stars + n_galaxies):
        yx = rng.uniform(30, np.array(SHAPE_YX) - 30)
        psf = psf_at(yx, fwhm_px, gradient)
        middle = np.rint(yx).astype(int)
        if number < n_stars:
            stamp = drawn(psf, _STAMP_PX, yx - middle)
        else:
            radius = fwhm_px * rng.uniform(0.5, 2.5)
            galaxy = galsim.Exponential(half_light_radius=radius).shear(g1=rng.uniform(-0.3, 0.3))
            shown = galsim.Convolve(galaxy, psf, gsparams=_COARSE).shift(*(yx - middle)[::-1])
            stamp = shown.drawImage(nx=_STAMP_PX, ny=_STAMP_PX, scale=1.0).array
        add(image, stamp * np.exp(rng.uniform(*np.log(flux))), middle)
    noisy = (image + rng.standard_normal(SHAPE_YX)).astype(np.float32)
    noisy.setflags(write=False)
    return noisy
