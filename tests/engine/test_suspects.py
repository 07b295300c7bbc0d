"""A table of the user's stays as it is: what is hardly a source in it is told by a flag."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from deblend_batch import flags
from tests.engine.one_band import write_run
from tests.engine.test_fit_run import measured
from tests.ingest.fits_files import add_gaussians, noise_image

STEP, SIDE = 60, 300


def test_places_without_a_source_are_told(tmp_path: Path) -> None:
    """But for one in fifteen, where noise alone is more than 1.5 times itself."""
    grid = np.stack(np.meshgrid(*[np.arange(STEP / 2, SIDE, STEP)] * 2), -1).reshape(-1, 2)
    real, empty = grid[::2], grid[1::2]
    image = add_gaussians(noise_image((SIDE, SIDE), seed=4), real, 150.0, 4.0)
    yx = np.concatenate([real, empty])
    table = {"id": np.arange(1, len(yx) + 1), "x": yx[:, 1], "y": yx[:, 0]}
    rows = measured(write_run(tmp_path, image, 4.0, table), 64).to_pandas().set_index("source_id")
    assert len(rows) == len(yx)
    told = (rows["flags"].sort_index().to_numpy() & flags.INSIGNIFICANT.value) != 0
    assert not told[: len(real)].any()
    assert told[len(real) :].mean() > 0.8
