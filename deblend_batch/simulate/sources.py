"""Drawing the sources of a field, in this process or in several."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from deblend_batch.simulate.galaxies import Renderer
from deblend_batch.simulate.presets import Preset
from deblend_batch.simulate.processes import drawing_processes
from deblend_batch.simulate.psf import Psf
from deblend_batch.simulate.systems import Source

Task = tuple[Preset, int, Sequence[Source]]
"""Survey, seed of the field, sources to draw."""

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


Run = Callable[[Preset, int, Sequence[Source]], Iterable[DrawnSource]]


@contextmanager
def drawing(processes: int) -> Iterator[Run]:
    """Give a function that draws sources, in order.

    Parameters
    ----------
    processes : int
        Number of processes; they are spawned, so call from a guarded ``__main__``.

    Yields
    ------
    callable
        Takes the survey, the seed of the field and the sources; yields drawn sources.
    """
    if processes == 1:
        yield lambda preset, seed, sources: draw_sources((preset, seed, sources))
        return
    with drawing_processes(processes) as workers:

        def run(preset: Preset, seed: int, sources: Sequence[Source]) -> Iterator[DrawnSource]:
            tasks = [
                (preset, seed, sources[start : start + _PER_TASK])
                for start in range(0, len(sources), _PER_TASK)
            ]
            for drawn in workers.imap(draw_sources, tasks):
                yield from drawn

        yield run


def draw_sources(task: Task) -> list[DrawnSource]:
    """Draw sources; each has a random stream of its own, so that the order does not matter."""
    preset, seed, sources = task
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
    return Renderer(Psf(preset.psf, preset.psf_fwhm_px, 0.0, 0.0), size)
