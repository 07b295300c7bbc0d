from __future__ import annotations

import numpy as np
import pytest

from deblend_batch.simulate.galaxies.centroid import windowed_centroid


def blob(y: float, x: float, sigma: float = 2.5, size: int = 64) -> np.ndarray:
    grid = np.arange(size)
    image = np.exp(-0.5 * ((grid[:, None] - y) ** 2 + (grid - x) ** 2) / sigma**2)
    return image.astype(np.float32)


@pytest.mark.parametrize(("y", "x"), [(32.0, 32.0), (32.4, 31.7), (31.2, 32.9)])
@pytest.mark.parametrize("radius_px", [0.5, 3.0, 9.0])
def test_it_finds_a_symmetric_source(y: float, x: float, radius_px: float) -> None:
    np.testing.assert_allclose(windowed_centroid(blob(y, x), radius_px), [y, x], atol=5e-3)


def test_a_distant_neighbour_hardly_matters() -> None:
    image = blob(32.0, 32.0) + blob(32.0, 50.0)
    np.testing.assert_allclose(windowed_centroid(image, 3.0), [32.0, 32.0], atol=0.02)


@pytest.mark.parametrize("image", [np.zeros((64, 64), np.float32), blob(5.0, 60.0)])
def test_it_stays_near_the_centre_whatever_the_image(image: np.ndarray) -> None:
    found = windowed_centroid(image, 3.0)
    assert np.isfinite(found).all()
    assert np.abs(found - 32).max() < 12
