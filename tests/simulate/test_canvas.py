from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from deblend_batch.simulate.fields.canvas import noise_plane, paste, tiles


@pytest.mark.parametrize(
    ("shape_yx", "edge", "count"), [((10, 10), 5, 4), ((10, 12), 5, 6), ((3, 4), 100, 1)]
)
def test_tiles_cover_every_pixel_once(shape_yx: tuple[int, int], edge: int, count: int) -> None:
    seen = np.zeros(shape_yx, int)
    found = list(tiles(shape_yx, edge))
    for low, high in found:
        seen[low[0] : high[0], low[1] : high[1]] += 1
    assert len(found) == count
    assert (seen == 1).all()


@given(y=st.integers(-12, 25), x=st.integers(-12, 25))
def test_pasting_adds_what_overlaps(y: int, x: int) -> None:
    image, stamp = np.zeros((20, 15), np.float32), np.ones((6, 8), np.float32)
    paste(image, stamp, np.array([y, x]))
    paste(image, stamp, np.array([y, x]))
    rows = max(0, min(20, y + 6) - max(0, y))
    columns = max(0, min(15, x + 8) - max(0, x))
    assert image.sum() == 2 * rows * columns
    assert set(np.unique(image)) <= {0.0, 2.0}


@given(
    low=st.tuples(st.integers(0, 300), st.integers(0, 300)),
    size=st.tuples(st.integers(1, 300), st.integers(1, 300)),
)
def test_noise_does_not_depend_on_the_rectangle(
    low: tuple[int, int], size: tuple[int, int]
) -> None:
    high = (low[0] + size[0], low[1] + size[1])
    whole = noise_plane((0, 0), (600, 600), 2.0, 5)
    np.testing.assert_array_equal(
        noise_plane(low, high, 2.0, 5), whole[low[0] : high[0], low[1] : high[1]]
    )


def test_noise_is_white_and_of_the_given_rms() -> None:
    noise = noise_plane((0, 0), (512, 512), 3.0, 1)
    assert noise.std() == pytest.approx(3.0, rel=0.01)
    assert abs((noise[:, 256:] * noise[:, :256]).mean()) < 0.1
    assert not np.array_equal(noise, noise_plane((0, 0), (512, 512), 3.0, 2))
