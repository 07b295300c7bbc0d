"""One small pool of galaxies for all tests of the simulator."""

from __future__ import annotations

import pytest

from deblend_batch.simulate.draw import WIDE, draw_pool
from deblend_batch.simulate.pool import GalaxyPool


@pytest.fixture(scope="session")
def pool() -> GalaxyPool:
    """160 candels-h galaxies under four PSFs."""
    return draw_pool("candels-h", 160, 7, variation=WIDE, group_size=40)
