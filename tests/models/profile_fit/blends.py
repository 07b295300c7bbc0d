"""Small blends for tests of the profile fit, drawn by GalSim."""

from __future__ import annotations

from typing import Any

import galsim
import numpy as np
import torch
from torch import Tensor

from deblend_batch.models.profile_fit.fit import fit_blends
from deblend_batch.models.profile_fit.light.psf import PsfStack, psf_from_fwhm
from deblend_batch.models.profile_fit.result import BlendFit

FWHM_PX = 1.8
NOISE = 5.0
PSF = PsfStack.of([[psf_from_fwhm(FWHM_PX)]])


def draw(
    flux: float,
    yx: tuple[float, float],
    *,
    radius: float = 4.0,
    index: float = 1.0,
    shear: tuple[float, float] = (0.0, 0.0),
    size: int = 40,
) -> Tensor:
    """Draw one source of a stamp; a radius of 0 is a star."""
    psf = galsim.Moffat(beta=3.5, fwhm=FWHM_PX)
    light = psf.withFlux(flux)
    if radius:
        galaxy = galsim.Sersic(n=index, half_light_radius=radius, flux=flux)
        light = galsim.Convolve(galaxy.shear(g1=shear[0], g2=shear[1]), psf)
    offset = (yx[1] - (size - 1) / 2, yx[0] - (size - 1) / 2)
    image = light.drawImage(nx=size, ny=size, scale=1.0, offset=offset, dtype=np.float64)
    return torch.from_numpy(image.array.copy())


def noise(seed: int, *shape: int) -> Tensor:
    """Noise of rms ``NOISE``."""
    generator = torch.Generator().manual_seed(seed)
    return NOISE * torch.randn(shape, generator=generator, dtype=torch.float64)


def psf_of(blends: int, bands: int = 1) -> PsfStack:
    """The same PSF for all."""
    return PsfStack(*(each.expand(blends, bands, *each.shape[2:]) for each in PSF))


def fit(image: Tensor, yx: list[tuple[float, float]], **changed: Any) -> BlendFit:
    """Fit one blend or several that share positions; ``image`` is (y, x) or (blend, band, y, x)."""
    image = image[(None,) * (4 - image.dim())]
    blends = len(image)
    arguments: dict[str, Any] = {
        "pixels": image,
        "weights": torch.full_like(image, NOISE**-2),
        "positions": torch.tensor(yx, dtype=torch.float64).expand(blends, -1, -1),
        "position_err": 0.5,
        "n_members": torch.full((blends,), len(yx)),
        "psf": psf_of(blends, image.shape[1]),
        "pixel_scale_arcsec": 0.1,
    }
    return fit_blends(**{**arguments, **changed})
