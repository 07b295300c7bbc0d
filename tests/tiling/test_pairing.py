"""Pair finding: complete, independent of order, one primary row per source."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from deblend_batch import flags
from deblend_batch.detections.table import Detections
from deblend_batch.errors import TooLargeError
from deblend_batch.tiling.blending import Sky, choose_primary, describe_pairs
from deblend_batch.tiling.blends import MAX_OTHERS
from deblend_batch.tiling.pairing import (
    blend_ids,
    check_crowding,
    match_within,
    order_members,
)
from deblend_batch.tiling.sphere import separations_arcsec, unit_vectors


def detections_at(
    yx: np.ndarray, ids: np.ndarray | None = None, mag: np.ndarray | None = None
) -> Detections:
    """Detections on a flat sky of 1 arcsec a pixel near the equator."""
    n = len(yx)
    return Detections(
        id=np.arange(1, n + 1) if ids is None else ids,
        ra=150 + yx[:, 1] / 3600,
        dec=yx[:, 0] / 3600,
        yx=yx,
        mag=np.full(n, np.nan, np.float32) if mag is None else mag.astype(np.float32),
        radius_arcsec=np.full(n, np.nan, np.float32),
    )


positions = st.lists(
    st.tuples(st.integers(0, 60), st.integers(0, 60)), min_size=0, max_size=25
).map(lambda points: np.array(points, np.float64).reshape(-1, 2) / 4)


@given(positions, st.sampled_from([0.25, 0.5, 2.0, 5.0]))
def test_every_close_pair_is_found_once(yx: np.ndarray, limit: float) -> None:
    found = detections_at(yx)
    rows = match_within(found.ra, found.dec, limit)
    vectors = unit_vectors(found.ra, found.dec)
    expected = {
        (i, j)
        for i in range(len(yx))
        for j in range(i + 1, len(yx))
        if separations_arcsec(vectors[[i]], vectors[[j]])[0] <= limit * (1 + 1e-12)
    }
    assert {tuple(sorted(row)) for row in rows.tolist()} == expected
    assert len(rows) == len(expected)


@given(positions, st.randoms(use_true_random=False))
def test_pairs_do_not_depend_on_the_order_of_detections(yx: np.ndarray, random: object) -> None:
    order = np.random.default_rng(len(yx)).permutation(len(yx))
    results = []
    for rows_in_order in (np.arange(len(yx)), order):
        found = detections_at(yx)[rows_in_order]
        assert found.yx is not None
        rows = order_members(match_within(found.ra, found.dec, 3.0), found)
        results.append(describe_pairs(rows, Sky(found, found.yx, (16, 16)), 8))
    first, second = results
    for name in ("blend_id", "source_id", "yx", "is_primary", "separation_arcsec"):
        np.testing.assert_array_equal(getattr(first, name), getattr(second, name))


@given(positions)
def test_each_source_has_exactly_one_primary_row(yx: np.ndarray) -> None:
    found = detections_at(yx)
    rows = order_members(match_within(found.ra, found.dec, 4.0), found)
    pairs = describe_pairs(rows, Sky(found, yx, (16, 16)), 8)
    ids, counts = np.unique(pairs.source_id[pairs.is_primary], return_counts=True)
    assert set(ids) == set(pairs.source_id.ravel())
    assert (counts == 1).all()


def test_primary_is_the_closest_pair() -> None:
    apart, measured = np.array([[2.0, 2.0], [1.0, 1.0]]), np.ones((2, 2), bool)
    ids, blends = np.array([[1, 2], [2, 3]]), np.array([10, 5])
    primary = choose_primary(ids, apart, blends, measured)
    np.testing.assert_array_equal(primary, [[True, False], [True, True]])


@pytest.mark.parametrize(
    ("ids", "mag", "central", "by_id"),
    [
        ([5, 3], [20.0, 21.0], 5, False),
        ([5, 3], [21.0, 20.0], 3, False),
        ([5, 3], [20.0, 20.0], 3, False),
        ([5, 3], [np.nan, 20.0], 3, True),
        ([3, 5], [np.nan, np.nan], 3, True),
    ],
    ids=["first brighter", "second brighter", "tie", "one unknown", "both unknown"],
)
def test_central_is_the_brighter_else_the_smaller_id(
    ids: list[int], mag: list[float], central: int, by_id: bool
) -> None:
    found = detections_at(np.array([[0.0, 0.0], [0.0, 1.5]]), np.array(ids), np.array(mag))
    assert found.yx is not None
    rows = order_members(match_within(found.ra, found.dec, 2.0), found)
    pairs = describe_pairs(rows, Sky(found, found.yx, (10, 10)), 8)
    assert pairs.source_id[0, 0] == central
    assert bool(pairs.flags[0, 0] & flags.ROLE_BY_ID.value) is by_id


@given(st.integers(-(2**62), 2**62), st.integers(-(2**62), 2**62))
def test_blend_id_is_symmetric_and_not_negative(first: int, second: int) -> None:
    a, b = np.array([first]), np.array([second])
    assert blend_ids(a, b) == blend_ids(b, a)
    assert blend_ids(a, b)[0] >= 0


def test_blend_id_never_changes() -> None:
    # Catalogues of different runs are joined on it: this value is part of the contract.
    found = blend_ids(np.array([1, 7]), np.array([2, 2**40])).tolist()
    assert found == [6804074658870690613, 7001579321976618919]


def test_blend_ids_of_a_survey_do_not_collide() -> None:
    first = np.arange(200_000)
    assert len(np.unique(blend_ids(first, first + 1))) == len(first)


@settings(max_examples=30)
@given(positions)
def test_neighbours_are_the_other_sources_in_the_stamp(yx: np.ndarray) -> None:
    yx = yx + np.random.default_rng(0).uniform(0, 1e-3, yx.shape)  # no ties
    found = detections_at(yx)
    rows = order_members(match_within(found.ra, found.dec, 3.0), found)
    pairs = describe_pairs(rows, Sky(found, yx, (16, 16)), 8)
    for row in range(len(pairs)):
        centre = pairs.yx[row, 0]
        distance = np.abs(yx - centre).max(axis=1)
        others = [
            i
            for i in np.argsort(distance)
            if distance[i] < 4 and found.id[i] not in pairs.source_id[row]
        ][:MAX_OTHERS]
        got = pairs.others_yx[row]
        np.testing.assert_array_equal(got[: len(others)], yx[others].astype(np.float32))
        assert np.isnan(got[len(others) :]).all()
        crowded = bool(pairs.flags[row, 0] & flags.CROWDED.value)
        assert crowded is (len(others) > 0)


def test_members_outside_the_image_and_on_top_of_each_other_are_flagged() -> None:
    found = detections_at(np.array([[5.0, 5.0], [5.0, 5.4], [-1.0, 3.0], [1.0, 3.0]]))
    assert found.yx is not None
    rows = order_members(match_within(found.ra, found.dec, 2.0), found)
    pairs = describe_pairs(rows, Sky(found, found.yx, (10, 10)), 8)
    by_ids = {
        tuple(ids): bits for ids, bits in zip(pairs.source_id.tolist(), pairs.flags, strict=True)
    }
    assert (by_ids[1, 2] & flags.COINCIDENT.value).all()
    assert [bool(bit & flags.OUTSIDE_IMAGE.value) for bit in by_ids[3, 4]] == [True, False]


@settings(deadline=None)
@given(points=positions, times=st.integers(1, 4))
def test_what_is_as_crowded_as_a_sky_is_let_through(points: np.ndarray, times: int) -> None:
    found = detections_at(np.repeat(points, times, axis=0))
    check_crowding(found.ra, found.dec, 2.0)


@pytest.mark.parametrize("spread_arcsec", [0.0, 1e-6, 1.0, 3.0])
def test_more_sources_in_a_place_than_any_sky_has_are_refused(spread_arcsec: float) -> None:
    yx = np.random.default_rng(0).uniform(0, spread_arcsec, (3000, 2)) + 1
    found = detections_at(yx)
    with pytest.raises(TooLargeError, match="pairs of 3,000 sources, more than any sky has"):
        check_crowding(found.ra, found.dec, 2.0)


def test_a_crowded_field_of_real_density_is_let_through() -> None:
    """A source in 13 square arcseconds, as towards the centre of the Milky Way."""
    found = detections_at(np.random.default_rng(0).uniform(0, 1140, (100_000, 2)))
    check_crowding(found.ra, found.dec, 2.0)
    assert len(match_within(found.ra, found.dec, 2.0)) > 40_000
