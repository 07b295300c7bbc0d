"""Scenes for ``fit_accuracy.py``: blends drawn by GalSim, so that no part of the fit draws its own truth."""

from __future__ import annotations

from dataclasses import dataclass

import galsim
import numpy as np
from numpy.typing import NDArray

PIXEL_ARCSEC = 0.1
ZERO_POINT = 31.4
NOISE_NJY = 5.0
STAMP_PX = 64
PSF_FWHM_ARCSEC = 0.17
PSF_BETA = 3.5
POSITION_ERR_PX = 0.5

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Scenes:
    """Blends that all have the same number of sources; fluxes in nJy, lengths in px.

    Parameters
    ----------
    images : ndarray of float32, shape (scene, band, y, x)
        Noisy stamps.
    yx : ndarray, shape (scene, source, 2)
        True positions.
    given_yx : ndarray, shape (scene, source, 2)
        Positions as a detector gives them.
    flux : ndarray, shape (scene, band, source)
        True fluxes.
    radius, index, g1, g2 : ndarray, shape (scene, source)
        True half-light radius (area-preserving), Sersic index (0: a star) and reduced shear.
    """

    images: NDArray[np.float32]
    yx: Array
    given_yx: Array
    flux: Array
    radius: Array
    index: Array
    g1: Array
    g2: Array


@dataclass(frozen=True)
class Recipe:
    """How scenes are drawn.

    Parameters
    ----------
    members : int
        Sources.
    magnitude : tuple of float
        Range of the brightest.
    fainter : tuple of float
        Range of the others' magnitudes below it.
    separation_arcsec : tuple of float
        Range of each further source's distance from the first (and from all others at least the smaller).
    stars : tuple of int
        Sources that are stars.
    fwhm_arcsec : tuple of float
        Width of the PSF in each band.
    colours : float
        Scatter of the flux ratio between bands, mag.
    within_range : bool
        Whether further sources are as bright as the first may be, within 2 mag of it.
    """

    members: int = 2
    magnitude: tuple[float, float] = (20.5, 23.5)
    fainter: tuple[float, float] = (0.0, 2.0)
    separation_arcsec: tuple[float, float] = (0.3, 2.0)
    stars: tuple[int, ...] = ()
    fwhm_arcsec: tuple[float, ...] = (PSF_FWHM_ARCSEC,)
    colours: float = 0.4
    within_range: bool = False


def draw_scenes(recipe: Recipe, count: int, seed: int) -> Scenes:
    """Draw scenes; the same for the same arguments."""
    rng = np.random.default_rng(seed)
    members, bands = recipe.members, len(recipe.fwhm_arcsec)
    shape = (count, members)
    magnitude = rng.uniform(*recipe.magnitude, count)[:, None] + np.zeros(members)
    magnitude[:, 1:] += rng.uniform(*recipe.fainter, (count, members - 1))
    if recipe.within_range:
        low, high = recipe.magnitude
        nearby = np.maximum(magnitude[:, :1] - 2.0, low), np.minimum(magnitude[:, :1] + 2.0, high)
        magnitude[:, 1:] = rng.uniform(*nearby, (count, members - 1))
    colour = recipe.colours * rng.standard_normal((count, bands, members))
    colour[:, 0] = 0.0
    flux = 10 ** (-0.4 * (magnitude[:, None] + colour - ZERO_POINT))
    index = rng.uniform(0.5, 4.0, shape)
    index[:, list(recipe.stars)] = 0.0
    radius = rng.uniform(0.2, 0.8, shape) / PIXEL_ARCSEC
    ellipticity = np.minimum(rng.rayleigh(0.25, shape), 0.65)
    angle = rng.uniform(0, 2 * np.pi, shape)
    g1, g2 = ellipticity * np.cos(angle), ellipticity * np.sin(angle)
    yx = np.stack([_places(recipe, rng) for _ in range(count)])
    psfs = [galsim.Moffat(beta=PSF_BETA, fwhm=fwhm / PIXEL_ARCSEC) for fwhm in recipe.fwhm_arcsec]
    images = rng.normal(0.0, NOISE_NJY, (count, bands, STAMP_PX, STAMP_PX))
    for scene in range(count):
        for source in range(members):
            profile = _profile(
                index[scene, source], radius[scene, source], g1[scene, source], g2[scene, source]
            )
            for band, psf in enumerate(psfs):
                light = profile.withFlux(flux[scene, band, source]) if profile else None
                images[scene, band] += draw_source(
                    light, psf, yx[scene, source], flux[scene, band, source]
                )
    given = yx + rng.normal(0.0, POSITION_ERR_PX, yx.shape)
    return Scenes(images.astype(np.float32), yx, given, flux, radius, index, g1, g2)


def draw_source(
    profile: galsim.GSObject | None, psf: galsim.GSObject, yx: Array, flux: float
) -> NDArray[np.float32]:
    """Draw one source, exactly: a convolution in Fourier space with GalSim's own accuracy; None is a star."""
    whole = psf.withFlux(flux) if profile is None else galsim.Convolve(profile, psf)
    middle = (STAMP_PX - 1) / 2.0
    image = whole.drawImage(
        nx=STAMP_PX, ny=STAMP_PX, scale=1.0, offset=(yx[1] - middle, yx[0] - middle)
    )
    return np.asarray(image.array, np.float32)


def _profile(index: float, radius: float, g1: float, g2: float) -> galsim.GSObject | None:
    if index == 0.0:
        return None
    # GalSim tabulates each index anew, which costs more than drawing it.
    return galsim.Sersic(n=round(index, 2), half_light_radius=radius).shear(g1=g1, g2=g2)


def _places(recipe: Recipe, rng: np.random.Generator) -> Array:
    """Place the sources, their middle at the stamp's middle give or take half a pixel."""
    nearest, furthest = (each / PIXEL_ARCSEC for each in recipe.separation_arcsec)
    places = [np.zeros(2)]
    while len(places) < recipe.members:
        distance, angle = rng.uniform(nearest, furthest), rng.uniform(0, 2 * np.pi)
        new = places[0] + distance * np.array([np.sin(angle), np.cos(angle)])
        if min(np.hypot(*(new - each)) for each in places) >= nearest - 1e-9:
            places.append(new)
    yx = np.array(places)
    middle = (yx.min(axis=0) + yx.max(axis=0)) / 2.0
    return np.asarray(yx - middle + (STAMP_PX - 1) / 2.0 + rng.uniform(-0.5, 0.5, 2), np.float64)
