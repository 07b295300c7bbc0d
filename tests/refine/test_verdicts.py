"""What follows from fits, as tables of numbers."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from deblend_batch.detect.bits import NEAR_BRIGHT_STAR, SATURATED
from deblend_batch.refine.fits import Fits
from deblend_batch.refine.rules import FROM_SPACE, THROUGH_SEEING, RefineRules
from deblend_batch.refine.sources import Sources
from deblend_batch.refine.verdicts import EXPLAINED, NO_FLUX, UNPROVEN, judge, unsure
from tests.refine.test_halves import Trial, halves_of

RULES = RefineRules()
FWHM_PX = 4.0


def known(*yx: tuple[float, float], added: bool = False) -> Sources:
    """Return sources 1, 2, ... at some positions."""
    n = len(yx)
    nothing = np.full(n, np.nan)
    return Sources(
        np.arange(1, n + 1),
        np.array(yx),
        np.zeros((n, 2)),
        nothing,
        nothing,
        nothing,
        np.zeros(n, np.int32),
        np.full(n, added),
        np.zeros(n, np.int16),
    )


FAR = known(*[(500.0, 500.0)] * 6)


def fits_of(snr: list[float], shared: list[float], neighbour: list[int] | None = None) -> Fits:
    """Return fits of members 1, 2, ... of one blend, ten pixels apart, without a peak."""
    n = len(snr)
    nothing = np.full(n, np.nan)
    return Fits(
        np.arange(1, n + 1),
        np.array(neighbour or [-1] * n),
        np.stack([np.full(n, 10.0), 10.0 * np.arange(n)], axis=1),
        np.zeros((n, 2)),
        nothing,
        nothing,
        np.array(snr),
        np.array(snr),
        np.array(shared),
        nothing,
        np.full(n, 0.1),
        np.full(n, 1.5),
        np.zeros(n, np.int64),
        np.zeros(1, bool),
        np.zeros(1),
        np.ones(1),
        np.zeros((1, 2)),
        halves_of([]),
    )


@pytest.mark.parametrize(
    ("snr", "shared", "reason"),
    [
        (20.0, 0.99, None),
        (3.9, 0.7, None),
        (3.9, 0.9, EXPLAINED),
        (1.4, 0.0, NO_FLUX),
        (-30.0, 1.0, NO_FLUX),
        (np.nan, np.nan, None),  # no pixel tells
    ],
)
def test_a_member_is_dropped_for_a_reason(snr: float, shared: float, reason: str | None) -> None:
    found = judge(fits_of([50.0, snr], [0.1, shared]), FAR, FWHM_PX, RULES, last=True)
    assert found.dropped.tolist() == ([] if reason is None else [2])
    assert found.reason.tolist() == ([] if reason is None else [reason])


@pytest.mark.parametrize(
    ("snr", "shared", "added", "stays"),
    [
        (3.1, 0.5, True, True),
        (2.9, 0.5, True, False),
        (20.0, 0.87, True, True),
        (20.0, 0.89, True, False),
        (20.0, 0.89, False, True),
    ],
)
def test_what_was_added_must_prove_itself(
    snr: float, shared: float, added: bool, stays: bool
) -> None:
    fits = fits_of([snr, 90.0], [shared, 0.1])
    found = judge(fits, known((0.0, 0.0), (0.0, 0.0), added=added), FWHM_PX, RULES, last=True)
    assert found.reason.tolist() == ([] if stays else [UNPROVEN])


@pytest.mark.parametrize(
    ("sure", "shared", "ratio", "radii", "stays"),
    [
        (2.9, 0.6, 0.4, 2.9, False),
        (3.1, 0.6, 0.4, 2.9, True),
        (2.9, 0.4, 0.4, 2.9, True),
        (2.9, 0.6, 0.6, 2.9, True),  # as bright as a galaxy may be beside another
        (2.9, 0.6, 0.4, 3.1, True),  # out of its neighbour
    ],
)
def test_from_space_what_may_be_a_clump_of_its_neighbour_is_no_source(
    sure: float, shared: float, ratio: float, radii: float, stays: bool
) -> None:
    fits = replace(
        fits_of([20.0, 90.0], [shared, 0.1]),
        sure=np.array([sure, 50.0]),
        flux_ratio=np.array([ratio, 1 / ratio]),
        radii_away=np.array([radii, 9.0]),
    )
    found = judge(fits, FAR, FWHM_PX, FROM_SPACE, last=True)
    assert found.reason.tolist() == ([] if stays else [EXPLAINED])
    assert not len(judge(fits, FAR, FWHM_PX, THROUGH_SEEING, last=True).dropped)


def test_when_all_is_done_what_its_whole_error_explains_is_none() -> None:
    """But not what no fit has looked at, nor a saturated star, whose core is in no pixel."""
    three = known(*[(0.0, 0.0)] * 4)
    sources = replace(
        three,
        flux=np.array([0.9, 1.1, 0.9, 0.9]),
        flux_err=np.ones(4),
        round=np.array([1, 1, 0, 1], np.int16),
        flags=np.array([0, 0, 0, SATURATED], np.int32),
    )
    assert unsure(sources, RULES).tolist() == [True, False, False, False]


def test_what_was_added_must_be_surer_when_all_is_done() -> None:
    one = known((0.0, 0.0), added=True)
    for flux, is_none in ((1.9, True), (2.1, False)):
        of_round = np.ones(1, np.int16)
        sources = replace(one, flux=np.array([flux]), flux_err=np.ones(1), round=of_round)
        assert unsure(sources, RULES).tolist() == [is_none]


@pytest.mark.parametrize("said", ["mask", SATURATED, NEAR_BRIGHT_STAR])
def test_in_the_glare_of_a_star_nothing_is_added(said: str | int) -> None:
    """Halos and spikes are in no PSF's image."""
    fits = replace(fits_of([50.0], [0.0]), peak_sn=np.array([60.0]))
    fits = replace(fits, halves=halves_of([Trial()]))
    assert len(judge(fits, FAR, FWHM_PX, RULES, last=False).added_yx) == 2
    if said == "mask":
        found = judge(replace(fits, in_glare=np.array([True])), FAR, FWHM_PX, RULES, last=False)
    else:
        flags = np.array([said] + [0] * 5, np.int32)
        found = judge(fits, replace(FAR, flags=flags), FWHM_PX, RULES, last=False)
    assert len(found.added_yx) == len(found.moved) == 0


def test_of_two_neighbours_the_weaker_goes_first() -> None:
    fits = fits_of([3.0, 2.0, 60.0], [0.9, 0.95, 0.1], [2, 1, 2])
    found = judge(fits, FAR, FWHM_PX, RULES, last=True)
    assert (found.dropped.tolist(), found.into.tolist()) == ([2], [1])


@pytest.mark.parametrize(
    ("significance", "distance_px", "last", "n"),
    [(4.9, 50.0, False, 0), (5.0, 50.0, False, 1), (60.0, 1.9, False, 0), (60.0, 9.0, True, 0)],
)
def test_a_peak_becomes_a_source(
    significance: float, distance_px: float, last: bool, n: int
) -> None:
    fits = replace(fits_of([50.0], [0.0]), peak_sn=np.array([significance]))
    there = known((0.0, distance_px))  # from where the peak is
    assert len(judge(fits, there, FWHM_PX, RULES, last=last).added_yx) == n


def test_of_two_blends_that_see_one_peak_one_adds_it() -> None:
    fits = replace(
        fits_of([50.0], [0.0]),
        in_glare=np.zeros(2, bool),
        peak_sn=np.array([7.0, 9.0]),
        peak_flux=np.array([70.0, 90.0]),
        peak_yx=np.array([[20.0, 20.0], [20.5, 20.0]]),
    )
    found = judge(fits, FAR, FWHM_PX, RULES, last=False)
    assert (found.added_yx.tolist(), found.added_flux.tolist()) == ([[20.5, 20.0]], [90.0])


def test_a_member_that_is_two_moves_to_one_half_and_the_other_is_added() -> None:
    halves = halves_of([Trial(), Trial(gain=9.0), Trial()])
    fits = replace(fits_of([50.0, 50.0, -9.0], [0.0, 0.0, 0.0]), halves=halves)
    found = judge(fits, FAR, FWHM_PX, RULES, last=True)
    assert found.moved.tolist() == [1]  # 3 has no flux, and goes
    assert found.moved_yx.tolist() == halves.yx[:1, 0].tolist()
    assert found.added_yx.tolist() == halves.yx[:1, 1].tolist()
    assert found.added_flux.tolist() == halves.flux[:1, 1].tolist()


@given(st.permutations(range(6)), st.lists(st.floats(-5, 60), min_size=6, max_size=6))
def test_the_order_of_members_says_nothing(order: list[int], snr: list[float]) -> None:
    fits = fits_of(snr, [0.9] * 6, [2, 1, 4, 3, 6, 5])
    columns = (
        "source_id",
        "neighbour_id",
        "yx",
        "flux",
        "flux_err",
        "snr",
        "sure",
        "shared",
        "flux_ratio",
        "radii_away",
        "blend",
    )
    mixed = replace(fits, **{name: getattr(fits, name)[order] for name in columns})
    first, second = (judge(each, FAR, FWHM_PX, RULES, last=True) for each in (fits, mixed))
    np.testing.assert_array_equal(first.dropped, second.dropped)
    np.testing.assert_array_equal(first.reason, second.reason)
