from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from deblend_batch.models.uncertainty import ErrorModel, predictors, quadratic_form
from tests.models.tiny import ERRORS

FLUX = np.array([[100.0, 30.0], [50.0, 50.0], [7.0, 90.0]], np.float32)
SEPARATION = np.array([4.0, 10.0, 20.0], np.float32)
SIGMA = np.array([0.1, 0.2, 0.1], np.float32)


@pytest.mark.parametrize("sigma", [SIGMA, None], ids=["noise", "no noise"])
@pytest.mark.parametrize("factor", [2.0**-20, 3.0, 1e10])
def test_errors_scale_with_the_fluxes(sigma: NDArray[np.float32] | None, factor: float) -> None:
    one = ERRORS.flux_err(FLUX, SEPARATION, sigma)
    scaled = ERRORS.flux_err(FLUX * factor, SEPARATION, None if sigma is None else sigma * factor)
    np.testing.assert_allclose(scaled, one * factor, rtol=1e-5)
    assert one.dtype == np.float32


def test_close_and_faint_members_are_less_certain() -> None:
    relative = ERRORS.flux_err(FLUX, SEPARATION, SIGMA) / FLUX
    assert relative[0, 1] > relative[0, 0]
    assert relative[2, 0] > relative[2, 1]
    apart = ERRORS.flux_err(FLUX, 2 * SEPARATION, SIGMA) / FLUX
    assert (apart < relative).all()


def test_below_the_fitted_signal_to_noise_the_error_grows_as_its_inverse() -> None:
    faint = ERRORS.flux_err(FLUX, SEPARATION, np.full(3, 1e3, np.float32))
    fainter = ERRORS.flux_err(FLUX, SEPARATION, np.full(3, 2e3, np.float32))
    np.testing.assert_allclose(fainter, 2 * faint, rtol=1e-5)


@pytest.mark.parametrize("sigma", [0.0, 1e-30, 1e30])
@pytest.mark.parametrize("separation", [0.0, 1e-3, 1e4])
def test_extreme_pairs_have_finite_errors(sigma: float, separation: float) -> None:
    errors = ERRORS.flux_err(FLUX, np.full(3, separation), np.full(3, sigma, np.float32))
    assert np.isfinite(errors).all()
    assert (errors > 0).all()


def test_no_flux_no_error() -> None:
    flux = np.array([[np.nan, np.nan], [1.0, np.nan]], np.float32)
    errors = ERRORS.flux_err(flux, SEPARATION[:2], None)
    assert np.isnan(errors[0]).all()
    assert np.isnan(errors[1, 1])


def test_the_quadratic_form_holds_all_products() -> None:
    x = np.array([2.0, 3.0, 5.0])
    assert quadratic_form(x).tolist() == [1, 2, 3, 5, 4, 6, 10, 9, 15, 25]


def test_predictors_are_per_member() -> None:
    known = predictors(FLUX, SEPARATION, SIGMA)
    assert known.shape == (3, 2, 3)
    np.testing.assert_allclose(known[:, 0, 0], -known[:, 1, 0])
    assert predictors(FLUX, SEPARATION, None).shape == (3, 2, 2)


def test_a_model_without_slopes_is_a_constant() -> None:
    flat = ErrorModel(
        with_noise=((np.log(0.1), *[0.0] * 9),) * 2,
        without_noise=((np.log(0.2), *[0.0] * 5),) * 2,
        low=(-9.0, -9.0, -9.0),
        high=(9.0, 9.0, 9.0),
    )
    np.testing.assert_allclose(flat.flux_err(FLUX, SEPARATION, SIGMA), 0.1 * FLUX, rtol=1e-6)
    np.testing.assert_allclose(flat.flux_err(FLUX, SEPARATION, None), 0.2 * FLUX, rtol=1e-6)
