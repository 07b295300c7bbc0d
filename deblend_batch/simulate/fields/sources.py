"""Drawing the sources of a field, the same by any number of workers."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from deblend_batch.cluster.workers import Workers
from deblend_batch.simulate.fields.systems import Source
from deblend_batch.simulate.galaxies.galaxy import Renderer
from deblend_batch.simulate.presets import Preset
from deblend_batch.simulate.psf import Psf

_STAMP_SIZES = (64, 128, 192, 320)
_STAMP_RADII = 9.0
_STAMP_WIDTHS = 8.0
_PER_TASK = 48

LARGEST_STAMP_PX = _STAMP_SIZES[-1]


@dataclass(frozen=True)
class DrawnSource:
    """A source on the pixels of a field.

    Parameters
    ----------
    source : Source
        What was drawn.
    first_yx : numpy.ndarray
        int64 (2,), pixel of the field on which the stamp's first pixel falls.
    yx : numpy.ndarray
        float64 (2,), windowed centroid in the field.
    stamp : numpy.ndarray
        float32 (y, x), noise-free flux per pixel in image units.
    """

    source: Source
    first_yx: NDArray[np.int64]
    yx: NDArray[np.float64]
    stamp: NDArray[np.float32]


def draw_in_order(
    sources: Sequence[Source], preset: Preset, seed: int, workers: Workers
) -> Iterator[DrawnSource]:
    """Draw the sources of a field, or of a part of it."""
    tasks = (sources[start : start + _PER_TASK] for start in range(0, len(sources), _PER_TASK))
    for drawn in workers.map(draw_sources, tasks, preset, seed):
        yield from drawn


def draw_sources(sources: Sequence[Source], preset: Preset, seed: int) -> list[DrawnSource]:
    """Draw sources; each has a random stream of its own, so that the order does not matter."""
    return [_draw(preset, seed, source) for source in sources]


def stamp_size(source: Source, preset: Preset) -> int:
    """Return the side of a source's stamp: nine half-light radii and eight PSF widths, up to the largest."""
    wanted = _STAMP_RADII * source.structure.radius_arcsec / preset.pixel_scale_arcsec
    wanted += _STAMP_WIDTHS * preset.psf_fwhm_px
    return next((size for size in _STAMP_SIZES if size >= wanted), LARGEST_STAMP_PX)


def _draw(preset: Preset, seed: int, source: Source) -> DrawnSource:
    rng = np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(14, source.id)))
    size = stamp_size(source, preset)
    drawn = _renderer(preset, size).draw(source.structure, 1 / preset.pixel_scale_arcsec, rng)
    first = source.near_yx - size // 2
    stamp = drawn.image * np.float32(preset.flux(source.mag))
    return DrawnSource(source, first, first + drawn.centre_yx, stamp)


@lru_cache(maxsize=16)
def _renderer(preset: Preset, size: int) -> Renderer:
    return Renderer(field_psf(preset), size)


def field_psf(preset: Preset) -> Psf:
    """Return the PSF of a simulated field, which is round and everywhere the same."""
    return Psf(preset.psf, preset.psf_fwhm_px, 0.0, 0.0)
