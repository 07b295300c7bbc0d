"""Where the galaxies of a simulated field are: isolated ones, pairs and groups on a jittered grid.

Nothing here depends on how a field is cut into tiles: system number k has a random stream of its own.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from deblend_batch.errors import ConfigError
from deblend_batch.simulate.galaxies.draw import draw_magnitude, draw_structure
from deblend_batch.simulate.galaxies.population import Structure
from deblend_batch.simulate.pairs.rules import offset_limits
from deblend_batch.simulate.presets import Preset

Floats = NDArray[np.float64]

_BORDER_SHARE = 0.5
_BORDER_REACH_PX = 4.0
_EDGE_PX = 6.0
_GROUP_SIZES = (3, 3, 3, 4, 5)
_MAX_MAG_DIFFERENCE = 2.0


@dataclass(frozen=True)
class Source:
    """One galaxy of a field, before it is drawn.

    Parameters
    ----------
    id : int
        Identifier, unique in the field.
    system : int
        Number of its system.
    companion : int or None
        Identifier of the other member, if the system is a pair.
    mag : float
        AB magnitude.
    structure : Structure
        Smooth structure.
    near_yx : numpy.ndarray
        int64 (2,), the pixel that it is drawn about; its exact position follows from the drawing.
    """

    id: int
    system: int
    companion: int | None
    mag: float
    structure: Structure
    near_yx: NDArray[np.int64]


@dataclass(frozen=True)
class SystemLayout:
    """The plan of a field.

    Parameters
    ----------
    preset : Preset
        Survey to imitate.
    shape_yx : tuple of int
        Rows and columns.
    n_pairs, n_isolated, n_groups : int
        Number of systems of two, one and at least three galaxies.
    seed : int
        Seed of the field.
    max_separation_arcsec : float
        No companion is farther from its central.
    tile_size : int
        Half of the pairs whose cell crosses a border of such tiles are moved onto the border.
    """

    preset: Preset
    shape_yx: tuple[int, int]
    n_pairs: int
    n_isolated: int
    n_groups: int
    seed: int
    max_separation_arcsec: float
    tile_size: int

    @property
    def n_systems(self) -> int:
        """Number of systems."""
        return self.n_pairs + self.n_isolated + self.n_groups

    @property
    def max_separation_px(self) -> float:
        """Largest distance of a companion from its central."""
        return self.max_separation_arcsec / self.preset.pixel_scale_arcsec

    @cached_property
    def grid_yx(self) -> tuple[int, int]:
        """Rows and columns of cells, at least as many as systems."""
        height, width = self.shape_yx
        rows = max(1, round(float(np.sqrt(self.n_systems * height / width))))
        columns = -(-self.n_systems // rows)
        cell, least = min(height / rows, width / columns), 1.2 * self.max_separation_px
        if cell < least:
            fit = int(height * width / least**2)
            raise ConfigError(
                f"{self.n_systems} systems in {height} x {width} px are too dense for pairs of up to "
                f"{self.max_separation_arcsec} arcsec; ask for at most {fit}, a larger field or closer pairs"
            )
        return rows, columns

    @cached_property
    def sizes(self) -> NDArray[np.int64]:
        """Number of members of each system, int64 (n_systems,), shuffled."""
        rng = np.random.default_rng(np.random.SeedSequence(self.seed, spawn_key=(10,)))
        groups = rng.choice(_GROUP_SIZES, self.n_groups)
        sizes = np.concatenate(
            [np.full(self.n_pairs, 2), np.ones(self.n_isolated, np.int64), groups]
        )
        return rng.permutation(sizes).astype(np.int64)

    @cached_property
    def cells(self) -> NDArray[np.int64]:
        """Cell of each system, int64 (n_systems,), ascending; surplus cells stay empty."""
        rng = np.random.default_rng(np.random.SeedSequence(self.seed, spawn_key=(11,)))
        rows, columns = self.grid_yx
        return np.sort(rng.permutation(rows * columns)[: self.n_systems])

    @cached_property
    def first_ids(self) -> NDArray[np.int64]:
        """Identifier of each system's first member, int64 (n_systems,), from 1."""
        return 1 + np.cumsum(self.sizes) - self.sizes

    def within(
        self, low_yx: tuple[float, float], high_yx: tuple[float, float], margin_px: float
    ) -> NDArray[np.int64]:
        """Return the systems whose cells come within ``margin_px`` of a rectangle of pixels, ascending."""
        rows, columns = self.grid_yx
        cell_y, cell_x = np.divmod(self.cells, columns)
        near = np.ones(self.n_systems, bool)
        for index, count, size, low, high in (
            (cell_y, rows, self.shape_yx[0], low_yx[0], high_yx[0]),
            (cell_x, columns, self.shape_yx[1], low_yx[1], high_yx[1]),
        ):
            edge = size / count
            near &= ((index + 1) * edge > low - margin_px) & (index * edge < high + margin_px)
        return np.flatnonzero(near)

    def members(self, system: int) -> list[Source]:
        """Draw the members of one system, the central first."""
        rng = np.random.default_rng(np.random.SeedSequence(self.seed, spawn_key=(12, system)))
        size = int(self.sizes[system])
        centre = self._place(system, size, rng)
        mags = self._magnitudes(size, rng)
        structures = [draw_structure(self.preset, mag, rng) for mag in mags]
        radii = np.array([one.radius_arcsec for one in structures]) / self.preset.pixel_scale_arcsec
        first = int(self.first_ids[system])
        near = [centre] + [self._beside(centre, radii[[0, k]], rng) for k in range(1, size)]
        partner = {0: first + 1, 1: first} if size == 2 else {}
        return [
            Source(
                first + k,
                system,
                partner.get(k),
                mags[k],
                structures[k],
                np.rint(near[k]).astype(np.int64),
            )
            for k in range(size)
        ]

    def _magnitudes(self, size: int, rng: np.random.Generator) -> list[float]:
        mags = [draw_magnitude(self.preset, rng)]
        while len(mags) < size:
            mag = draw_magnitude(self.preset, rng)
            if abs(mag - mags[0]) < _MAX_MAG_DIFFERENCE:
                mags.append(mag)
        return mags

    def _place(self, system: int, size: int, rng: np.random.Generator) -> Floats:
        """Position in the system's cell; pairs whose cell crosses a tile's border are often put on it."""
        position = np.empty(2)
        for axis, index in enumerate(np.divmod(self.cells[system], self.grid_yx[1])):
            edge = self.shape_yx[axis] / self.grid_yx[axis]
            free = max(edge - 1.5 * self.max_separation_px, 0.3 * edge)
            position[axis] = (index + 0.5) * edge + free * rng.uniform(-0.5, 0.5)
            border = np.rint((index + 0.5) * edge / self.tile_size) * self.tile_size - 0.5
            snapped = border + rng.uniform(-_BORDER_REACH_PX, _BORDER_REACH_PX)
            crosses = index * edge < border < (index + 1) * edge
            if rng.random() < _BORDER_SHARE and size == 2 and crosses:
                position[axis] = snapped
        return self._inside(position)

    def _beside(self, centre: Floats, radii: Floats, rng: np.random.Generator) -> Floats:
        """Position of a companion, by the rules of pairs."""
        width = np.array([self.preset.psf_fwhm_px])
        low, high = offset_limits(radii[None], width, 0.95 * self.max_separation_px)[0]
        distance, angle = np.sqrt(rng.uniform(low**2, high**2)), rng.uniform(0, 2 * np.pi)
        offset = distance * np.array([np.sin(angle), np.cos(angle)])
        return np.where(
            centre + offset == self._inside(centre + offset),
            centre + offset,
            self._inside(centre - offset),
        )

    def _inside(self, position: Floats) -> Floats:
        return np.clip(position, _EDGE_PX, np.array(self.shape_yx) - 1 - _EDGE_PX)
