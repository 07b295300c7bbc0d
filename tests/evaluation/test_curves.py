from __future__ import annotations

import json

import numpy as np
import pytest

from deblend_batch.evaluation.curves import MAG_DIFFERENCE_EDGES, bin_numbers, curve


def test_the_bins_are_six_equal_ones_from_minus_two_to_two() -> None:
    np.testing.assert_allclose(MAG_DIFFERENCE_EDGES, [-2, -4 / 3, -2 / 3, 0, 2 / 3, 4 / 3, 2])


@pytest.mark.parametrize(
    ("value", "expected"),
    [(-2.0, 0), (-1.34, 0), (0.0, 3), (1.99, 5), (2.0, 5), (2.01, -1), (-2.01, -1), (np.nan, -1)],
)
def test_bin_numbers(value: float, expected: int) -> None:
    assert bin_numbers([value], MAG_DIFFERENCE_EDGES).tolist() == [expected]


def test_median_scatter_and_counts_of_each_bin() -> None:
    difference = np.array([-1.9, -1.8, -1.7, 0.1, 0.2, 1.9, 5.0])
    dmag = np.array([0.1, 0.2, 0.6, -0.1, np.nan, np.nan, 9.0])
    found = curve(dmag, difference)
    assert found.n.tolist() == [3, 0, 0, 1, 0, 0]
    assert found.n_undetected.tolist() == [0, 0, 0, 1, 0, 1]
    assert found.median[0] == pytest.approx(0.2)
    assert found.sigma[0] == pytest.approx(np.std([0.1, 0.2, 0.6]))
    assert np.isnan(found.median[[1, 2, 4, 5]]).all()


def test_an_empty_curve_is_json() -> None:
    values = json.loads(json.dumps(curve([], []).to_dict(), allow_nan=False))
    assert values["median"] == [None] * 6
