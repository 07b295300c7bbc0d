from __future__ import annotations

import json
from importlib import resources
from pathlib import Path

import numpy as np
import pytest
from astropy.table import Table

from deblend_batch.errors import NotFoundError
from deblend_batch.simulate.galaxies.fit_population import (
    LEVELS,
    MAGNITUDES,
    fit_population,
    main,
    sersic_total,
)
from deblend_batch.simulate.galaxies.population import Population


@pytest.fixture(scope="module")
def catalog(tmp_path_factory: pytest.TempPathFactory) -> str:
    """3,000 galaxies of known distribution: a third spheroids, a third discs, a third both."""
    rng, n = np.random.default_rng(1), 3000
    kind = np.arange(n) % 3
    radius_px = 10 * np.exp(0.3 * rng.standard_normal(n))
    single = np.zeros((n, 8))
    single[:, 0], single[:, 1], single[:, 3] = 1.0, radius_px, rng.uniform(0.4, 0.9, n)
    single[:, 2] = np.where(kind == 0, 4.0, 1.0) * np.exp(0.05 * rng.standard_normal(n))
    bulge = single.copy()
    bulge[:, 1], bulge[:, 2] = 0.5 * radius_px * np.exp(0.05 * rng.standard_normal(n)), 4.0
    bulge[:, 3] = rng.uniform(0.4, 0.9, n)
    disc = single.copy()
    disc[:, 2] = 1.0
    ratio = sersic_total(*(bulge[:, i] for i in range(4))) / sersic_total(
        *(disc[:, i] for i in range(4))
    )
    bulge[:, 0] = rng.uniform(0.4, 0.6, n) / ratio  # a bulge of about one third of the light
    table = Table(
        {
            "mag_auto": rng.uniform(18, 25, n),
            "flux_radius": radius_px,
            "sersicfit": single,
            "bulgefit": np.concatenate([disc, bulge], axis=1),
            "use_bulgefit": (kind == 2).astype(np.int32),
        }
    )
    url = str(tmp_path_factory.mktemp("cosmos") / "fits.fits")
    table.write(url)
    return url


def test_the_fit_recovers_the_distribution(catalog: str) -> None:
    fitted = fit_population(catalog)
    for kind in ("sph", "disk", "sphd"):
        np.testing.assert_allclose(fitted["fraction"][kind], 1 / 3, atol=0.06)
    median = list(LEVELS).index(0.5)
    of_both = fitted["classes"]["sphd"]["quantiles"]
    np.testing.assert_allclose([row[median] for row in of_both["bulge_fraction"]], 1 / 3, atol=0.01)
    np.testing.assert_allclose(
        [row[median] for row in of_both["log_bulge_ratio"]], np.log(0.5), atol=0.02
    )
    of_disc = fitted["classes"]["disk"]["quantiles"]["log_radius"]
    np.testing.assert_allclose([row[median] for row in of_disc], np.log(0.3), atol=0.08)


def test_draws_from_the_fit_follow_it(catalog: str) -> None:
    population, rng = Population(fit_population(catalog)), np.random.default_rng(2)
    radius = [population.draw_kind("disk", 22.0, rng).radius_arcsec for _ in range(1500)]
    assert np.median(radius) == pytest.approx(0.3, rel=0.1)
    assert np.std(np.log(radius)) == pytest.approx(0.3, abs=0.05)


def test_main_writes_what_population_reads(catalog: str, tmp_path: Path) -> None:
    main([catalog, str(tmp_path / "population.json")])
    Population(json.loads((tmp_path / "population.json").read_text()))


def test_a_missing_catalogue_is_named(tmp_path: Path) -> None:
    with pytest.raises(NotFoundError, match=r"none\.fits: no such file"):
        fit_population(str(tmp_path / "none.fits"))


@pytest.mark.parametrize(("n", "factor"), [(1.0, 11.95), (4.0, 22.67)])
def test_total_flux_of_sersic_profiles(n: float, factor: float) -> None:
    """Exponential 11.95 I Re^2 and de Vaucouleurs 22.67 I Re^2 (Graham & Driver 2005)."""
    values = (np.array(v) for v in (2.0, 3.0, n, 0.5))
    assert sersic_total(*values) == pytest.approx(factor * 2.0 * 9.0 * 0.5, rel=1e-3)


def test_the_shipped_distribution_is_the_fit_to_cosmos(shared: Path) -> None:
    text = (
        resources.files("deblend_batch.simulate.galaxies").joinpath("population.json").read_text()
    )
    table = shared / "data" / "real_galaxies" / "cosmos_parametric_fits_25000.fits"
    assert json.loads(text) == fit_population(str(table))
    assert len(json.loads(text)["magnitude_f814w"]) == MAGNITUDES.size
