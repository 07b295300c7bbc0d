"""Fluxes and magnitudes."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from deblend_batch.field.photometry import magnitude, magnitude_error, nanojansky_per_unit


@pytest.mark.parametrize(
    ("zero_point", "njy"),
    [(31.4, 1.0), (23.9, 1000.0), (25.9463, 10 ** (0.4 * 5.4537)), (0.0, 10**12.56)],
)
def test_one_image_unit_in_njy(zero_point: float, njy: float) -> None:
    assert float(nanojansky_per_unit(zero_point)) == pytest.approx(njy, rel=1e-12)


@given(st.floats(15, 35), st.floats(20, 31))
def test_magnitudes_do_not_depend_on_the_image_unit(mag: float, zero_point: float) -> None:
    units = 10 ** (-0.4 * (mag - zero_point))
    assert float(magnitude(units * nanojansky_per_unit(zero_point))) == pytest.approx(mag, abs=1e-9)


@pytest.mark.parametrize("flux", [0.0, -1.0, np.nan, -np.inf])
def test_no_magnitude_where_the_flux_is_not_positive(flux: float) -> None:
    assert np.isnan(magnitude(flux))
    assert np.isnan(magnitude_error(flux, 1.0))


def test_magnitude_error_is_the_derivative() -> None:
    step = 1e-4
    numeric = (magnitude(100.0 - step) - magnitude(100.0 + step)) / (2 * step)
    assert float(magnitude_error(100.0, 1.0)) == pytest.approx(float(numeric), rel=1e-6)


@given(st.floats(), st.floats())
def test_any_flux_has_a_magnitude_or_none(flux: float, error: float) -> None:
    assert np.isnan(magnitude(flux)) == (not flux > 0)
    assert np.isnan(magnitude_error(flux, error)) or flux > 0
