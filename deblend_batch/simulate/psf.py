"""Point-spread functions, as GalSim profiles and on the Fourier grid where galaxies are convolved."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import galsim
import numpy as np
from numpy.typing import NDArray

from deblend_batch.simulate.presets import PsfModel

_WIDE_BETA = (2.5, 5.0)
_WIDE_DIFFRACTION = (0.5, 0.95)
_KERNEL_WIDTHS = 8.0


@dataclass(frozen=True)
class Psf:
    """One point-spread function.

    Parameters
    ----------
    model : PsfModel
        Family and shape.
    fwhm_px : float
        Full width at half maximum in pixels, before the pixel.
    e1, e2 : float
        Reduced shear components of its ellipticity.
    """

    model: PsfModel
    fwhm_px: float
    e1: float
    e2: float

    def profile(self) -> galsim.GSObject:
        """Return the GalSim profile, flux one, in units of pixels, without the pixel."""
        if self.model.kind == "moffat":
            round_one = galsim.Moffat(beta=self.model.beta, fwhm=self.fwhm_px)
        else:
            unit, width = _airy(self.model.obscuration, self.model.diffraction_fraction)
            round_one = unit.dilate(self.fwhm_px / width)
        return round_one.shear(g1=self.e1, g2=self.e2)


@lru_cache(maxsize=64)
def _airy(obscuration: float, diffraction_fraction: float) -> tuple[galsim.GSObject, float]:
    """Return an Airy pattern with jitter and its width; it scales, so that one measurement serves all."""
    core = galsim.Airy(lam_over_diam=1.0, obscuration=obscuration)
    jitter = np.sqrt(1.0 / diffraction_fraction**2 - 1.0)
    blurred = galsim.Convolve(core, galsim.Gaussian(fwhm=jitter)) if jitter > 0.05 else core
    return blurred, float(blurred.calculateFWHM())


def draw_kernel(psf: Psf) -> NDArray[np.float32]:
    """Draw the image of a point source on the middle pixel, float32 (y, x); unit sum, the pixel included."""
    size = 2 * int(np.ceil(_KERNEL_WIDTHS * psf.fwhm_px)) + 1
    star = galsim.Convolve(psf.profile(), galsim.Pixel(1.0))
    drawn = star.drawImage(nx=size, ny=size, scale=1.0, method="no_pixel").array
    return np.asarray(drawn / drawn.sum(dtype=np.float64), np.float32)


def draw_psf(model: PsfModel, pixel_scale_arcsec: float, rng: np.random.Generator) -> Psf:
    """Draw a PSF from a preset's own variation.

    Parameters
    ----------
    model : PsfModel
        The preset's PSF.
    pixel_scale_arcsec : float
        Size of a pixel.
    rng : numpy.random.Generator
        Source of randomness.
    """
    width = (
        model.fwhm_arcsec / pixel_scale_arcsec * np.exp(model.fwhm_spread * rng.standard_normal())
    )
    return _with_ellipticity(model, float(width), rng)


def draw_wide_psf(
    fwhm_px: tuple[float, float], ellipticity: float, rng: np.random.Generator
) -> Psf:
    """Draw a PSF of any family and of a width uniform in its logarithm, to train for many instruments.

    Parameters
    ----------
    fwhm_px : tuple of float
        Narrowest and widest PSF, in pixels.
    ellipticity : float
        Largest ellipticity.
    rng : numpy.random.Generator
        Source of randomness.
    """
    width = float(np.exp(rng.uniform(*np.log(fwhm_px))))
    if rng.random() < 0.6:
        share = round(float(rng.uniform(*_WIDE_DIFFRACTION)) * 20) / 20
        model = PsfModel("airy", 1.0, 0.0, 0.33, share, ellipticity=ellipticity)
    else:
        model = PsfModel(
            "moffat", 1.0, 0.0, beta=float(rng.uniform(*_WIDE_BETA)), ellipticity=ellipticity
        )
    return _with_ellipticity(model, width, rng)


def _with_ellipticity(model: PsfModel, fwhm_px: float, rng: np.random.Generator) -> Psf:
    size, angle = model.ellipticity * np.sqrt(rng.random()), 2 * np.pi * rng.random()
    return Psf(model, fwhm_px, float(size * np.cos(angle)), float(size * np.sin(angle)))


def transfer_function(psf: Psf, size: int, oversampling: int) -> NDArray[np.complex64]:
    """Return the Fourier transform of PSF and pixel on the grid of ``scipy.fft.rfft2``.

    Parameters
    ----------
    psf : Psf
        The PSF.
    size : int
        Side of the square grid, in samples.
    oversampling : int
        Samples per pixel and axis.

    Returns
    -------
    numpy.ndarray
        complex64 (size, size // 2 + 1); one at zero frequency.
    """
    return fourier_image(galsim.Convolve(psf.profile(), galsim.Pixel(1.0)), size, oversampling)


def fourier_image(profile: galsim.GSObject, size: int, oversampling: int) -> NDArray[np.complex64]:
    """Sample the Fourier transform of a profile (in pixels) on the grid of ``scipy.fft.rfft2``.

    Parameters
    ----------
    profile : galsim.GSObject
        Profile in units of pixels, its origin at sample (0, 0).
    size : int
        Side of the square grid, in samples; even.
    oversampling : int
        Samples per pixel and axis.

    Returns
    -------
    numpy.ndarray
        complex64 (size, size // 2 + 1).
    """
    half = size // 2
    scale = 2 * np.pi * oversampling / size
    image = galsim.ImageCF(galsim.BoundsI(0, half, -half, half - 1), scale=scale)
    profile.drawKImage(image=image, recenter=False)
    return np.asarray(np.fft.ifftshift(image.array, axes=0), np.complex64)
