from __future__ import annotations

import numpy as np
import pytest

from deblend_batch.train.calibrate import fit_error_model, quantile_regression


def _measurements(n: int, seed: int):  # type: ignore[no-untyped-def]
    """Fluxes whose true error is known: a term from the split and one from the noise."""
    rng = np.random.default_rng(seed)
    true = (100 * np.exp(rng.normal(0, 1, (n, 2)))).astype(np.float32)
    separation = np.exp(rng.uniform(1, 3, n)).astype(np.float32)
    sigma = np.exp(rng.uniform(-2, 0, n)).astype(np.float32)
    error = 0.5 * true / separation[:, None] + 3 * sigma[:, None]
    flux = (true + error * rng.normal(size=(n, 2))).astype(np.float32)
    return flux, true, separation, sigma


FIT = fit_error_model(*_measurements(4000, 1))


@pytest.mark.parametrize("with_noise", [True, False])
@pytest.mark.parametrize("close", [True, False])
def test_one_sigma_covers_68_per_cent_of_new_pairs(with_noise: bool, close: bool) -> None:
    flux, true, separation, sigma = _measurements(4000, 2)
    errors = FIT.flux_err(flux, separation, sigma if with_noise else None)
    chosen = (separation < 7) == close
    covered = (np.abs(flux - true) <= errors)[chosen].mean()
    assert covered == pytest.approx(0.683, abs=0.03)


def test_the_fit_does_not_depend_on_the_unit() -> None:
    flux, true, separation, sigma = _measurements(500, 3)
    one = fit_error_model(flux, true, separation, sigma)
    other = fit_error_model(flux * 1000, true * 1000, separation, sigma * 1000)
    np.testing.assert_allclose(other.with_noise, one.with_noise, atol=0.02)


def test_pairs_without_a_flux_are_left_out() -> None:
    flux, true, separation, sigma = _measurements(500, 3)
    flux[7, 0], flux[9, 1] = np.nan, 0.0
    assert np.isfinite(fit_error_model(flux, true, separation, sigma).with_noise).all()


@pytest.mark.parametrize("quantile", [0.1, 0.5, 0.9])
def test_quantile_regression_splits_the_sample(quantile: float) -> None:
    rng = np.random.default_rng(5)
    x = rng.uniform(0, 1, 2000)
    y = 2 * x + (1 + x) * rng.normal(size=2000)
    columns = np.stack([np.ones_like(x), x], axis=1)
    fitted = columns @ quantile_regression(columns, y, quantile)
    assert (y <= fitted).mean() == pytest.approx(quantile, abs=0.01)
    assert (y <= fitted)[x > 0.5].mean() == pytest.approx(quantile, abs=0.03)
