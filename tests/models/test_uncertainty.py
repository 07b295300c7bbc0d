from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from numpy.typing import NDArray
from pydantic import ValidationError

from deblend_batch.models.uncertainty import (
    ErrorModel,
    Evidence,
    crowding,
    predictors,
    quadratic_form,
)
from tests.models.tiny import ERRORS

PAIRS = Evidence(
    flux=np.array([[100.0, 30.0], [50.0, 50.0], [7.0, 90.0]], np.float32),
    separation_px=np.array([4.0, 10.0, 20.0]),
    crowding=np.array([[0.0, 0.0], [1.0, 0.5], [0.0, 0.2]]),
    hints=np.array([[0.1, 0.2], [0.0, -0.3], [0.3, 0.0]], np.float32),
    sigma=np.array([0.1, 0.2, 0.1], np.float32),
)
NO_NOISE = replace(PAIRS, sigma=None)


def _scaled(evidence: Evidence, factor: float) -> Evidence:
    sigma = None if evidence.sigma is None else evidence.sigma * np.float32(factor)
    return replace(evidence, flux=evidence.flux * np.float32(factor), sigma=sigma)


@pytest.mark.parametrize("evidence", [PAIRS, NO_NOISE], ids=["noise", "no noise"])
@pytest.mark.parametrize("factor", [2.0**-20, 3.0, 1e10])
def test_errors_scale_with_the_fluxes(evidence: Evidence, factor: float) -> None:
    one, scaled = ERRORS.flux_err(evidence), ERRORS.flux_err(_scaled(evidence, factor))
    np.testing.assert_allclose(scaled, one * factor, rtol=1e-5)
    assert one.dtype == np.float32


def test_close_and_faint_members_are_less_certain() -> None:
    relative = ERRORS.flux_err(PAIRS) / PAIRS.flux
    assert relative[0, 1] > relative[0, 0]
    assert relative[2, 0] > relative[2, 1]
    apart = replace(PAIRS, separation_px=2 * PAIRS.separation_px)
    assert (ERRORS.flux_err(apart) / PAIRS.flux < relative).all()


def test_below_the_fitted_signal_to_noise_the_error_grows_as_its_inverse() -> None:
    faint = ERRORS.flux_err(replace(PAIRS, sigma=np.full(3, 1e3, np.float32)))
    fainter = ERRORS.flux_err(replace(PAIRS, sigma=np.full(3, 2e3, np.float32)))
    np.testing.assert_allclose(fainter, 2 * faint, rtol=1e-5)


@pytest.mark.parametrize("sigma", [0.0, 1e-30, 1e30])
@pytest.mark.parametrize("separation", [0.0, 1e-3, 1e4])
def test_extreme_pairs_have_finite_errors(sigma: float, separation: float) -> None:
    extreme = replace(
        PAIRS, separation_px=np.full(3, separation), sigma=np.full(3, sigma, np.float32)
    )
    errors = ERRORS.flux_err(extreme)
    assert np.isfinite(errors).all()
    assert (errors > 0).all()


def test_no_flux_no_error() -> None:
    flux = PAIRS.flux.copy()
    flux[0] = np.nan
    errors = ERRORS.flux_err(replace(PAIRS, flux=flux))
    assert np.isnan(errors[0]).all()
    assert np.isfinite(errors[1:]).all()


def test_the_quadratic_form_holds_all_products() -> None:
    x = np.array([2.0, 3.0, 5.0])
    assert quadratic_form(x).tolist() == [1, 2, 3, 5, 4, 6, 10, 9, 15, 25]


def test_predictors_are_per_member() -> None:
    known = predictors(PAIRS)
    assert known.shape == (3, 2, 6)
    for opposite in (0, 3):  # flux ratio and shift
        np.testing.assert_allclose(known[:, 0, opposite], -known[:, 1, opposite])
    np.testing.assert_array_equal(known[..., 4], PAIRS.crowding)
    np.testing.assert_array_equal(predictors(NO_NOISE), known[..., :-1])


def test_a_model_without_slopes_is_a_constant() -> None:
    flat = ErrorModel(
        with_noise=((np.log(0.1), *[0.0] * 27),) * 2,
        without_noise=((np.log(0.2), *[0.0] * 20),) * 2,
        low=(-9.0,) * 6,
        high=(9.0,) * 6,
    )
    np.testing.assert_allclose(flat.flux_err(PAIRS), 0.1 * PAIRS.flux, rtol=1e-6)
    np.testing.assert_allclose(flat.flux_err(NO_NOISE), 0.2 * PAIRS.flux, rtol=1e-6)


@pytest.mark.parametrize("low", [(-9.0,) * 5, (-9.0,) * 7])
def test_coefficients_are_counted(low: tuple[float, ...]) -> None:
    with pytest.raises(ValidationError, match="Tuple should have at"):
        ErrorModel(ERRORS.with_noise, ERRORS.without_noise, low, ERRORS.high)


def test_crowding_counts_the_nearest_third_source() -> None:
    central, companion = np.zeros((2, 2)), np.array([[0.0, 10.0], [0.0, 10.0]])
    third = np.array([[[0.0, 30.0], [0.0, -20.0]], [[np.nan, np.nan]] * 2])
    found = crowding(central, companion, third)
    np.testing.assert_allclose(found, [[np.log(2), np.log(2)], [0, 0]])


@pytest.mark.parametrize("neighbours", [None, np.empty((3, 0, 2))])
def test_without_third_sources_there_is_no_crowding(neighbours: NDArray[np.float64] | None) -> None:
    assert (crowding(np.zeros((3, 2)), np.ones((3, 2)), neighbours) == 0).all()


def test_a_third_source_on_a_member_is_no_division_by_zero() -> None:
    here = np.zeros((1, 2))
    assert np.isfinite(crowding(here, here, here[:, None])).all()
