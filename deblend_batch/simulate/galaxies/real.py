"""Pools of real galaxies: from GalSim's RealGalaxyCatalog files, and from the stamps of candels-blender.

Real stamps keep the noise that they were observed with. So only fade real galaxies, never brighten them, and
add a background well above their own noise, or the edges of the original stamps show.
"""

from __future__ import annotations

import io
import os
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import galsim
import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from deblend_batch import storage
from deblend_batch.cluster.workers import ALONE, Workers
from deblend_batch.detections.formats.scan import read_table
from deblend_batch.errors import ConfigError, NotFoundError
from deblend_batch.fits_structure import check_file
from deblend_batch.progress import Progress, silent
from deblend_batch.simulate.galaxies.centroid import windowed_centroid
from deblend_batch.simulate.galaxies.pool import GalaxyPool
from deblend_batch.simulate.galaxies.population import KINDS, UNKNOWN_KIND
from deblend_batch.simulate.galaxies.variation import Variation
from deblend_batch.simulate.presets import Preset, get_preset
from deblend_batch.simulate.psf import Psf
from deblend_batch.text import cause

Image = NDArray[np.float32]

_ZERO_POINT_F814W = 25.94
_ID_BITS = 32
_GROWN_PX = 5
_PER_TASK = 64
_MAX_IMAGE_PX = 1 << 24
_CANDELS_COLUMNS = ("ID", "mag", "radius", "galtype")
_ONE_RELEASE = "take all three files from one release"
CANDELS_FILES = _IMAGES, _SEGMENTS, _CATALOG = (
    "candels_img.npy",
    "candels_seg.npy",
    "candels_cat.csv",
)
"""The files of candels-blender, in a folder of any name."""
_MOST_BYTES = 1 << 28
"""What the catalogue of candels-blender may take in memory; it has some thousand rows."""


def pool_from_real_catalog(
    catalog: str,
    preset: str,
    *,
    variation: Variation | None = None,
    n_psfs: int = 4,
    number: int | None = None,
    seed: int = 0,
    fade_mag: float = 0.0,
    zero_point: float = _ZERO_POINT_F814W,
    stamp_px: int = 128,
    workers: Workers = ALONE,
    progress: Progress = silent,
) -> GalaxyPool:
    """See real galaxies through a survey's pixels and PSF.

    Parameters
    ----------
    catalog : str
        FITS file in GalSim's RealGalaxyCatalog format, where every worker sees it; images and PSFs are looked
        for beside it.
    preset : str
        Survey whose pixels and PSF are imitated; its PSF must be wider than that of the originals.
    variation : Variation, optional
        Departures from the preset's PSF and from the galaxies' sizes; none by default.
    n_psfs : int
        Every galaxy is drawn once through each of so many PSFs, with the same ``galaxy_id``.
    number : int, optional
        Use so many galaxies, chosen at random; all by default.
    seed : int
        Seed of PSFs, orientations and positions within the pixel, and of the choice.
    fade_mag : float
        Added to all magnitudes; the galaxies are as bright in the preset's band as they were observed.
    zero_point : float
        AB magnitude of one unit of the originals' flux; COSMOS F814W by default.
    stamp_px : int
        Side of the stamps; even.
    workers : Workers
        Who draws; changes no result.
    progress : callable
        Told of the galaxies drawn.

    Returns
    -------
    GalaxyPool
        ``n_psfs`` groups of all galaxies, of unknown type; pair them with ``split=None``.
    """
    if fade_mag < 0:
        raise ConfigError(f"fade_mag={fade_mag} brightens galaxies and their noise; give 0 or more")
    catalog = os.path.abspath(catalog)
    chosen = _choose(int(_open_catalog(catalog).nobjects), number, seed)
    plan = _Observation(
        catalog, get_preset(preset), variation or Variation(), seed, zero_point + fade_mag, stamp_px
    )
    tasks = [
        (group, chosen[start : start + _PER_TASK])
        for group in range(n_psfs)
        for start in range(0, len(chosen), _PER_TASK)
    ]
    chunks, drawn = [], 0
    for (_, rows), chunk in zip(tasks, workers.map(_observe, tasks, plan), strict=True):
        chunks.append(chunk)
        drawn += len(rows)
        progress("galaxies", drawn, n_psfs * len(chosen))
    return GalaxyPool.concatenate(chunks)


@dataclass(frozen=True)
class _Observation:
    """How real galaxies are seen."""

    catalog: str
    preset: Preset
    variation: Variation
    seed: int
    zero_point: float
    stamp_px: int


def _choose(n: int, number: int | None, seed: int) -> list[int]:
    if number is None or number >= n:
        return list(range(n))
    rng = np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(2,)))
    chosen: list[int] = np.sort(rng.permutation(n)[:number]).tolist()
    return chosen


@lru_cache(maxsize=1)
def _open_catalog(catalog: str) -> galsim.RealGalaxyCatalog:
    if not os.path.exists(catalog):
        raise NotFoundError(
            f"{catalog}: no such file; give a RealGalaxyCatalog that this machine, and every node, sees"
        )
    storage.check_regular(catalog)
    folder, name = os.path.split(catalog)
    try:
        check_file(catalog, _MAX_IMAGE_PX)
        real = galsim.RealGalaxyCatalog(name, dir=folder)
    except (OSError, LookupError, ValueError) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise ConfigError(
            f"{catalog}: not a RealGalaxyCatalog ({reason}); give the catalogue's FITS file"
        ) from error
    for wanted in sorted({*real.gal_file_name, *real.psf_file_name}):
        if storage.member(folder, os.path.basename(wanted)) != wanted:
            raise ConfigError(f"{catalog}: takes images or PSFs from {wanted}; put them beside it")
        if not os.path.exists(wanted):
            raise NotFoundError(f"{wanted}: no such file; {catalog} takes images or PSFs from it")
        storage.check_regular(wanted)
        check_file(wanted, _MAX_IMAGE_PX)
    return real


def _observe(task: tuple[int, list[int]], plan: _Observation) -> GalaxyPool:
    """See galaxies through the PSF of a group; each has a random stream of its own."""
    group, chosen = task
    rng = np.random.default_rng(np.random.SeedSequence(plan.seed, spawn_key=(0, group)))
    psf = plan.variation.draw_psf(plan.preset, rng)
    real = _open_catalog(plan.catalog)
    galaxies = []
    for index in chosen:
        own = np.random.default_rng(np.random.SeedSequence(plan.seed, spawn_key=(1, group, index)))
        factor = plan.variation.draw_radius_factor(own)
        galaxy = galsim.RealGalaxy(real, index=index)
        image = _observed(galaxy, factor, plan.preset, psf, plan.stamp_px, own)
        known: dict[str, Any] = {"galaxy_id": _galaxy_id(plan.catalog, index), "group": group}
        known |= {"kind": UNKNOWN_KIND, "psf_fwhm_px": psf.fwhm_px}
        known |= {"mag": plan.zero_point - 2.5 * np.log10(float(image.sum()))}
        galaxies.append(known | _measured(image, psf.fwhm_px))
    return GalaxyPool.pack(galaxies, plan.preset.name)


def pool_from_candels_blender(folder: str, options: storage.Options | None = None) -> GalaxyPool:
    """Take the isolated galaxies of candels-blender: real CANDELS H-band stamps, screened and typed by eye.

    Parameters
    ----------
    folder : str
        Local path or fsspec URL of the folder that holds ``candels_img.npy`` (galaxy, y, x),
        ``candels_seg.npy`` (segmentation of the same shape, the target's at the central pixel) and
        ``candels_cat.csv`` (columns ``ID``, ``mag``, ``radius`` in pixels, ``galtype``).
    options : mapping, optional
        fsspec storage options.
    """
    preset = get_preset("candels-h")
    images = _load_array(storage.join(folder, _IMAGES), options)
    segments = _load_array(storage.join(folder, _SEGMENTS), options)
    url = storage.join(folder, _CATALOG)

    def choose(names: Sequence[str]) -> Sequence[str]:
        missing = [name for name in _CANDELS_COLUMNS if name not in names]
        if missing:
            raise ConfigError(f"{url}: column {missing[0]!r} is missing; it has {', '.join(names)}")
        return _CANDELS_COLUMNS

    table = read_table(url, choose, options, most=_MOST_BYTES).to_pylist()
    if not images.shape == segments.shape == (len(table), *images.shape[1:]):
        raise ConfigError(
            f"{folder}: {len(table)} rows, images {images.shape} and segmentations {segments.shape} do not "
            f"belong together; {_ONE_RELEASE}"
        )
    galaxies = []
    for row, image, segment in zip(table, images, segments, strict=True):
        clean = _without_neighbours(image.astype(np.float32), segment, int(row["ID"]))
        clean /= np.float32(preset.flux(float(row["mag"])))
        measured = _measured(clean, preset.psf_fwhm_px, unit=1.0) | {
            "radius_px": float(row["radius"])
        }
        known: dict[str, Any] = {"galaxy_id": int(row["ID"]), "group": 0, "mag": float(row["mag"])}
        known |= {"kind": _kind(str(row["galtype"])), "psf_fwhm_px": preset.psf_fwhm_px}
        galaxies.append(known | measured)
    return GalaxyPool.pack(galaxies, preset.name)


def _observed(
    galaxy: galsim.GSObject,
    radius_factor: float,
    preset: Preset,
    psf: Psf,
    stamp_px: int,
    rng: np.random.Generator,
) -> Image:
    """Draw a real galaxy, turned and shifted at random, through the target's PSF; flux is kept."""
    scale = preset.pixel_scale_arcsec
    turned = galaxy.rotate(float(rng.uniform(0, 360)) * galsim.degrees).dilate(radius_factor)
    shift_y, shift_x = scale * rng.uniform(-0.5, 0.5, 2)
    target = galsim.ImageF(galsim.BoundsI(0, stamp_px - 1, 0, stamp_px - 1), scale=scale)
    seen = galsim.Convolve(turned.shift(shift_x, shift_y), psf.profile().dilate(scale))
    middle = galsim.PositionD(stamp_px // 2, stamp_px // 2)
    return np.asarray(seen.drawImage(target, center=middle).array, np.float32)


def _galaxy_id(catalog: str, index: int) -> int:
    return ((zlib.crc32(os.path.basename(catalog).encode()) >> 1) << _ID_BITS) + index


def _kind(name: str) -> int:
    return KINDS.index(name) if name in KINDS else UNKNOWN_KIND


def _measured(image: Image, psf_fwhm_px: float, unit: float | None = None) -> dict[str, Any]:
    """Measure what is known of a simulated galaxy: centre, axis ratio, radius before the PSF."""
    total = float(image.sum())
    radius = _half_light_radius(image, image.shape[0] // 2, total)
    centre = windowed_centroid(image, radius)
    ratio = _axis_ratio(image, centre, radius, psf_fwhm_px)
    intrinsic = np.sqrt(max(radius**2 - (psf_fwhm_px / 2) ** 2, 0.1))
    return {
        "image": image / np.float32(unit or total),
        "centre_yx": centre,
        "radius_px": intrinsic / np.sqrt(ratio),
        "axis_ratio": ratio,
    }


def _half_light_radius(image: Image, middle: int, total: float) -> float:
    """Radius of the circle about the central pixel that holds half the flux."""
    grid = np.arange(image.shape[0]) - middle
    distance = np.hypot(grid[:, None], grid)
    order = np.argsort(distance, axis=None)
    enclosed = np.cumsum(image.reshape(-1)[order])
    return float(distance.reshape(-1)[order][np.searchsorted(enclosed, 0.5 * total)])


def _axis_ratio(
    image: Image, centre: NDArray[np.float64], radius: float, psf_fwhm_px: float
) -> float:
    """Axis ratio from second moments within three half-light radii, less those of the PSF."""
    y, x = np.indices(image.shape) - centre[:, None, None]
    light = np.where(np.hypot(y, x) < 3 * radius, np.maximum(image, 0), 0)
    light = light / light.sum()
    moments = np.array([[(light * a * b).sum() for b in (y, x)] for a in (y, x)])
    low, high = np.maximum(np.linalg.eigvalsh(moments) - (psf_fwhm_px / 2.355) ** 2, 0.05)
    return float(np.clip(np.sqrt(low / high), 0.1, 1.0))


def _without_neighbours(image: Image, segment: NDArray[Any], seed: int) -> Image:
    """Replace all segments but the central one, grown by five pixels, by noise like the background's."""
    target = segment[image.shape[0] // 2, image.shape[1] // 2]
    others = (segment != 0) & (segment != target)
    background = segment == 0
    if not others.any() or not background.any():
        return image
    others = ndimage.binary_dilation(others, iterations=_GROWN_PX) & (segment != target)
    noise = np.random.default_rng(seed).normal(0, image[background].std(), int(others.sum()))
    clean = image.copy()
    clean[others] = noise
    return clean


def _load_array(url: str, options: storage.Options | None) -> NDArray[Any]:
    content = storage.read_bytes(url, options)
    try:
        return np.asarray(np.load(io.BytesIO(content), allow_pickle=False))
    except (ValueError, EOFError, MemoryError) as error:
        raise ConfigError(f"{url}: not a NumPy array ({cause(error)}); {_ONE_RELEASE}") from error
