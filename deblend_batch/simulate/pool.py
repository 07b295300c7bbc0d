"""A pool of isolated galaxies: drawn once, in any number of processes, and reused for every pair."""

from __future__ import annotations

import multiprocessing
import zlib
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from typing import Any, Literal

import numpy as np
import zarr
from numpy.typing import NDArray

from deblend_batch.errors import ConfigError
from deblend_batch.simulate.galaxies import Renderer
from deblend_batch.simulate.population import KINDS, Population
from deblend_batch.simulate.presets import Preset, get_preset
from deblend_batch.simulate.psf import draw_psf, draw_wide_psf

Split = Literal["train", "validation", "test"]
SPLITS: tuple[Split, ...] = ("train", "validation", "test")
_SPLIT_EDGES = (0.8, 0.9)
_WIDE_ELLIPTICITY = 0.05
_STORED_PEAK = 1000.0
_ID_BITS = 32


@dataclass(frozen=True)
class Variation:
    """How far a pool departs from its preset.

    Parameters
    ----------
    psf_fwhm_px : tuple of float, optional
        Narrowest and widest PSF in pixels, uniform in the logarithm, of any family; the preset's PSF if None.
    radius_factor : tuple of float
        Range of a factor on all radii, uniform in the logarithm.
    """

    psf_fwhm_px: tuple[float, float] | None = None
    radius_factor: tuple[float, float] = (1.0, 1.0)


WIDE = Variation(psf_fwhm_px=(1.6, 5.0), radius_factor=(0.6, 1.5))
"""Covers HST and Euclid images with one pool; what shipped networks are trained on."""


@dataclass(frozen=True)
class GalaxyPool:
    """Noise-free galaxies; those of one group share one PSF.

    Parameters
    ----------
    images : numpy.ndarray
        float16 (n, y, x); ``images * unit[:, None, None]`` are stamps of unit total flux.
    unit : numpy.ndarray
        float32 (n,), value of one stored unit.
    galaxy_id : numpy.ndarray
        int64 (n,), unique over presets and seeds.
    group : numpy.ndarray
        int32 (n,), galaxies with the same PSF, ascending.
    kind : numpy.ndarray
        int8 (n,), index into ``KINDS``.
    mag : numpy.ndarray
        float32 (n,), AB magnitude.
    radius_px : numpy.ndarray
        float32 (n,), half-light radius along the major axis, before the PSF.
    axis_ratio : numpy.ndarray
        float32 (n,), minor over major axis of the brighter component.
    centre_yx : numpy.ndarray
        float32 (n, 2), windowed centroid in the stamp, 0-based pixel centres.
    psf_fwhm_px : numpy.ndarray
        float32 (n,), width of the PSF, before the pixel.
    preset : str
        Name of the preset.
    """

    images: NDArray[np.float16]
    unit: NDArray[np.float32]
    galaxy_id: NDArray[np.int64]
    group: NDArray[np.int32]
    kind: NDArray[np.int8]
    mag: NDArray[np.float32]
    radius_px: NDArray[np.float32]
    axis_ratio: NDArray[np.float32]
    centre_yx: NDArray[np.float32]
    psf_fwhm_px: NDArray[np.float32]
    preset: str

    def __len__(self) -> int:
        return int(self.galaxy_id.size)

    @property
    def stamp_px(self) -> int:
        """Side of the stamps."""
        return int(self.images.shape[1])

    def rows(self, split: Split) -> NDArray[np.int64]:
        """Return the rows of one side of the split, int64, ascending."""
        return np.flatnonzero(split_of(self.galaxy_id) == SPLITS.index(split))

    def stamp(self, row: int) -> NDArray[np.float32]:
        """Return one galaxy with unit total flux, float32 (y, x)."""
        return self.images[row].astype(np.float32) * self.unit[row]

    @classmethod
    def concatenate(cls, chunks: list[GalaxyPool]) -> GalaxyPool:
        """Join chunks of one preset, in order.

        Raises
        ------
        ConfigError
            If there is no chunk, or the chunks are of different presets.
        """
        if len({chunk.preset for chunk in chunks}) != 1:
            raise ConfigError(f"cannot join pools of presets {sorted({c.preset for c in chunks})}; give one or more of one")
        columns = {name: np.concatenate([getattr(c, name) for c in chunks]) for name in _ARRAYS}
        return cls(preset=chunks[0].preset, **columns)


_ARRAYS = tuple(one.name for one in fields(GalaxyPool) if one.name != "preset")


def split_of(galaxy_id: NDArray[np.int64]) -> NDArray[np.int8]:
    """Assign galaxies to train (80 %), validation and test (10 % each) by a hash of their id.

    Parameters
    ----------
    galaxy_id : numpy.ndarray
        int64 (n,).

    Returns
    -------
    numpy.ndarray
        int8 (n,), index into ``SPLITS``; the mixing function is splitmix64 (Steele et al. 2014).
    """
    x = galaxy_id.astype(np.uint64) + np.uint64(0x9E3779B97F4A7C15)
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    uniform = (x ^ (x >> np.uint64(31))) / 2.0**64
    return np.searchsorted(_SPLIT_EDGES, uniform, side="right").astype(np.int8)


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

    Returns
    -------
    GalaxyPool
        ``stop - start`` galaxies.
    """
    variation = variation or Variation()
    base = zlib.crc32(f"{preset.name}/{seed}/{variation}/{stamp_px}/{group_size}".encode()) >> 1
    pieces = []
    for group in range(start // group_size, -(-stop // group_size)):
        rows = range(max(start, group * group_size), min(stop, (group + 1) * group_size))
        pieces.append(_draw_group(preset, seed, group, rows, variation, stamp_px))
    pool = GalaxyPool.concatenate(pieces)
    return replace(pool, galaxy_id=pool.galaxy_id + (np.int64(base) << _ID_BITS))


def _draw_group(
    preset: Preset, seed: int, group: int, rows: range, variation: Variation, stamp_px: int
) -> GalaxyPool:
    rng = np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(0, group)))
    if variation.psf_fwhm_px is None:
        psf = draw_psf(preset.psf, preset.pixel_scale_arcsec, rng)
    else:
        psf = draw_wide_psf(variation.psf_fwhm_px, _WIDE_ELLIPTICITY, rng)
    renderer = Renderer(psf, stamp_px)
    drawn = [_draw_galaxy(preset, seed, row, variation, renderer) for row in rows]
    columns = {name: np.array([one[name] for one in drawn]) for name in drawn[0]}
    return GalaxyPool(
        galaxy_id=np.array(rows, np.int64),
        group=np.full(len(rows), group, np.int32),
        psf_fwhm_px=np.full(len(rows), psf.fwhm_px, np.float32),
        preset=preset.name,
        **columns,
    )


def _draw_galaxy(
    preset: Preset, seed: int, row: int, variation: Variation, renderer: Renderer
) -> dict[str, Any]:
    rng = np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(1, row)))
    magnitude = draw_magnitude(preset, rng)
    structure = Population.shipped().draw(magnitude + preset.i814_minus_band, rng)
    scale = float(np.exp(rng.uniform(*np.log(variation.radius_factor)))) / preset.pixel_scale_arcsec
    drawing = renderer.draw(structure, scale, rng)
    unit = np.float32(drawing.image.max() / _STORED_PEAK)
    return {
        "images": (drawing.image / unit).astype(np.float16),
        "unit": unit,
        "kind": np.int8(KINDS.index(structure.kind)),
        "mag": np.float32(magnitude),
        "radius_px": np.float32(structure.radius_arcsec * scale),
        "axis_ratio": np.float32(structure.axis_ratio),
        "centre_yx": drawing.centre_yx.astype(np.float32),
    }


def draw_magnitude(preset: Preset, rng: np.random.Generator) -> float:
    """Draw a magnitude from the preset's exponential counts.

    Parameters
    ----------
    preset : Preset
        The survey.
    rng : numpy.random.Generator
        Source of randomness.

    Returns
    -------
    float
        AB magnitude within the preset's range.
    """
    bright, faint = preset.magnitude_range
    rate = preset.magnitude_slope * np.log(10.0)
    return float(bright + np.log1p(rng.random() * np.expm1(rate * (faint - bright))) / rate)


def draw_pool(
    preset: str | Preset,
    n: int,
    seed: int,
    *,
    variation: Variation | None = None,
    stamp_px: int = 128,
    group_size: int = 128,
    processes: int = 1,
) -> GalaxyPool:
    """Draw a pool of galaxies in one or several processes; the result is the same.

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
    processes : int
        Number of processes (spawned, so call from a guarded ``__main__``).

    Returns
    -------
    GalaxyPool
        The galaxies.

    Raises
    ------
    ConfigError
        If the preset is unknown or ``n`` is not positive.
    """
    if n < 1:
        raise ConfigError(f"a pool of {n} galaxies is empty; ask for at least 1")
    survey = get_preset(preset) if isinstance(preset, str) else preset
    size = -(-max(64, n // (8 * processes)) // group_size) * group_size if n > group_size else n
    tasks = [
        (survey, seed, start, min(start + size, n), variation, stamp_px, group_size)
        for start in range(0, n, size)
    ]
    if processes == 1:
        return GalaxyPool.concatenate([_draw_task(task) for task in tasks])
    with multiprocessing.get_context("spawn").Pool(processes) as workers:
        return GalaxyPool.concatenate(workers.map(_draw_task, tasks, chunksize=1))


def _draw_task(task: tuple[Preset, int, int, int, Variation | None, int, int]) -> GalaxyPool:
    preset, seed, start, stop, variation, stamp_px, group_size = task
    return draw_chunk(
        preset, seed, start, stop, variation=variation, stamp_px=stamp_px, group_size=group_size
    )


def save_pool(url: str, pool: GalaxyPool, options: Mapping[str, Any] | None = None) -> None:
    """Write a pool as a Zarr group.

    Parameters
    ----------
    url : str
        Where; an existing group is replaced.
    pool : GalaxyPool
        The galaxies.
    options : mapping, optional
        fsspec ``storage_options``.
    """
    group = zarr.open_group(url, mode="w", zarr_format=3, storage_options=_options(url, options))
    for name in _ARRAYS:
        array = getattr(pool, name)
        chunks = (min(256, len(pool)), *array.shape[1:]) if name == "images" else array.shape
        group.create_array(name, data=array, chunks=chunks)
    group.attrs.update({"deblend_batch_galaxy_pool": 1, "preset": pool.preset, "kinds": list(KINDS)})


def load_pool(url: str, options: Mapping[str, Any] | None = None) -> GalaxyPool:
    """Read a pool that :func:`save_pool` wrote.

    Parameters
    ----------
    url : str
        The Zarr group.
    options : mapping, optional
        fsspec ``storage_options``.

    Returns
    -------
    GalaxyPool
        The galaxies, in memory.

    Raises
    ------
    ConfigError
        If there is no complete pool at ``url``.
    """
    try:
        group = zarr.open_group(url, mode="r", storage_options=_options(url, options))
    except FileNotFoundError as error:
        raise ConfigError(f"{url}: no galaxy pool here; draw one with draw_pool and save_pool") from error
    if group.attrs.get("deblend_batch_galaxy_pool") != 1:
        raise ConfigError(f"{url}: not a complete galaxy pool (attribute deblend_batch_galaxy_pool); draw it again")
    columns: dict[str, Any] = {name: group[name][...] for name in _ARRAYS}  # type: ignore[index]
    return GalaxyPool(preset=str(group.attrs["preset"]), **columns)


def _options(url: str, options: Mapping[str, Any] | None) -> dict[str, Any] | None:
    return dict(options) if options and "://" in url else None
