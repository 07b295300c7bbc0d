"""Images of stars, drawn by GalSim, whose PSF varies as we say."""

from __future__ import annotations

import galsim
import numpy as np
from numpy.typing import NDArray

SHAPE_YX = (1100, 1100)


def psf_at(yx: NDArray[np.float64], fwhm_px: float, gradient: float) -> galsim.GSObject:
    """A Moffat profile that grows along x and is sheared along y, by a share of the image."""
    y, x = np.asarray(yx) / SHAPE_YX - 0.5
    round_one = galsim.Moffat(beta=3.0, fwhm=fwhm_px * (1 + gradient * x))
    return round_one.shear(g1=0.02, g2=0.06 * y)


def true_kernel(
    yx: NDArray[np.float64], fwhm_px: float, gradient: float, size: int
) -> NDArray[np.float64]:
    """What a star of flux 1 looks like, the pixel included."""
    image = psf_at(yx, fwhm_px, gradient).drawImage(nx=size, ny=size, scale=1.0)
    return np.asarray(image.array, np.float64)


def star_field(
    fwhm_px: float,
    gradient: float,
    n_stars: int,
    *,
    flux: tuple[float, float] = (1e4, 3e5),
    n_galaxies: int = 50,
    seed: int = 1,
) -> NDArray[np.float32]:
    """Stars and galaxies on a noise of 1 a pixel."""
    rng = np.random.default_rng(seed)
    image = galsim.ImageF(*SHAPE_YX[::-1], scale=1.0, xmin=0, ymin=0)
    for number in range(n_stars + n_galaxies):
        yx = rng.uniform(30, np.array(SHAPE_YX) - 30)
        psf = psf_at(yx, fwhm_px, gradient)
        shown = psf
        if number >= n_stars:
            radius = fwhm_px * rng.uniform(0.5, 2.5)
            galaxy = galsim.Exponential(half_light_radius=radius).shear(g1=rng.uniform(-0.3, 0.3))
            shown = galsim.Convolve(galaxy, psf)
        light = float(np.exp(rng.uniform(*np.log(flux))))
        stamp = (shown * light).drawImage(
            nx=81, ny=81, scale=1.0, center=galsim.PositionD(yx[1], yx[0])
        )
        overlap = stamp.bounds & image.bounds
        image[overlap] += stamp[overlap]
    noise = rng.standard_normal(SHAPE_YX)
    return np.asarray(image.array + noise, np.float32)
