from __future__ import annotations

import json
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from deblend_batch.evaluation.metrics import (
    NMAD_FACTOR,
    flux_error,
    iou,
    magnitude_offset,
    measure,
    nmad,
)

FLUXES = st.lists(st.floats(1e-3, 1e6), min_size=1, max_size=30)


@pytest.mark.parametrize(
    ("flux", "true", "expected"),
    [
        (1.0, 1.0, 0.0),
        (10.0, 1.0, -2.5),
        (0.1, 1.0, 2.5),
        (0.0, 1.0, np.nan),
        (-1.0, 1.0, np.nan),
        (np.nan, 1.0, np.nan),
    ],
)
def test_magnitude_error(flux: float, true: float, expected: float) -> None:
    np.testing.assert_allclose(magnitude_offset([flux], [true]), [expected], atol=1e-12)


def test_numbers_of_a_case_computed_by_hand() -> None:
    true = np.array([1.0, 2.0, 4.0, 10.0])
    found = measure([1.1, 1.8, 4.0, 30.0], true, true_mag=[20.0, 21.0, 22.0, 23.0])
    dmag = -2.5 * np.log10([1.1, 0.9, 1.0, 3.0])
    assert found.n == 4
    assert found.bias == pytest.approx(dmag.mean())
    assert found.bias_median == pytest.approx(np.median(dmag))
    assert found.sigma == pytest.approx(dmag.std())
    assert found.nmad == pytest.approx(NMAD_FACTOR * np.median(np.abs(dmag - np.median(dmag))))
    assert found.outlier_fraction == 0.25
    assert found.flux_mape == pytest.approx((0.1 + 0.1 + 0.0 + 2.0) / 4)
    assert found.mag_mape == pytest.approx(np.mean(np.abs(dmag) / [20, 21, 22, 23]))


def test_undetected_members_are_counted_and_fail() -> None:
    found = measure([1.0, np.nan, np.nan, 1.2], np.ones(4))
    assert (found.n, found.n_undetected, found.undetected_fraction) == (4, 2, 0.5)
    assert found.flux_mape == pytest.approx(0.1)
    assert found.flux_mape_all == pytest.approx((0 + 1 + 1 + 0.2) / 4)
    assert found.outlier_fraction == 0
    assert found.failure_fraction == 0.5


@pytest.mark.parametrize("flux", [0.0, -3.0])
def test_a_flux_without_magnitude_is_an_outlier(flux: float) -> None:
    found = measure([1.0, flux], np.ones(2))
    assert found.n_not_positive == 1
    assert found.outlier_fraction == 0.5
    assert found.bias == 0
    assert found.flux_mape == pytest.approx((1 - flux) / 2)


def test_infinite_flux_is_undetected() -> None:
    assert measure([np.inf, 1.0], np.ones(2)).n_undetected == 1


@pytest.mark.parametrize("flux", [[], [np.nan, np.nan]])
def test_nothing_detected_gives_nan_and_none(flux: list[float]) -> None:
    found = measure(flux, np.ones(len(flux)), draws=3)
    assert math.isnan(found.bias)
    assert math.isnan(found.flux_mape)
    assert json.loads(json.dumps(found.to_dict(), allow_nan=False))["sigma"] is None


@pytest.mark.parametrize("true", [0.0, -1.0, np.nan, np.inf])
def test_a_true_flux_must_be_positive(true: float) -> None:
    with pytest.raises(ValueError, match="of member 1 is not positive"):
        measure([1.0, 1.0], [1.0, true])


def test_shapes_must_agree() -> None:
    with pytest.raises(ValueError, match=r"shape \(2,\) and true fluxes of \(3,\)"):
        measure([1.0, 1.0], np.ones(3))


@given(FLUXES, st.floats(1e-3, 1e3))
def test_metrics_do_not_depend_on_the_flux_unit(flux: list[float], unit: float) -> None:
    true = np.linspace(1, 2, len(flux))
    one, other = measure(flux, true), measure(unit * np.array(flux), unit * true)
    assert other.flux_mape == pytest.approx(one.flux_mape, rel=1e-9)
    assert other.bias == pytest.approx(one.bias, rel=1e-9, abs=1e-9)


@given(FLUXES, st.integers(0, 10))
def test_undetected_members_never_change_the_numbers_of_the_others(
    flux: list[float], missed: int
) -> None:
    true = np.linspace(1, 2, len(flux))
    one = measure(flux, true)
    other = measure([*flux, *([np.nan] * missed)], [*true, *np.ones(missed)])
    assert other.n_undetected == missed
    for name in ("bias", "sigma", "flux_mape"):
        assert getattr(other, name) == pytest.approx(getattr(one, name), rel=1e-9, abs=1e-12)
    assert other.failure_fraction >= one.failure_fraction


def test_scatter_over_bound_and_coverage_of_perfect_errors() -> None:
    rng = np.random.default_rng(1)
    bound = rng.uniform(0.1, 1.0, 20_000)
    flux = 100 + bound * rng.standard_normal(20_000)
    found = measure(flux, np.full(20_000, 100.0), bound=bound, flux_err=bound)
    assert found.scatter_over_bound == pytest.approx(1.0, abs=0.03)
    assert found.coverage == pytest.approx(0.683, abs=0.01)


def test_unknown_bounds_and_errors_are_left_out() -> None:
    found = measure([1.0, 2.0], np.ones(2), bound=[np.nan, 1.0], flux_err=[np.nan, 0.5])
    assert found.scatter_over_bound == 0
    assert found.coverage == 0


def test_intervals_hold_the_numbers_and_are_those_of_drawn_galaxies() -> None:
    rng = np.random.default_rng(2)
    flux = 1 + 0.1 * rng.standard_normal(400)
    flux[::25], flux[1::25] = np.nan, 3.0
    found = measure(flux, np.ones(400), galaxy_id=rng.integers(0, 150, 400), draws=100)
    assert set(found.intervals) == {
        *("bias", "sigma", "flux_mape", "outlier_fraction", "failure_fraction")
    }
    for name, (low, high) in found.intervals.items():
        assert low < getattr(found, name) < high


def test_nmad_of_a_normal_sample_is_its_sigma() -> None:
    assert nmad(np.random.default_rng(0).normal(3, 2, 50_000)) == pytest.approx(2, rel=0.03)


def test_flux_error_keeps_the_undetected() -> None:
    np.testing.assert_allclose(flux_error([2.0, np.nan], [1.0, 1.0]), [1.0, np.nan])


@pytest.mark.parametrize(
    ("mask", "true", "expected"),
    [
        ([[1, 1], [0, 0]], [[1, 1], [0, 0]], 1.0),
        ([[1, 1], [0, 0]], [[0, 0], [1, 1]], 0.0),
        ([[1, 1], [1, 0]], [[0, 1], [1, 1]], 0.5),
        ([[0, 0], [0, 0]], [[0, 0], [0, 0]], 1.0),
        ([[0.5, 0], [0, 0]], [[1, 0], [0, 0]], 0.0),
    ],
)
def test_iou(mask: list[list[float]], true: list[list[int]], expected: float) -> None:
    found = iou(np.array(mask, np.float32), np.array(true, bool))
    assert found == pytest.approx(expected, abs=1e-6)


def test_iou_is_taken_over_the_last_two_axes() -> None:
    masks = np.random.default_rng(0).random((3, 2, 8, 9))
    assert iou(masks, masks > 0.5).shape == (3, 2)
