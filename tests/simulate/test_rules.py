from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from deblend_batch.simulate.pairs.rules import (
    centroid_sigma,
    offset_limits,
    signal_to_noise,
    training_rules,
)

RADII = st.floats(0.3, 40.0)


@pytest.mark.parametrize(
    ("radius_px", "largest_px", "expected"),
    [
        ((4.0, 6.0), 64.0, (6.0, 16.0)),
        ((6.0, 4.0), 64.0, (6.0, 16.0)),
        ((2.0, 9.0), 64.0, (6.4, 8.0)),
        ((20.0, 22.0), 64.0, (22.0, 64.0)),
        ((20.0, 22.0), 30.0, (22.0, 30.0)),
        ((40.0, 40.0), 30.0, (24.0, 30.0)),
        ((0.1, 0.1), 64.0, (1.29, 5.16)),
    ],
    ids=["rule", "symmetric", "unequal", "stamp-64", "stamp-30", "huge", "unresolved"],
)
def test_offset_limits(
    radius_px: tuple[float, float], largest_px: float, expected: tuple[float, float]
) -> None:
    limits = offset_limits(np.array([radius_px]), np.array([3.0]), largest_px)
    np.testing.assert_allclose(limits, [expected])


@given(first=RADII, second=RADII, fwhm=st.floats(1.0, 6.0), largest=st.floats(10.0, 64.0))
def test_limits_are_an_interval_within_the_stamp(
    first: float, second: float, fwhm: float, largest: float
) -> None:
    low, high = offset_limits(np.array([[first, second]]), np.array([fwhm]), largest)[0]
    assert 0 < low < high <= largest


@pytest.mark.parametrize(
    ("flux", "expected"), [(1e9, 0.04), (1e-3, 0.5)], ids=["bright", "undetectable"]
)
def test_centroid_errors_are_bounded(flux: float, expected: float) -> None:
    values = (np.array(v) for v in (flux, 3.0, 2.0, 1.0))
    assert centroid_sigma(*values) == pytest.approx(expected, rel=1e-3)


def test_signal_to_noise_is_that_of_a_matched_filter() -> None:
    step = np.arange(-20.0, 21.0)
    width = np.hypot(3.0 / 1.18, 2.0 / 2.355)
    profile = np.exp(-0.5 * (step[:, None] ** 2 + step**2) / width**2)
    profile *= 100.0 / profile.sum()
    values = (np.array(v) for v in (100.0, 3.0, 2.0, 0.5))
    assert signal_to_noise(*values) == pytest.approx(np.sqrt((profile**2).sum()) / 0.5, rel=1e-3)


def test_training_rules_vary_more_than_the_defaults() -> None:
    rules = training_rules(32)
    assert rules.stamp_size == 32
    assert rules.noise_factor[1] / rules.noise_factor[0] > 10
    assert rules.neighbours_per_stamp > 0
    assert not rules.seed_faithful
