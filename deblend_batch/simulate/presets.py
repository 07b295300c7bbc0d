"""Instrument presets: what one pixel, the PSF, the noise and the sample of a survey look like."""

from __future__ import annotations

import difflib
from dataclasses import dataclass
from typing import Literal

from deblend_batch.errors import ConfigError


@dataclass(frozen=True)
class PsfModel:
    """Shape of a point-spread function and how much it varies.

    Parameters
    ----------
    kind : {"airy", "moffat"}
        ``"airy"``: an obscured aperture blurred by Gaussian jitter (space); ``"moffat"``: seeing (ground).
    fwhm_arcsec : float
        Full width at half maximum of the optical PSF, before the pixel.
    fwhm_spread : float
        Standard deviation of the natural logarithm of the width from one PSF to the next.
    obscuration : float
        Linear central obscuration of the aperture; ``"airy"`` only.
    diffraction_fraction : float
        Width of the Airy core over the total width; the rest is jitter. ``"airy"`` only.
    beta : float
        Moffat index; ``"moffat"`` only.
    ellipticity : float
        Largest ellipticity (1 - q) / (1 + q) of a PSF.
    """

    kind: Literal["airy", "moffat"]
    fwhm_arcsec: float
    fwhm_spread: float
    obscuration: float = 0.0
    diffraction_fraction: float = 0.8
    beta: float = 3.0
    ellipticity: float = 0.03


@dataclass(frozen=True)
class Preset:
    """One survey's images, as far as a simulated galaxy needs them.

    Parameters
    ----------
    name : str
        Name used on the command line.
    band : str
        Filter.
    pixel_scale_arcsec : float
        Size of a pixel.
    psf : PsfModel
        The point-spread function.
    noise_sigma : float
        Background rms per pixel in image units, as if pixels were independent.
    noise_spread : float
        Standard deviation of the natural logarithm of the rms across the survey.
    zero_point : float
        AB magnitude of one image unit.
    magnitude_range : tuple of float
        Brightest and faintest AB magnitude drawn.
    magnitude_slope : float
        d log10 N / d mag of the drawn sample; shallower than nature's counts, so that bright galaxies are
        not rare.
    i814_minus_band : float
        Typical colour F814W - band of the sample: the structural distributions are known in F814W.
    source : str
        Where the numbers come from.
    radius_factor : float
        Radii in this band over those in F814W.
    spheroid_radius_factor : float
        The same for galaxies that are all spheroid.
    type_weights : tuple of float
        Factors on the shares of spheroids, bulge + disc, discs and irregulars among F814W galaxies.
    """

    name: str
    band: str
    pixel_scale_arcsec: float
    psf: PsfModel
    noise_sigma: float
    noise_spread: float
    zero_point: float
    magnitude_range: tuple[float, float]
    magnitude_slope: float
    i814_minus_band: float
    source: str
    radius_factor: float = 1.0
    spheroid_radius_factor: float = 1.0
    type_weights: tuple[float, float, float, float] = (1.0, 1.0, 1.0, 1.0)

    @property
    def psf_fwhm_px(self) -> float:
        """Nominal PSF width in pixels."""
        return self.psf.fwhm_arcsec / self.pixel_scale_arcsec

    def flux(self, magnitude: float) -> float:
        """Return the flux of an AB magnitude in image units."""
        return float(10 ** (-0.4 * (magnitude - self.zero_point)))


_PRESETS = (
    Preset(
        name="candels-h",
        band="F160W",
        pixel_scale_arcsec=0.06,
        psf=PsfModel(
            "airy", 0.18, 0.03, obscuration=0.36, diffraction_fraction=0.75, ellipticity=0.02
        ),
        noise_sigma=0.006,
        noise_spread=0.25,
        zero_point=25.96,
        magnitude_range=(18.0, 23.0),
        magnitude_slope=0.18,
        i814_minus_band=1.2,
        source="Boucaud et al. 2020, MNRAS 491, 2481 (zero point, 18 < H < 23; counts, types and radii by "
        "type of its released test galaxies); Koekemoer et al. 2011, ApJS 197, 36 (CANDELS Wide: 0.06 "
        "arcsec, PSF 0.18 arcsec, depth H = 26.8 at 5 sigma); ApJ 788, 28, 2014 (radii "
        "fall with wavelength)",
        radius_factor=0.88,
        spheroid_radius_factor=0.5,
        type_weights=(1.7, 1.2, 0.65, 0.9),
    ),
    Preset(
        name="euclid-vis",
        band="VIS",
        pixel_scale_arcsec=0.1,
        psf=PsfModel(
            "airy", 0.165, 0.04, obscuration=0.33, diffraction_fraction=0.75, ellipticity=0.05
        ),
        noise_sigma=0.0042,
        noise_spread=0.1,
        zero_point=24.6,
        magnitude_range=(18.5, 24.0),
        magnitude_slope=0.2,
        i814_minus_band=-0.2,
        source="Euclid Collaboration: Cropper et al. 2025, A&A 697, A2 (VIS: 0.1 arcsec, PSF 0.16-0.18 "
        "arcsec); zero point and rms per pixel of a Euclid Q1 VIS exposure's header and RMS plane",
    ),
    Preset(
        name="hst-acs",
        band="F814W",
        pixel_scale_arcsec=0.03,
        psf=PsfModel(
            "airy", 0.095, 0.04, obscuration=0.33, diffraction_fraction=0.7, ellipticity=0.04
        ),
        noise_sigma=0.006,
        noise_spread=0.15,
        zero_point=25.94,
        magnitude_range=(18.5, 24.0),
        magnitude_slope=0.2,
        i814_minus_band=0.0,
        source="Koekemoer et al. 2007, ApJS 172, 196 (COSMOS F814W mosaics drizzled to 0.03 arcsec, one "
        "orbit, 5 sigma depth 27.2 in 0.24 arcsec); Leauthaud et al. 2007, ApJS 172, 219 (PSF)",
    ),
    Preset(
        name="lsst-i",
        band="i",
        pixel_scale_arcsec=0.2,
        psf=PsfModel("moffat", 0.7, 0.08, beta=3.5, ellipticity=0.05),
        noise_sigma=2.6,
        noise_spread=0.15,
        zero_point=31.4,
        magnitude_range=(18.0, 24.5),
        magnitude_slope=0.2,
        i814_minus_band=-0.1,
        source="Ivezic et al. 2019, ApJ 873, 111 (0.2 arcsec, ten-year i depth 26.8 for a point source, "
        "0.7 arcsec seeing); rms = f5 / (5 sqrt(2.266 (FWHM / pixel)^2)), pixels in nJy",
    ),
    Preset(
        name="hsc-i",
        band="i",
        pixel_scale_arcsec=0.168,
        psf=PsfModel("moffat", 0.6, 0.1, beta=3.5, ellipticity=0.04),
        noise_sigma=0.075,
        noise_spread=0.15,
        zero_point=27.0,
        magnitude_range=(18.0, 24.0),
        magnitude_slope=0.2,
        i814_minus_band=-0.1,
        source="Aihara et al. 2022, PASJ 74, 247 (HSC-SSP PDR3 Wide: 0.168 arcsec, median i seeing 0.6 "
        "arcsec, 5 sigma point-source depth 26.2, coadds on zero point 27)",
    ),
    Preset(
        name="kids-r",
        band="r",
        pixel_scale_arcsec=0.2,
        psf=PsfModel("moffat", 0.68, 0.1, beta=3.0, ellipticity=0.04),
        noise_sigma=2.2,
        noise_spread=0.15,
        zero_point=30.0,
        magnitude_range=(17.5, 23.5),
        magnitude_slope=0.2,
        i814_minus_band=-0.6,
        source="Kuijken et al. 2019, A&A 625, A2 (KiDS DR4: 0.2 arcsec coadds, mean r seeing 0.7 arcsec, "
        "5 sigma depth 25.0 in 2 arcsec); scaled to zero point 30",
    ),
)


def preset_names() -> tuple[str, ...]:
    """Return the names of all presets, in the order of their definition."""
    return tuple(preset.name for preset in _PRESETS)


def get_preset(name: str) -> Preset:
    """Look a preset up."""
    for preset in _PRESETS:
        if preset.name == name:
            return preset
    near = difflib.get_close_matches(name, preset_names(), n=1, cutoff=0.0)[0]
    raise ConfigError(
        f"preset {name!r} is unknown; did you mean {near!r}? (one of {', '.join(preset_names())})"
    )
