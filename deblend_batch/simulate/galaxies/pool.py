"""A pool of isolated galaxies: drawn once and reused for every pair."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any, Literal

import numpy as np
import psutil
from numpy.typing import NDArray

from deblend_batch.errors import ConfigError
from deblend_batch.simulate import groups
from deblend_batch.simulate.galaxies.population import KINDS
from deblend_batch.storage import Options

Split = Literal["train", "validation", "test"]
SPLITS: tuple[Split, ...] = ("train", "validation", "test")
_SPLIT_EDGES = (0.8, 0.9)
_STORED_PEAK = 1000.0
_MARKER = "deblend_batch_galaxy_pool"
_REMEDY = "draw one and save it with save_pool"


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
        int8 (n,), index into ``KINDS``, or ``UNKNOWN_KIND``.
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

    @property
    def columns(self) -> tuple[str, ...]:
        """Names of the arrays."""
        return _ARRAYS

    def rows(self, split: Split) -> NDArray[np.int64]:
        """Return the rows of one side of the split, int64, ascending."""
        return np.flatnonzero(split_of(self.galaxy_id) == SPLITS.index(split))

    def stamp(self, row: int) -> NDArray[np.float32]:
        """Return one galaxy with unit total flux, float32 (y, x)."""
        image: NDArray[np.float32] = self.images[row].astype(np.float32)
        image *= self.unit[row]
        return image

    @classmethod
    def pack(cls, galaxies: Sequence[Mapping[str, Any]], preset: str) -> GalaxyPool:
        """Build a pool from single galaxies.

        Parameters
        ----------
        galaxies : sequence of mapping
            For each galaxy, ``image`` (float32 (y, x), unit total flux) and one value for every column of
            the pool but ``images`` and ``unit``.
        preset : str
            Name of the preset.

        Returns
        -------
        GalaxyPool
            The galaxies, in order, at half precision (relative to each pixel, so that faint wings survive).
        """
        unit = np.array([one["image"].max() / _STORED_PEAK for one in galaxies], np.float32)
        images = [
            (one["image"] / u).astype(np.float16) for one, u in zip(galaxies, unit, strict=True)
        ]
        columns: dict[str, Any] = {
            name: np.array([one[name] for one in galaxies], dtype)
            for name, dtype in _MEASURED.items()
        }
        return cls(images=np.array(images), unit=unit, preset=preset, **columns)

    @classmethod
    def concatenate(cls, chunks: list[GalaxyPool]) -> GalaxyPool:
        """Join chunks of one preset, in order."""
        if len({chunk.preset for chunk in chunks}) != 1:
            raise ConfigError(
                f"cannot join pools of presets {sorted({c.preset for c in chunks})}; give one or more of one"
            )
        columns = {name: np.concatenate([getattr(c, name) for c in chunks]) for name in _ARRAYS}
        return cls(preset=chunks[0].preset, **columns)


_MEASURED = {
    "galaxy_id": np.int64,
    "group": np.int32,
    "kind": np.int8,
    "mag": np.float32,
    "radius_px": np.float32,
    "axis_ratio": np.float32,
    "centre_yx": np.float32,
    "psf_fwhm_px": np.float32,
}
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


def save_pool(
    url: str, pool: GalaxyPool, options: Options | None = None, *, overwrite: bool = False
) -> None:
    """Write a pool as a Zarr group.

    Parameters
    ----------
    url : str
        Local path or fsspec URL.
    pool : GalaxyPool
        The galaxies.
    options : mapping, optional
        fsspec storage options.
    overwrite : bool
        Replace a pool that is there.
    """
    description = {"preset": pool.preset, "kinds": list(KINDS)}
    group = groups.create_group(url, _MARKER, description, options, overwrite=overwrite)
    for name in pool.columns:
        array = getattr(pool, name)
        chunks = (min(256, len(pool)), *array.shape[1:]) if name == "images" else array.shape
        group.create_array(name, data=array, chunks=chunks)
    groups.finish_group(group, _MARKER)


def load_pool(url: str, options: Options | None = None) -> GalaxyPool:
    """Read a pool that :func:`save_pool` wrote.

    Parameters
    ----------
    url : str
        The Zarr group.
    options : mapping, optional
        fsspec storage options.
    """
    group = groups.open_group(url, _MARKER, "galaxy pool", _REMEDY, options)
    arrays = {name: groups.open_array(group, url, name, _REMEDY) for name in _ARRAYS}
    size, free = sum(array.nbytes for array in arrays.values()), psutil.virtual_memory().available
    if size > free:
        raise ConfigError(
            f"{url}: the pool has {size:,} bytes, more than the {free:,} of memory that are free; "
            "draw fewer galaxies"
        )
    columns: dict[str, Any] = {name: array[...] for name, array in arrays.items()}
    return GalaxyPool(preset=str(group.attrs["preset"]), **columns)
