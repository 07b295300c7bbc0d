from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from deblend_batch.simulate.galaxies.population import KINDS, Component, Kind, Population, Structure

POPULATION = Population.shipped()


@given(magnitude=st.floats(10, 40), seed=st.integers(0, 2**32))
def test_any_magnitude_gives_a_galaxy_that_can_be_drawn(magnitude: float, seed: int) -> None:
    structure = POPULATION.draw(magnitude, np.random.default_rng(seed))
    parts = [part for part in (structure.spheroid, structure.disc) if part is not None]
    assert sum(part.fraction for part in parts) == pytest.approx(1.0)
    for part in parts:
        assert 0.003 < part.radius_arcsec < 8
        assert 0.05 < part.q <= 1
        assert 0.2 < part.n < 6.2


@pytest.mark.parametrize("kind", KINDS)
def test_a_type_has_its_components(kind: Kind) -> None:
    structure = POPULATION.draw_kind(kind, 22.0, np.random.default_rng(1))
    assert structure.kind == kind
    assert (structure.spheroid is not None) == (kind in {"sph", "sphd"})
    assert (structure.disc is not None) == (kind in {"sphd", "disk", "irr"})


def test_fractions_are_those_of_the_draws() -> None:
    rng = np.random.default_rng(2)
    drawn = [POPULATION.draw(22.5, rng).kind for _ in range(3000)]
    found = np.array([drawn.count(kind) for kind in KINDS]) / 3000
    np.testing.assert_allclose(found, POPULATION.fractions(22.5), atol=0.03)


@pytest.mark.parametrize(
    ("bright", "faint", "larger"), [(20.0, 22.0, "bright"), (22.0, 24.5, "bright")]
)
def test_fainter_galaxies_are_smaller(bright: float, faint: float, larger: str) -> None:
    rng = np.random.default_rng(3)
    median = [
        np.median([POPULATION.draw(mag, rng).radius_arcsec for _ in range(500)])
        for mag in (bright, faint)
    ]
    assert (median[0] > median[1]) == (larger == "bright")


def test_the_same_stream_gives_the_same_galaxy() -> None:
    first, second = (POPULATION.draw(22.0, np.random.default_rng(5)) for _ in range(2))
    assert first == second


@pytest.mark.parametrize(
    ("bulge_share", "expected"),
    [(1e-9, 1.0), (1 - 1e-9, 0.2), (0.5, None)],
    ids=["disc", "bulge", "both"],
)
def test_half_light_radius_lies_between_those_of_the_parts(
    bulge_share: float, expected: float | None
) -> None:
    bulge, disc = Component(0.2, 4.0, 0.8, bulge_share), Component(1.0, 1.0, 0.5, 1 - bulge_share)
    radius = Structure("sphd", bulge, disc).radius_arcsec
    assert 0.2 <= radius <= 1.0
    if expected is not None:
        assert radius == pytest.approx(expected, rel=1e-3)


def test_axis_ratio_is_that_of_the_brighter_part() -> None:
    bulge, disc = Component(0.2, 4.0, 0.8, 0.3), Component(1.0, 1.0, 0.5, 0.7)
    assert Structure("sphd", bulge, disc).axis_ratio == 0.5
