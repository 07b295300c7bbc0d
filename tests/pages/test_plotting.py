from __future__ import annotations

import io

import numpy as np
import pytest
from matplotlib.figure import Figure
from PIL import Image

from deblend_batch.pages.plotting import png, style


def _figure() -> Figure:
    with style():
        figure = Figure(figsize=(2, 2))
        figure.add_subplot().imshow(np.random.default_rng(0).random((40, 40)), cmap="RdBu_r")
    return figure


@pytest.mark.parametrize(("full_colour", "mode"), [(False, "P"), (True, "RGB")])
def test_a_picture_is_the_same_again(full_colour: bool, mode: str) -> None:
    first, again = (png(_figure(), full_colour=full_colour) for _ in range(2))
    assert first == again
    assert Image.open(io.BytesIO(first)).mode == mode


def test_few_colours_take_fewer_bytes_and_look_the_same() -> None:
    few, full = (png(_figure(), full_colour=each) for each in (False, True))
    assert len(few) < 0.6 * len(full)
    one, other = (
        np.asarray(Image.open(io.BytesIO(each)).convert("RGB"), float) for each in (few, full)
    )
    assert np.abs(one - other).mean() < 3
