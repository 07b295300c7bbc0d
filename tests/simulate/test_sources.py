from __future__ import annotations

import numpy as np
import pytest

from deblend_batch.cluster.workers import ALONE
from deblend_batch.simulate.fields.sources import draw_in_order, draw_sources, stamp_size
from deblend_batch.simulate.fields.systems import Source
from deblend_batch.simulate.galaxies.population import Component, Structure
from deblend_batch.simulate.presets import get_preset

PRESET = get_preset("candels-h")


def make_source(number: int = 1, radius_arcsec: float = 0.3, mag: float = 21.0) -> Source:
    structure = Structure("disk", None, Component(radius_arcsec, 1.0, 0.7, 1.0))
    return Source(number, 0, None, mag, structure, np.array([100, 200]))


@pytest.mark.parametrize(
    ("radius_arcsec", "size"), [(0.05, 64), (0.3, 128), (0.8, 192), (1.5, 320), (10.0, 320)]
)
def test_stamps_grow_with_the_galaxy(radius_arcsec: float, size: int) -> None:
    assert stamp_size(make_source(radius_arcsec=radius_arcsec), PRESET) == size


def test_a_source_has_its_flux_and_lies_near_its_pixel() -> None:
    drawn = draw_sources([make_source()], PRESET, 1)[0]
    assert drawn.stamp.sum() == pytest.approx(PRESET.flux(21.0), rel=0.02)
    np.testing.assert_array_equal(drawn.first_yx, [36, 136])
    assert np.abs(drawn.yx - [100, 200]).max() < 3


def test_order_does_not_matter() -> None:
    sources = [make_source(number) for number in (1, 2, 3)]
    forward = draw_sources(sources, PRESET, 1)
    backward = draw_sources(sources[::-1], PRESET, 1)[::-1]
    for one, other in zip(forward, backward, strict=True):
        np.testing.assert_array_equal(one.stamp, other.stamp)


def test_sources_come_in_order() -> None:
    sources = [make_source(number, radius_arcsec=0.05) for number in range(100, 50, -1)]
    drawn = list(draw_in_order(sources, PRESET, 1, ALONE))
    assert [one.source.id for one in drawn] == [*range(100, 50, -1)]
