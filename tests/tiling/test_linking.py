"""Links: by separation and by isophotes, each once, and refused where no sky has so many."""

from __future__ import annotations

import time

import numpy as np
import pytest
from hypothesis import given

from deblend_batch.detections.table import Detections
from deblend_batch.errors import TooLargeError
from deblend_batch.tiling.linking import ISOPHOTE_RADII, link_sources
from deblend_batch.tiling.sphere import separations_arcsec, unit_vectors
from tests.tiling.skies import skies, sky_at


@given(skies())
def test_links_are_those_of_the_rule_each_once(found: Detections) -> None:
    links = link_sources(found, 2.0, 6.4)
    vectors = unit_vectors(found.ra, found.dec)
    radius = np.where(
        np.isfinite(found.radius_arcsec) & (found.radius_arcsec > 0), found.radius_arcsec, 0
    ).astype(np.float64)
    expected = set()
    for i in range(len(found)):
        apart = separations_arcsec(vectors[i], vectors)
        isophotes = np.minimum(ISOPHOTE_RADII * (radius[i] + radius), 6.4)
        linked = (apart <= 2.0 * (1 + 1e-12)) | (apart < isophotes)
        expected |= {(i, int(j)) for j in np.flatnonzero(linked) if j > i}
    assert {tuple(row) for row in links.rows.tolist()} == expected
    assert len(links.rows) == len(expected)


@pytest.mark.parametrize(
    ("separation_arcsec", "radius", "linked"),
    [
        (1.9, [np.nan, np.nan], True),
        (2.1, [np.nan, np.nan], False),
        (2.1, [0.5, 0.5], False),
        (2.1, [0.6, 0.5], True),
        (2.1, [1.1, np.nan], True),
        (2.1, [np.nan, 1.1], True),
        (2.1, [1.0, 0.0], False),
        (6.3, [1e30, np.nan], True),
        (6.5, [1e30, 1e30], False),
        (2.1, [-5.0, np.inf], False),
    ],
    ids=[
        "near", "far", "small", "large", "one large", "the other large", "one is not large enough",
        "huge", "beyond any stamp", "no radii",
    ],
)  # fmt: skip
def test_two_are_linked_where_they_are_near_or_their_isophotes_overlap(
    separation_arcsec: float, radius: list[float], linked: bool
) -> None:
    found = sky_at(np.array([[50.0, 50.0], [50.0, 50 + 10 * separation_arcsec]]), radius=radius)
    assert len(link_sources(found, 2.0, 6.4).rows) == linked


@pytest.mark.parametrize("dec", [-90.0, 90.0, 89.9999, 0.0])
@pytest.mark.parametrize("ra", [0.0, 359.99999])
def test_links_cross_the_poles_and_the_end_of_right_ascension(ra: float, dec: float) -> None:
    vectors = unit_vectors(np.array([ra]), np.array([dec]))
    rng = np.random.default_rng(1)
    scattered = vectors + rng.normal(0, 2e-5, (300, 3))
    scattered /= np.linalg.norm(scattered, axis=1, keepdims=True)
    found = sky_at(np.zeros((300, 2)), radius=rng.uniform(0, 1.5, 300))
    found = Detections(
        id=found.id,
        ra=np.degrees(np.arctan2(scattered[:, 1], scattered[:, 0])) % 360,
        dec=np.degrees(np.arcsin(scattered[:, 2])),
        yx=found.yx,
        mag=found.mag,
        radius_arcsec=found.radius_arcsec,
    )
    apart = separations_arcsec(scattered[:, None], scattered[None])
    radius = found.radius_arcsec.astype(np.float64)
    isophotes = np.minimum(2 * (radius[:, None] + radius), 5.0)
    expected = np.triu((apart < np.maximum(isophotes, 1.0)) & (apart > 0), 1).sum()
    assert len(link_sources(found, 1.0, 5.0).rows) == expected


def test_more_links_than_any_sky_has_are_refused() -> None:
    found = sky_at(np.random.default_rng(0).uniform(0, 5, (3000, 2)))
    with pytest.raises(TooLargeError, match=r"3,000 sources, more .* a smaller blends\.link$"):
        link_sources(found, 2.0, 6.4)


def test_radii_in_another_unit_are_refused_at_once() -> None:
    """Radii of a table in milliarcseconds: every isophote reaches over all others."""
    yx = np.random.default_rng(0).uniform(0, 1200, (30_000, 2))
    found = sky_at(yx, radius=np.full(30_000, 500.0))
    started = time.monotonic()
    with pytest.raises(TooLargeError, match="more than any sky has; give 'radius' in arcsec"):
        link_sources(found, 0.5, 12.8)
    assert time.monotonic() - started < 20
