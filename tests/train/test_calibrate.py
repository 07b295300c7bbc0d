from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from numpy.typing import NDArray

from deblend_batch.models.uncertainty import Evidence
from deblend_batch.train.calibrate import fit_error_model, quantile_regression


def _measurements(n: int, seed: int) -> tuple[Evidence, NDArray[np.float32]]:
    """Fluxes whose true error is known: a term from the split and one from the noise."""
    rng = np.random.default_rng(seed)
    true = (100 * np.exp(rng.normal(0, 1, (n, 2)))).astype(np.float32)
    separation = np.exp(rng.uniform(1, 3, n)).astype(np.float32)
    sigma = np.exp(rng.uniform(-2, 0, n)).astype(np.float32)
    extent = rng.uniform(0, 1, n)
    error = (0.5 * true / separation[:, None] + 3 * sigma[:, None]) * np.exp(extent)[:, None]
    flux = (true + 0.5 * error * rng.normal(size=(n, 2))).astype(np.float32)
    hints = np.stack([extent, rng.normal(0, 0.1, n)], axis=1).astype(np.float32)
    return Evidence(flux, separation, rng.uniform(0, 1, (n, 2)), hints, sigma), true


FIT = fit_error_model(*_measurements(3000, 1))


@pytest.mark.parametrize("with_noise", [True, False])
@pytest.mark.parametrize("what", ["all", "close", "extended"])
def test_one_sigma_covers_68_per_cent_of_new_pairs(with_noise: bool, what: str) -> None:
    evidence, true = _measurements(4000, 2)
    errors = FIT.flux_err(evidence if with_noise else replace(evidence, sigma=None))
    chosen = {
        "all": np.ones(4000, bool),
        "close": evidence.separation_px < 7,
        "extended": evidence.hints[:, 0] > 0.5,
    }[what]
    covered = (np.abs(evidence.flux - true) <= errors)[chosen].mean()
    assert covered == pytest.approx(0.683, abs=0.03)


def test_pairs_without_a_flux_are_left_out() -> None:
    evidence, true = _measurements(500, 3)
    evidence.flux[7, 0], evidence.flux[9, 1] = np.nan, 0.0
    assert np.isfinite(fit_error_model(evidence, true).with_noise).all()


def test_a_predictor_that_never_varies_does_no_harm() -> None:
    evidence, true = _measurements(500, 3)
    alone = replace(evidence, crowding=np.zeros((500, 2)))
    errors = fit_error_model(alone, true).flux_err(alone)
    assert (np.abs(alone.flux - true) <= errors).mean() == pytest.approx(0.683, abs=0.02)


@pytest.mark.parametrize("quantile", [0.1, 0.5, 0.9])
def test_quantile_regression_splits_the_sample(quantile: float) -> None:
    rng = np.random.default_rng(5)
    x = rng.uniform(0, 1, 2000)
    y = 2 * x + (1 + x) * rng.normal(size=2000)
    columns = np.stack([np.ones_like(x), x], axis=1)
    fitted = columns @ quantile_regression(columns, y, quantile)
    assert (y <= fitted).mean() == pytest.approx(quantile, abs=0.01)
    assert (y <= fitted)[x > 0.5].mean() == pytest.approx(quantile, abs=0.03)
