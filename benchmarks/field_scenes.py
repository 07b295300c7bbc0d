"""Fields for ``end_to_end.py``: drawn by GalSim from a population of their own, stars and all."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import galsim
import numpy as np
from astropy.io import fits
from astropy.wcs import WCS
from numpy.typing import NDArray

from deblend_batch.simulate.presets import Preset, get_preset

Array = NDArray[np.float64]

_COUNT_SLOPE = 0.3  # d log10 N / d mag of galaxies
_BRIGHTEST = 18.0
_SIZE_AT_23 = 0.35  # arcsec, half-light, F814W of COSMOS
_SIZE_SLOPE = -0.085
_SIZE_SCATTER = 0.19
_CLUSTERED = 0.45
_NEIGHBOUR_ARCSEC = (0.3, 3.0)
_CLUMPY = 0.35
_STARS = 0.1  # high galactic latitude: about one in a square arcminute and magnitude
_LARGE_RADIUS_ARCSEC = 4.0


@dataclass(frozen=True)
class FieldScene:
    """A field as it is.

    Parameters
    ----------
    preset : Preset
        Whose pixels, PSF and noise.
    image : ndarray of float32, shape (y, x)
        Image units.
    yx : ndarray, shape (source, 2)
        Positions.
    mag : ndarray, shape (source,)
        AB magnitudes.
    is_star, is_saturated : ndarray of bool, shape (source,)
        What they are.
    snr : ndarray, shape (source,)
        Of the whole flux, with the best weights, if it were alone.
    saturate : float
        Level at which pixels are clipped.
    psf_fwhm_px : float
        Full width at half maximum.
    """

    preset: Preset
    image: NDArray[np.float32]
    yx: Array
    mag: Array
    is_star: NDArray[np.bool_]
    is_saturated: NDArray[np.bool_]
    snr: Array
    saturate: float
    psf_fwhm_px: float


def draw_field(name: str, size: int, seed: int, per_arcmin2: float = 80.0) -> FieldScene:
    """Draw a field; the same for the same arguments.

    Galaxies are bulges and discs, a third of them with clumps in the disc; nearly half stand within 3 arcsec
    of another. One in ten sources is a star, bright or faint alike; two are saturated, one galaxy is large.
    """
    rng, preset = np.random.default_rng(seed), get_preset(name)
    scale, fwhm = preset.pixel_scale_arcsec, preset.psf.fwhm_arcsec / preset.pixel_scale_arcsec
    psf = _psf(preset, fwhm)
    count = max(12, int(per_arcmin2 * (size * scale / 60) ** 2))
    faintest = preset.magnitude_range[1]
    mag = _magnitudes(rng, count, faintest)
    is_star = rng.random(count) < _STARS
    mag[is_star] = rng.uniform(_BRIGHTEST - 1.0, faintest, int(is_star.sum()))
    yx = _places(rng, count, size, scale)
    mag[:3], is_star[:3] = (
        (_BRIGHTEST - 3.0, _BRIGHTEST - 2.0, _BRIGHTEST - 0.5),
        (True, True, False),
    )
    yx[:3] = rng.uniform(0.2 * size, 0.8 * size, (3, 2))
    image = np.zeros((size, size), np.float64)
    snr = np.zeros(count)
    for row in range(count):
        flux = preset.flux(float(mag[row]))
        large = _LARGE_RADIUS_ARCSEC if row == 2 else None
        light = None if is_star[row] else _galaxy(rng, mag[row], scale, large).withFlux(flux)
        whole = psf.withFlux(flux) if light is None else galsim.Convolve(light, psf)
        snr[row] = _add(image, whole, yx[row], preset.noise_sigma)
    saturate = preset.flux(_BRIGHTEST - 1.0) * _peak(psf)
    image += rng.normal(0.0, preset.noise_sigma, image.shape)
    is_saturated = is_star & (mag < _BRIGHTEST - 1.0)
    image = np.minimum(image, saturate)
    return FieldScene(
        preset, image.astype(np.float32), yx, mag, is_star, is_saturated, snr, saturate, fwhm
    )


def write_fits(scene: FieldScene, path: Path) -> None:
    """Write the image as a survey would: zero point, saturation level, filter, celestial WCS; no PSF."""
    size, scale = scene.image.shape[0], scene.preset.pixel_scale_arcsec / 3600
    wcs = WCS(naxis=2)
    wcs.wcs.ctype = ["RA---TAN", "DEC--TAN"]
    wcs.wcs.crval, wcs.wcs.crpix = [150.0, 2.0], [size / 2, size / 2]
    wcs.wcs.cdelt = [-scale, scale]
    header = wcs.to_header()
    header["MAGZERO"], header["SATURATE"] = scene.preset.zero_point, scene.saturate
    header["FILTER"], header["PHOTSYS"] = scene.preset.band, "AB"
    fits.writeto(path, scene.image, header, overwrite=True)


def _psf(preset: Preset, fwhm: float) -> galsim.GSObject:
    model = preset.psf
    if model.kind == "moffat":
        return galsim.Moffat(beta=model.beta, fwhm=fwhm)
    core = galsim.Airy(lam_over_diam=1.0, obscuration=model.obscuration)
    jitter = galsim.Gaussian(fwhm=np.sqrt(1.0 / model.diffraction_fraction**2 - 1.0))
    blurred = galsim.Convolve(core, jitter)
    return blurred.dilate(fwhm / blurred.calculateFWHM())


def _peak(psf: galsim.GSObject) -> float:
    return float(psf.drawImage(nx=33, ny=33, scale=1.0).array.max())


def _magnitudes(rng: np.random.Generator, count: int, faintest: float) -> Array:
    low, high = (10 ** (_COUNT_SLOPE * mag) for mag in (_BRIGHTEST, faintest))
    return np.asarray(np.log10(rng.uniform(low, high, count)) / _COUNT_SLOPE)


def _places(rng: np.random.Generator, count: int, size: int, scale: float) -> Array:
    yx = rng.uniform(8, size - 8, (count, 2))
    for row in np.flatnonzero(rng.random(count) < _CLUSTERED):
        distance, angle = rng.uniform(*_NEIGHBOUR_ARCSEC) / scale, rng.uniform(0, 2 * np.pi)
        beside = yx[rng.integers(count)] + distance * np.array([np.sin(angle), np.cos(angle)])
        yx[row] = np.clip(beside, 4, size - 5)
    return yx


def _galaxy(
    rng: np.random.Generator, mag: float, scale: float, radius_arcsec: float | None
) -> galsim.GSObject:
    """Draw a bulge in a disc, of flux one; lengths in px."""
    drawn = _SIZE_AT_23 * 10 ** (_SIZE_SLOPE * (mag - 23) + _SIZE_SCATTER * rng.standard_normal())
    radius = (radius_arcsec or float(np.clip(drawn, 0.08, 2.5))) / scale
    share = 1.0 if rng.random() < 0.1 else float(rng.beta(1.2, 3.5))
    ellipticity, angle = min(float(rng.rayleigh(0.22)), 0.6), rng.uniform(0, 2 * np.pi)
    shape = galsim.Shear(g=ellipticity, beta=angle * galsim.radians)
    disc = galsim.Exponential(half_light_radius=radius)
    if rng.random() < _CLUMPY:
        knots = galsim.RandomKnots(
            npoints=int(rng.integers(8, 40)),
            profile=disc,
            rng=galsim.BaseDeviate(int(rng.integers(1, 1 << 30))),
        )
        clumpy = float(rng.uniform(0.05, 0.3))
        disc = (1 - clumpy) * disc + clumpy * knots
    bulge = galsim.DeVaucouleurs(half_light_radius=0.5 * radius)
    if share == 1.0:
        return bulge.shear(shape)
    return share * bulge.shear(g=0.5 * shape.g, beta=shape.beta) + (1 - share) * disc.shear(shape)


def _add(image: Array, light: galsim.GSObject, yx: Array, noise: float) -> float:
    """Draw a source into the image; return its signal to noise."""
    stamp = min(light.getGoodImageSize(1.0), 400)
    corner = np.rint(yx).astype(int) - stamp // 2
    middle = (stamp - 1) / 2
    offset = yx - corner - middle
    drawn = light.drawImage(
        nx=stamp, ny=stamp, scale=1.0, offset=(offset[1], offset[0]), dtype=np.float64
    ).array
    low, high = np.maximum(corner, 0), np.minimum(corner + stamp, image.shape)
    inside = tuple(slice(a, b) for a, b in zip(low, high, strict=True))
    own = tuple(slice(a, b) for a, b in zip(low - corner, high - corner, strict=True))
    image[inside] += drawn[own]
    return float(np.sqrt((drawn**2).sum()) / noise)
