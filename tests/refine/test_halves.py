"""Which trials show two sources, as tables of numbers."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from deblend_batch.refine.halves import Halves
from deblend_batch.refine.rules import FROM_SPACE, THROUGH_SEEING, HalfRules, RefineRules

FWHM_PX = 4.0


@dataclass(frozen=True)
class Trial:
    """A trial that shows two through seeing, as it is; ``snr`` and ``shared`` are of the worse half."""

    snr: float = 3.1
    shared: float = 0.6
    apart_px: float = 3.0
    gain: float = 11.0
    gain_share: float = 0.01
    radius_px: float = 0.0


def halves_of(trials: list[Trial]) -> Halves:
    """Return trials of members 1, 2, ..., each at a row of its own."""
    n = len(trials)
    columns = np.array([list(vars(each).values()) for each in trials], float).reshape(n, 6)
    snr, shared, apart, gain, share, radius = columns.T
    yx = np.zeros((n, 2, 2))
    yx[:, :, 0] = 100.0 * np.arange(n)[:, None]
    yx[:, 1, 0] += apart
    return Halves(
        np.arange(1, n + 1),
        yx,
        np.stack([np.full(n, 7.0), np.arange(n) + 1.0], axis=1),
        np.stack([radius, radius], axis=1),
        np.stack([snr, np.full(n, 90.0)], axis=1),
        np.stack([shared, np.zeros(n)], axis=1),
        gain,
        share,
    )


@pytest.mark.parametrize(
    ("rules", "trial", "is_two"),
    [
        (THROUGH_SEEING, Trial(), True),
        (THROUGH_SEEING, Trial(snr=2.9), False),  # a half that is hardly there
        (THROUGH_SEEING, Trial(shared=0.7), False),  # one within the other
        (THROUGH_SEEING, Trial(shared=0.7, snr=15.0), True),  # but both are bright
        (THROUGH_SEEING, Trial(apart_px=2.0, snr=80.0), False),  # a disc and its bulge
        (THROUGH_SEEING, Trial(gain=9.0, snr=80.0), False),  # six more unknowns do that with noise
        (THROUGH_SEEING, Trial(apart_px=7.0, shared=0.55, snr=5.0), False),
        (THROUGH_SEEING, Trial(apart_px=7.0, shared=0.45, snr=5.0), True),  # wide and faint
        (FROM_SPACE, Trial(snr=15.0, gain_share=0.2), False),  # clumps of one galaxy
        (FROM_SPACE, Trial(snr=15.0, gain_share=0.4), True),
        (FROM_SPACE, Trial(snr=13.0, gain_share=0.4), False),
        (FROM_SPACE, Trial(snr=15.0, gain_share=0.4, radius_px=4.0), False),  # one about the other
        (FROM_SPACE, Trial(snr=5.0, shared=0.5, apart_px=10.0, radius_px=4.0), True),
        (FROM_SPACE, Trial(snr=5.0, shared=0.7, apart_px=10.0, radius_px=4.0), False),
        (FROM_SPACE, Trial(snr=5.0, shared=0.5, apart_px=9.0, radius_px=4.0), False),
    ],
)
def test_a_trial_shows_two(rules: RefineRules, trial: Trial, is_two: bool) -> None:
    assert halves_of([trial]).are_two(FWHM_PX, rules.halves).tolist() == [is_two]


@given(
    st.lists(
        st.builds(Trial, st.floats(0, 30), st.floats(0, 1), st.floats(0, 20), st.floats(-5, 50)),
        max_size=8,
    )
)
def test_each_trial_is_judged_alone_and_one_rule_is_enough(trials: list[Trial]) -> None:
    rules = THROUGH_SEEING.halves
    found = halves_of(trials).are_two(FWHM_PX, rules)
    alone = [bool(halves_of([each]).are_two(FWHM_PX, rules)[0]) for each in trials]
    assert found.tolist() == alone
    parts = [halves_of(trials).are_two(FWHM_PX, [each]) for each in rules]
    np.testing.assert_array_equal(found, np.logical_or.reduce(parts))


def test_nan_shows_nothing() -> None:
    for name in ("snr", "shared", "apart_px", "gain", "gain_share", "radius_px"):
        trial = Trial(**{name: np.nan})
        assert not halves_of([trial]).are_two(FWHM_PX, THROUGH_SEEING.halves)[0]


def test_without_rules_nothing_is_two() -> None:
    assert not halves_of([Trial()]).are_two(FWHM_PX, ())[0]
    assert halves_of([Trial()]).are_two(FWHM_PX, [HalfRules(3.0, 0.65, (0.5, 1.0))])[0]
