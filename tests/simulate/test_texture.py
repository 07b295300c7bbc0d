from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from deblend_batch.simulate.galaxies.population import Kind
from deblend_batch.simulate.galaxies.texture import (
    Clumps,
    DiscFrame,
    disc_frame,
    draw_clumps,
    lopsidedness,
    patches,
    spiral_arms,
)

STEPS = np.arange(-40, 41, dtype=np.float32)


def make_frame(q: float = 0.5, position_angle: float = 0.0) -> DiscFrame:
    return disc_frame(STEPS[:, None], STEPS[None, :], 10.0, q, position_angle)


@pytest.mark.parametrize(
    ("position_angle", "pixel_yx"),
    [(0.0, (40, 50)), (0.0, (45, 40)), (np.pi / 2, (50, 40)), (np.pi / 2, (40, 45))],
)
def test_frame_is_in_half_light_radii_of_an_inclined_disc(
    position_angle: float, pixel_yx: tuple[int, int]
) -> None:
    assert make_frame(0.5, position_angle).radius[pixel_yx] == pytest.approx(1.0, abs=1e-5)


@pytest.mark.parametrize("factor", [patches, spiral_arms, lopsidedness])
def test_factors_are_positive_float32_and_change_with_strength(
    factor: Callable[[DiscFrame, float, np.random.Generator], np.ndarray],
) -> None:
    frame = make_frame()
    weak, strong = (factor(frame, strength, np.random.default_rng(1)) for strength in (0.05, 0.6))
    assert strong.dtype == np.float32
    assert strong.shape == frame.radius.shape
    assert strong.min() > 0
    assert weak.std() < strong.std()


def test_a_lopsided_disc_is_bright_on_one_side_and_dim_on_the_other() -> None:
    factor = lopsidedness(make_frame(1.0), 0.5, np.random.default_rng(2))
    np.testing.assert_allclose(factor + factor[::-1, ::-1], 2.0, atol=1e-5)


def test_arms_leave_the_centre_alone() -> None:
    factor = spiral_arms(make_frame(1.0), 0.8, np.random.default_rng(3))
    assert factor[40, 40] == pytest.approx(1.0)


@pytest.mark.parametrize("kind", ["disk", "irr"])
@pytest.mark.parametrize("share", [0.02, 0.4])
def test_clumps_hold_their_share_within_the_disc(kind: Kind, share: float) -> None:
    clumps = draw_clumps(kind, share, 10.0, 0.6, 0.3, np.random.default_rng(4))
    assert clumps.flux.min() >= 0
    assert 0.3 * share < clumps.flux[:-1].sum() <= share * 1.001
    assert clumps.flux[-1] <= 0.2
    assert np.hypot(clumps.y, clumps.x).max() <= 20.0 + 1e-3


def test_painted_clumps_keep_flux_and_place() -> None:
    values = (np.array([v], np.float32) for v in (5.0, -7.0, 2.0, 0.25))
    image = Clumps(*values).paint(STEPS[:, None], STEPS[None, :])
    assert image.sum() == pytest.approx(0.25, rel=1e-3)
    assert image.argmax() == 45 * STEPS.size + 33
