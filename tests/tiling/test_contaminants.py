"""Contaminants: bright sources that are linked to nobody in a blend are fitted beside it."""

from __future__ import annotations

import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from deblend_batch.detections.table import Detections
from deblend_batch.tiling.blending import Sky
from deblend_batch.tiling.contaminants import LEAST_LIGHT, MOST_CONTAMINANTS, add_contaminants
from deblend_batch.tiling.grouping import BlendRules, Grouping, group_sources
from deblend_batch.tiling.stamp_sizes import LARGEST_EXTENT_PX
from tests.tiling.skies import SCALE_ARCSEC, SHAPE_YX, sky_at

FWHM_ARCSEC = 0.3
Beside = dict[frozenset[int], frozenset[int]]
"""Who is fitted beside those that are measured, by ids."""


@st.composite
def skies(draw: st.DrawFn) -> Detections:
    """Sources of all magnitudes and sizes, some unknown, no two at one distance."""
    n = draw(st.integers(0, 40))
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    width = draw(st.sampled_from([60.0, 150.0, 390.0]))
    mag = rng.uniform(16, 26, n)
    radius = 10 ** rng.uniform(-1.3, 0.5, n)
    mag[rng.random(n) < 0.1], radius[rng.random(n) < 0.2] = np.nan, np.nan
    return sky_at(rng.uniform(0, width, (n, 2)), ids=rng.permutation(n), mag=mag, radius=radius)


rules = st.builds(BlendRules, st.sampled_from([0.4, 1.0]), st.sampled_from([1, 2, 4, 8]))


def grouped(found: Detections, rule: BlendRules) -> tuple[Grouping, Grouping]:
    """Blends without and with contaminants."""
    assert found.yx is not None
    before = group_sources(found, found.yx, SCALE_ARCSEC, rule)
    sky = Sky(found, found.yx, SHAPE_YX)
    return before, add_contaminants(before, sky, SCALE_ARCSEC, FWHM_ARCSEC, rule.max_members)


def beside(found: Detections, grouping: Grouping) -> Beside:
    """By the ids of those that are measured, the ids of the others."""
    own = [found.id[rows[here]] for rows, here in zip(*_columns(grouping), strict=True)]
    others = [
        found.id[rows[(rows >= 0) & ~here]] for rows, here in zip(*_columns(grouping), strict=True)
    ]
    return {
        frozenset(one.tolist()): frozenset(more.tolist())
        for one, more in zip(own, others, strict=True)
    }


def _columns(grouping: Grouping) -> tuple[np.ndarray, np.ndarray]:
    return grouping.rows, grouping.is_measured


def light(found: Detections, source: int, by: int) -> float:
    """Light of one beyond the line halfway to another, by that one's own: numerically."""
    assert found.yx is not None
    away = float(np.hypot(*(found.yx[source] - found.yx[by])))
    known = float(np.nan_to_num(found.radius_arcsec[by]))
    radius = np.hypot(known, FWHM_ARCSEC / 2) / SCALE_ARCSEC
    angle = np.linspace(0, np.pi / 2, 501)[:-1]
    # Moffat of index 2: a / (a^2 + r^2) of its light lies beyond r; here beyond a line, angle by angle.
    from_line = away / 2 / np.cos(angle)
    share = float(np.mean(radius**2 / (radius**2 + from_line**2)) / 2)
    return share * 10 ** (0.4 * float(found.mag[source] - found.mag[by]))


@given(skies(), rules)
def test_what_is_measured_stays_as_it_is(found: Detections, rule: BlendRules) -> None:
    before, after = grouped(found, rule)
    width = before.rows.shape[1]
    np.testing.assert_array_equal(
        after.rows[:, :width][before.rows >= 0], before.rows[before.rows >= 0]
    )
    np.testing.assert_array_equal(after.is_measured[:, :width], before.is_measured)
    assert not after.is_measured[:, width:].any()
    np.testing.assert_array_equal(after.is_divided, before.is_divided)
    n_members = (after.rows >= 0).sum(axis=1)
    assert (n_members <= rule.max_members).all()
    assert (n_members - (before.rows >= 0).sum(axis=1) <= MOST_CONTAMINANTS).all()
    assert found.yx is not None
    for padded in after.rows:
        rows = padded[padded >= 0]
        assert len(set(rows.tolist())) == len(rows)
        assert np.ptp(found.yx[rows], axis=0).max() <= LARGEST_EXTENT_PX


@given(skies(), rules, st.sampled_from([0.0, 0.3, 1.0]))
def test_what_another_field_measures_has_no_contaminants_here(
    found: Detections, rule: BlendRules, share: float
) -> None:
    """It may be one itself; of a field whose sources are all another's nothing is left."""
    assert found.yx is not None
    own = np.random.default_rng(len(found)).random(len(found)) < share
    before = group_sources(found, found.yx, SCALE_ARCSEC, rule).owning(own)
    sky = Sky(found, found.yx, SHAPE_YX)
    after = add_contaminants(before, sky, SCALE_ARCSEC, FWHM_ARCSEC, rule.max_members)
    assert len(after) == len(before)
    assert sorted(after.rows[after.is_measured]) == np.flatnonzero(own).tolist()


@given(skies(), rules)
@settings(max_examples=40)
def test_contaminants_are_those_with_light_in_the_blend(
    found: Detections, rule: BlendRules
) -> None:
    before, after = grouped(found, rule)
    for old, new, here in zip(before.rows, after.rows, after.is_measured, strict=True):
        own = new[here & np.isfinite(found.mag[new])]
        most = {
            other: max((light(found, source, other) for source in own), default=0.0)
            for other in range(len(found))
            if other not in old and np.isfinite(found.mag[other])
        }
        added = set(new[new >= 0].tolist()) - set(old.tolist())
        assert all(most[other] > LEAST_LIGHT * 0.98 for other in added)
        if len(added) < min(MOST_CONTAMINANTS, rule.max_members - (old >= 0).sum()):
            left = [each for each in most if each not in added and most[each] > LEAST_LIGHT * 1.02]
            for other in (each for each in left if _near(found, own, old[old >= 0], each)):
                source = own[np.argmax([light(found, one, other) for one in own])]
                assert _nearer_and_as_bright(found, source, other) >= MOST_CONTAMINANTS


def _nearer_and_as_bright(found: Detections, source: int, other: int) -> int:
    """Of each magnitude only the nearest few are looked at."""
    assert found.yx is not None
    apart = np.hypot(*(found.yx - found.yx[source]).T)
    alike = np.floor(found.mag) == np.floor(found.mag[other])
    return int((alike & (apart < apart[other])).sum()) - int(alike[source])


def _near(found: Detections, own: np.ndarray, members: np.ndarray, other: int) -> bool:
    """Whether a source is so near that any stamp of these would hold it."""
    assert found.yx is not None
    apart = np.hypot(*(found.yx[own] - found.yx[other]).T)
    together = found.yx[[*members, other]]
    return bool(max(apart.max(), np.ptp(together, axis=0).max()) < LARGEST_EXTENT_PX / 2)


@given(skies(), rules)
def test_they_do_not_depend_on_the_order_of_detections(found: Detections, rule: BlendRules) -> None:
    order = np.random.default_rng(len(found)).permutation(len(found))
    shuffled = found[order]
    first, second = grouped(found, rule)[1], grouped(shuffled, rule)[1]
    assert beside(found, first) == beside(shuffled, second)


@given(skies(), rules, st.sampled_from([100.0, 250.0]))
def test_they_follow_from_what_is_within_a_stamp(
    found: Detections, rule: BlendRules, edge: float
) -> None:
    """A tile need know no more than its halo."""
    assert found.yx is not None
    halo = 2.5 * LARGEST_EXTENT_PX  # groups of the sky above are narrower than half of it
    near = np.flatnonzero((found.yx < edge + halo).all(axis=1))
    whole = beside(found, grouped(found, rule)[1])
    part = beside(found[near], grouped(found[near], rule)[1])
    inside = set(found.id[(found.yx < edge).all(axis=1)].tolist())
    for own, others in part.items():
        if own <= inside and own in whole:
            assert others == whole[own]


@pytest.mark.parametrize(
    ("mag", "radius", "expected"),
    [
        ((23.0, 19.5), (0.3, 0.6), 1),  # an unlinked neighbour 3.5 mag brighter
        ((23.0, 23.0), (0.1, 0.1), 0),  # as bright, and small
        ((19.5, 23.0), (0.3, 0.3), 0),  # the bright one itself
        ((np.nan, 19.5), (0.3, 0.6), 0),
        ((23.0, np.nan), (0.3, 0.6), 0),
        ((23.0, 19.5), (np.nan, np.inf), 1),  # by the PSF alone
    ],
)
def test_a_bright_neighbour_beyond_the_link_is_fitted_beside(
    mag: tuple[float, float], radius: tuple[float, float], expected: int
) -> None:
    found = sky_at(np.array([[50.0, 50.0], [50.0, 80.0]]), mag=mag, radius=radius)
    _, after = grouped(found, BlendRules(0.4))
    assert beside(found, after)[frozenset([1])] == ({2} if expected else set())


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("mag", [(-1e30, 1e30), (0.0, 3e38), (16.0, 1e6)])
def test_numbers_that_are_no_magnitudes_do_no_harm(mag: tuple[float, float]) -> None:
    yx = np.random.default_rng(0).uniform(0, 400, (500, 2))
    spread = np.linspace(*mag, 500)
    found = sky_at(yx, mag=spread, radius=np.full(500, 3e38))
    _, after = grouped(found, BlendRules(0.4))
    assert (after.rows >= 0).sum() >= 500


def test_a_crowd_takes_seconds() -> None:
    rng = np.random.default_rng(0)
    found = sky_at(rng.uniform(0, 700, (20_000, 2)), mag=rng.uniform(15, 27, 20_000))
    started = time.monotonic()
    grouped(found, BlendRules(0.2))
    assert time.monotonic() - started < 20
