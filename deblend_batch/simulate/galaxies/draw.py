"""Drawing a pool of isolated galaxies, the same to the bit by any number of workers."""

from __future__ import annotations

import zlib
from typing import Any

import numpy as np

from deblend_batch.cluster.workers import ALONE, Workers
from deblend_batch.errors import ConfigError
from deblend_batch.progress import Progress, silent
from deblend_batch.simulate.galaxies.galaxy import Renderer
from deblend_batch.simulate.galaxies.pool import GalaxyPool
from deblend_batch.simulate.galaxies.population import KINDS, Population, Structure
from deblend_batch.simulate.galaxies.variation import WIDE, Variation
from deblend_batch.simulate.presets import Preset, get_preset

__all__ = ["WIDE", "Variation", "draw_chunk", "draw_magnitude", "draw_pool", "draw_structure"]

_ID_BITS = 32
_PER_TASK = 128
_RECIPE = 4  # counts changes of the drawn galaxies, so that an id never means two different ones


def draw_chunk(
    preset: Preset,
    seed: int,
    start: int,
    stop: int,
    *,
    variation: Variation | None = None,
    stamp_px: int = 128,
    group_size: int = 128,
) -> GalaxyPool:
    """Draw galaxies ``start`` to ``stop`` of the pool that a seed defines.

    Each galaxy and each PSF has a random stream of its own, so that any division into chunks gives the same
    pool to the bit.

    Parameters
    ----------
    preset : Preset
        Survey to imitate.
    seed : int
        Seed of the pool.
    start, stop : int
        Range of galaxies.
    variation : Variation, optional
        Departures from the preset; none by default.
    stamp_px : int
        Side of the stamps; even.
    group_size : int
        Galaxies per PSF.
    """
    variation = variation or Variation()
    recipe = f"{_RECIPE}/{preset.name}/{seed}/{variation}/{stamp_px}/{group_size}"
    base = (zlib.crc32(recipe.encode()) >> 1) << _ID_BITS
    galaxies = []
    for group in range(start // group_size, -(-stop // group_size)):
        rng = np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(0, group)))
        psf = variation.draw_psf(preset, rng)
        renderer = Renderer(psf, stamp_px)
        for row in range(max(start, group * group_size), min(stop, (group + 1) * group_size)):
            galaxy = _draw_galaxy(preset, seed, row, variation, renderer)
            galaxies.append(
                galaxy | {"galaxy_id": base + row, "group": group, "psf_fwhm_px": psf.fwhm_px}
            )
    return GalaxyPool.pack(galaxies, preset.name)


def _draw_galaxy(
    preset: Preset, seed: int, row: int, variation: Variation, renderer: Renderer
) -> dict[str, Any]:
    rng = np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(1, row)))
    magnitude = draw_magnitude(preset, rng)
    structure = draw_structure(preset, magnitude, rng)
    scale = variation.draw_radius_factor(rng) / preset.pixel_scale_arcsec
    drawing = renderer.draw(structure, scale, rng)
    return {
        "image": drawing.image,
        "kind": KINDS.index(structure.kind),
        "mag": magnitude,
        "radius_px": structure.radius_arcsec * scale,
        "axis_ratio": structure.axis_ratio,
        "centre_yx": drawing.centre_yx,
    }


def draw_magnitude(preset: Preset, rng: np.random.Generator) -> float:
    """Draw a magnitude from the preset's exponential counts."""
    bright, faint = preset.magnitude_range
    rate = preset.magnitude_slope * np.log(10.0)
    return float(bright + np.log1p(rng.random() * np.expm1(rate * (faint - bright))) / rate)


def draw_structure(preset: Preset, magnitude: float, rng: np.random.Generator) -> Structure:
    """Draw a galaxy as a survey would see it."""
    in_f814w = magnitude + preset.i814_minus_band
    structure = Population.shipped().draw(in_f814w, rng, preset.type_weights)
    all_spheroid = structure.disc is None
    return structure.scaled(preset.spheroid_radius_factor if all_spheroid else preset.radius_factor)


def draw_pool(
    preset: str | Preset,
    n: int,
    seed: int,
    *,
    variation: Variation | None = None,
    stamp_px: int = 128,
    group_size: int = 128,
    workers: Workers = ALONE,
    progress: Progress = silent,
) -> GalaxyPool:
    """Draw a pool of galaxies; the result does not depend on the workers.

    Parameters
    ----------
    preset : str or Preset
        Survey to imitate.
    n : int
        Number of galaxies.
    seed : int
        Seed of the pool.
    variation : Variation, optional
        Departures from the preset; none by default.
    stamp_px : int
        Side of the stamps; even.
    group_size : int
        Galaxies per PSF.
    workers : Workers
        Who draws; this process by default.
    progress : callable
        Told of the galaxies drawn.
    """
    if n < 1:
        raise ConfigError(f"a pool of {n} galaxies is empty; ask for at least 1")
    survey = get_preset(preset) if isinstance(preset, str) else preset
    size = -(-_PER_TASK // group_size) * group_size  # whole groups: their PSF is made once
    tasks = [(start, min(start + size, n)) for start in range(0, n, size)]
    chunks: list[GalaxyPool] = []
    for chunk in workers.map(_draw_task, tasks, survey, seed, variation, stamp_px, group_size):
        chunks.append(chunk)
        progress("galaxies", tasks[len(chunks) - 1][1], n)
    return GalaxyPool.concatenate(chunks)


def _draw_task(
    task: tuple[int, int],
    preset: Preset,
    seed: int,
    variation: Variation | None,
    stamp_px: int,
    group_size: int,
) -> GalaxyPool:
    return draw_chunk(
        preset, seed, *task, variation=variation, stamp_px=stamp_px, group_size=group_size
    )
