"""What all tests of the simulator share: a small pool, and real galaxies in both forms."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from deblend_batch.simulate.galaxies.draw import WIDE, draw_pool
from deblend_batch.simulate.galaxies.pool import GalaxyPool
from deblend_batch.simulate.presets import get_preset

GRID = np.arange(128.0)


@pytest.fixture(scope="session")
def pool() -> GalaxyPool:
    """160 candels-h galaxies under four PSFs."""
    return draw_pool("candels-h", 160, 7, variation=WIDE, group_size=40)


@pytest.fixture
def triplet(tmp_path: Path) -> Path:
    """Six round galaxies with a bright neighbour in the corner, as candels-blender stores them."""
    rng, preset = np.random.default_rng(1), get_preset("candels-h")
    mag = np.linspace(20.0, 21.0, 6)

    def source(y: float, x: float, flux: float) -> np.ndarray:
        return flux / (18 * np.pi) * np.exp(-((GRID[:, None] - y) ** 2 + (GRID - x) ** 2) / 18)

    images = np.array([source(64.2, 63.9, preset.flux(m)) + source(20, 20, 500) for m in mag])
    segments = np.zeros(images.shape, np.uint8)
    segments[:, 50:79, 50:79], segments[:, 8:33, 8:33] = 7, 9
    images += rng.normal(0, 0.006, images.shape)
    np.save(tmp_path / "candels_img.npy", images.astype(np.float32))
    np.save(tmp_path / "candels_seg.npy", segments)
    kinds = ["sph", "sphd", "disk", "irr", "sph", "star"]
    rows = [
        f"{100 + i},{m},3.5,1.0,{kind}" for i, (m, kind) in enumerate(zip(mag, kinds, strict=True))
    ]
    (tmp_path / "candels_cat.csv").write_text("\n".join(["ID,mag,radius,z,galtype", *rows]) + "\n")
    return tmp_path


@pytest.fixture(scope="session")
def catalog(shared: Path) -> str:
    """A RealGalaxyCatalog of fifty bright COSMOS galaxies."""
    return str(shared / "data" / "real_galaxies" / "cosmos_f814w_bright_catalog.fits")
