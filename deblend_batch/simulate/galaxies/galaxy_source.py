"""Where the galaxies of a set of pairs come from: simulated, a RealGalaxyCatalog, or candels-blender."""

from __future__ import annotations

from dataclasses import dataclass

from deblend_batch import storage
from deblend_batch.cluster.workers import ALONE, Workers
from deblend_batch.errors import ConfigError
from deblend_batch.progress import Progress, silent
from deblend_batch.simulate.galaxies.draw import draw_pool
from deblend_batch.simulate.galaxies.pool import GalaxyPool, Split
from deblend_batch.simulate.galaxies.real import (
    CANDELS_FILES,
    pool_from_candels_blender,
    pool_from_real_catalog,
)
from deblend_batch.simulate.presets import get_preset
from deblend_batch.storage import Options

_SIMULATED = 4000
_CANDELS_PRESET = "candels-h"


@dataclass(frozen=True)
class GalaxySource:
    """A user's choice of galaxies.

    Parameters
    ----------
    preset : str
        Survey to imitate.
    seed : int
        Seed of the galaxies.
    number : int, optional
        Galaxies to simulate, 4000 by default; of a real catalogue so many are chosen at random, or all.
    real_catalog : str, optional
        A file in GalSim's RealGalaxyCatalog format.
    candels_blender : str, optional
        Folder or URL of candels-blender's three files.
    """

    preset: str
    seed: int
    number: int | None = None
    real_catalog: str | None = None
    candels_blender: str | None = None

    def __post_init__(self) -> None:
        get_preset(self.preset)
        if self.real_catalog and self.candels_blender:
            raise ConfigError("--real-catalog and --candels-blender exclude each other; give one")
        if self.candels_blender and self.number is not None:
            raise ConfigError(
                f"--galaxies {self.number}: candels-blender's galaxies are taken as they are, all of them; "
                "leave the option out"
            )
        if self.candels_blender and self.preset != _CANDELS_PRESET:
            raise ConfigError(
                f"--preset {self.preset}: candels-blender's galaxies are stamps of {_CANDELS_PRESET}; "
                "give that preset"
            )

    @property
    def urls(self) -> list[str]:
        """Where real galaxies are taken from."""
        if self.candels_blender:
            return [storage.join(self.candels_blender, name) for name in CANDELS_FILES]
        return [self.real_catalog] if self.real_catalog else []

    @property
    def usual_split(self) -> Split | None:
        """The split unless the user chooses one: real galaxies are few, and none was trained on."""
        return None if self.real_catalog or self.candels_blender else "test"

    def pool(
        self,
        workers: Workers = ALONE,
        options: Options | None = None,
        progress: Progress = silent,
    ) -> GalaxyPool:
        """Draw or read the galaxies.

        Parameters
        ----------
        workers : Workers
            Who draws; changes no result.
        options : mapping, optional
            fsspec ``storage_options`` of candels-blender's folder.
        progress : callable
            Told of the galaxies drawn.
        """
        if self.candels_blender:
            return pool_from_candels_blender(self.candels_blender, options)
        if self.real_catalog:
            return pool_from_real_catalog(
                self.real_catalog,
                self.preset,
                number=self.number,
                seed=self.seed,
                workers=workers,
                progress=progress,
            )
        number = self.number or _SIMULATED
        return draw_pool(self.preset, number, self.seed, workers=workers, progress=progress)
