"""Pools of real galaxies: from GalSim's RealGalaxyCatalog files, and from the stamps of candels-blender.

Their stamps keep the noise that they were observed with. Only fade real galaxies, never brighten them, and add
a background well above their own noise, or the edges of the original stamps show.
"""

from __future__ import annotations

import os
import zlib
from typing import Any

import galsim
import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from deblend_batch.errors import ConfigError, NotFoundError
from deblend_batch.simulate.centroid import windowed_centroid
from deblend_batch.simulate.draw import Variation, pack, psf_for
from deblend_batch.simulate.pool import GalaxyPool
from deblend_batch.simulate.population import KINDS, UNKNOWN_KIND
from deblend_batch.simulate.presets import Preset, get_preset
from deblend_batch.simulate.psf import Psf

Image = NDArray[np.float32]

_ZERO_POINT_F814W = 25.94
_SMALLEST_RADIUS_PX = 0.3
_GROWN_PX = 5
_SEED_STAMP_PX = 128
_TRIPLET = ("candels_img.npy", "candels_seg.npy", "candels_cat.csv")


def pool_from_real_catalog(
    catalog: str,
    preset: str,
    *,
    variation: Variation | None = None,
    n_psfs: int = 4,
    seed: int = 0,
    fade_mag: float = 0.0,
    zero_point: float = _ZERO_POINT_F814W,
    stamp_px: int = 128,
) -> GalaxyPool:
    """See real galaxies through a survey's pixels and PSF.

    Parameters
    ----------
    catalog : str
        Local FITS file in GalSim's RealGalaxyCatalog format; images and PSFs are looked for beside it.
    preset : str
        Survey whose pixels and PSF are imitated; its PSF must be wider than that of the originals.
    variation : Variation, optional
        Departures from the preset's PSF; its radius factor magnifies.
    n_psfs : int
        Every galaxy is drawn once through each of so many PSFs, with the same ``galaxy_id``.
    seed : int
        Seed of PSFs, orientations and positions within the pixel.
    fade_mag : float
        Added to all magnitudes.
    zero_point : float
        AB magnitude of one unit of the originals' flux; COSMOS F814W by default.
    stamp_px : int
        Side of the stamps; even.

    Returns
    -------
    GalaxyPool
        ``n_psfs`` groups of all galaxies, of unknown type; pair them with ``split=None``.

    Raises
    ------
    NotFoundError
        If there is no such file.
    ConfigError
        If the preset is unknown, or ``fade_mag`` would brighten.
    """
    if fade_mag < 0:
        raise ConfigError(f"fade_mag {fade_mag} would brighten the galaxies and their noise; give 0 or more")
    if not os.path.exists(catalog):
        raise NotFoundError(f"{catalog}: no such file; give a RealGalaxyCatalog on this machine")
    survey = get_preset(preset)
    variation = variation or Variation()
    real = galsim.RealGalaxyCatalog(os.path.basename(catalog), dir=os.path.dirname(catalog) or ".")
    name = zlib.crc32(os.path.basename(catalog).encode()) >> 1
    columns: list[dict[str, Any]] = []
    for group in range(n_psfs):
        rng = np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(0, group)))
        psf = psf_for(survey, variation, rng)
        for index in range(real.nobjects):
            own = np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(1, group, index)))
            galaxy = galsim.RealGalaxy(real, index=index)
            magnification = variation.draw_radius_factor(own)
            image = _observed(galaxy.magnify(magnification**2), survey, psf, stamp_px, own)
            columns.append(
                {
                    **_measured(image / np.float32(image.sum()), psf.fwhm_px),
                    "mag": zero_point - 2.5 * np.log10(float(image.sum())) + fade_mag,
                    "galaxy_id": (name << 32) + index,
                    "group": group,
                    "kind": UNKNOWN_KIND,
                    "psf_fwhm_px": psf.fwhm_px,
                }
            )
    return _pool(columns, survey)
