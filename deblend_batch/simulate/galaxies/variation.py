"""How far a pool of galaxies departs from its preset."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from deblend_batch.simulate.presets import Preset

if TYPE_CHECKING:
    from deblend_batch.simulate.psf import Psf

_WIDE_ELLIPTICITY = 0.05


@dataclass(frozen=True)
class Variation:
    """Departures of a pool from its preset.

    Parameters
    ----------
    psf_fwhm_px : tuple of float, optional
        Narrowest and widest PSF in pixels, uniform in the logarithm, of any family; the preset's PSF if None.
    own_psf_fraction : float
        Share of the PSFs that are the preset's in spite of ``psf_fwhm_px``: fluxes hang on how much light
        the wings of a PSF hold, which no stamp shows.
    radius_factor : tuple of float
        Range of a factor on all radii, uniform in the logarithm.
    """

    psf_fwhm_px: tuple[float, float] | None = None
    own_psf_fraction: float = 0.0
    radius_factor: tuple[float, float] = (1.0, 1.0)

    def draw_psf(self, preset: Preset, rng: np.random.Generator) -> Psf:
        """Draw a PSF."""
        from deblend_batch.simulate.psf import draw_psf, draw_wide_psf  # GalSim takes seconds

        if self.psf_fwhm_px is None or rng.random() < self.own_psf_fraction:
            return draw_psf(preset.psf, preset.pixel_scale_arcsec, rng)
        return draw_wide_psf(self.psf_fwhm_px, _WIDE_ELLIPTICITY, rng)

    def draw_radius_factor(self, rng: np.random.Generator) -> float:
        """Draw the factor on the radii of one galaxy."""
        low, high = np.log(self.radius_factor)
        return float(np.exp(rng.uniform(low, high)))


WIDE = Variation(psf_fwhm_px=(1.6, 5.0), own_psf_fraction=0.3, radius_factor=(0.6, 1.5))
"""Covers HST and Euclid images with one pool; what shipped networks are trained on."""
