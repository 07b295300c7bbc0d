"""Whose a source is: one order of all claims, and one row for each source of the sky."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from deblend_batch.errors import TooLargeError
from deblend_batch.field.footprint import Footprint
from deblend_batch.field.layout import Field
from deblend_batch.tiling.ownership import (
    BEYOND_FOOTPRINT,
    IN_FOOTPRINT,
    NO_FOOTPRINT,
    NOT_HELD,
    Claims,
    TableRows,
    claims_of,
    find_stand_ins,
)
from deblend_batch.tiling.sphere import separations_arcsec, unit_vectors
from tests.support import PIXEL_SCALE_ARCSEC, make_meta

SHAPE_YX = (100, 120)
MATCH_ARCSEC = 1.0
POLES = ((150.0, 2.0), (0.0, 0.0), (33.0, 90.0), (200.0, -89.9999))


def field_at(ra: float, dec: float, footprint: Footprint | None = None) -> Field:
    """A field without a store: its place on the sky is all that counts."""
    place = {"CRVAL1": ra, "CRVAL2": dec, "CRPIX1": 60.5, "CRPIX2": 50.5}
    meta = make_meta(wcs_cards={**make_meta().wcs_cards, **place}, footprint=footprint)
    return Field("", None, meta, SHAPE_YX, frozenset({"image"}))


@pytest.mark.parametrize("centre", POLES)
def test_a_claim_tells_the_distance_to_the_nearest_edge(centre: tuple[float, float]) -> None:
    field = field_at(*centre)
    yx = np.array(
        [(49.5, 59.5), (0.0, 59.5), (49.5, 119.4), (-0.4, 0.0), (-0.6, 5.0), (50.0, 119.6)]
    )
    claims = claims_of(field, 7, field.pixel_to_world(yx))
    np.testing.assert_array_equal(claims.rank, [NO_FOOTPRINT] * 4 + [NOT_HELD] * 2)
    expected = np.array([50.0, 0.5, 0.1, 0.1, 0, 0]) * PIXEL_SCALE_ARCSEC * 1000
    np.testing.assert_allclose(claims.edge_mas, expected, atol=1)
    assert set(claims.field) == {7}


def test_equal_distances_are_equal_whatever_the_rounding() -> None:
    one, other = field_at(150.0, 2.0), field_at(150.0, 2.0 + 40 * PIXEL_SCALE_ARCSEC / 3600)
    between = one.pixel_to_world(np.column_stack([np.full(50, 69.5), np.linspace(25, 95, 50)]))
    first, second = claims_of(one, 0, between), claims_of(other, 1, between)
    np.testing.assert_array_equal(first.edge_mas, second.edge_mas)
    assert first.beats(second).all()


@pytest.mark.parametrize("centre", POLES)
def test_a_footprint_is_known_from_what_lies_beside_it(centre: tuple[float, float]) -> None:
    plain = field_at(*centre)
    corners = plain.pixel_to_world(
        np.array([(10.0, 10.0), (10.0, 60.0), (90.0, 60.0), (90.0, 10.0)])
    )
    field = field_at(*centre, Footprint((tuple(map(tuple, corners.tolist())),)))
    yx = np.array([(50.0, 30.0), (11.0, 11.0), (9.0, 11.0), (50.0, 61.0), (-5.0, 0.0)])
    ranks = claims_of(field, 0, field.pixel_to_world(yx)).rank
    np.testing.assert_array_equal(
        ranks, [IN_FOOTPRINT, IN_FOOTPRINT, BEYOND_FOOTPRINT, BEYOND_FOOTPRINT, NOT_HELD]
    )


@st.composite
def tables(draw: st.DrawFn) -> TableRows:
    """Rows of up to four tables, anywhere on the sky; many are one source, many distances are equal."""
    n = draw(st.integers(0, 25))
    places = draw(st.lists(st.tuples(*[st.integers(0, 12)] * 2), min_size=n, max_size=n))
    tables_of = draw(st.lists(st.integers(0, 3), min_size=n, max_size=n))
    ranks = draw(st.lists(st.integers(0, 3), min_size=n, max_size=n))
    edges = draw(st.lists(st.integers(0, 3), min_size=n, max_size=n))
    keys = list(dict.fromkeys(zip(tables_of, places, strict=True)))
    kept = [next(i for i in range(n) if (tables_of[i], places[i]) == key) for key in keys]
    field = field_at(*draw(st.sampled_from(POLES)))
    yx = np.array([places[i] for i in kept], np.float64).reshape(-1, 2) * 4 + 30
    table = np.array([tables_of[i] for i in kept], np.int64)
    claims = Claims(
        np.array([ranks[i] for i in kept], np.int8),
        np.array([edges[i] for i in kept], np.int64),
        table.copy(),
    )
    return TableRows(table, np.arange(len(kept)), field.pixel_to_world(yx), claims)


@settings(max_examples=40)
@given(tables())
def test_every_source_has_one_row_that_stands_for_it(rows: TableRows) -> None:
    stand_in = find_stand_ins(rows, MATCH_ARCSEC)
    np.testing.assert_array_equal(stand_in[stand_in], stand_in)
    left = stand_in != np.arange(len(rows))
    better = rows.claims[stand_in].beats(rows.claims)
    assert (better[left] | (rows.table[stand_in] != rows.table)[left]).all()
    vectors = unit_vectors(*rows.radec.T)
    apart = separations_arcsec(vectors[:, None], vectors[None])
    kept = np.flatnonzero(~left)
    for one in kept:  # no two that stay are each other's nearest of the two tables
        for other in kept:
            if rows.table[one] < rows.table[other] and apart[one, other] <= MATCH_ARCSEC:
                of_one = rows.table == rows.table[one]
                of_other = rows.table == rows.table[other]
                nearest = apart[one][of_other].min() < apart[one, other] * (1 - 1e-6)
                nearest |= apart[other][of_one].min() < apart[one, other] * (1 - 1e-6)
                ties = np.isclose(apart[one][of_other], apart[one, other]).sum()
                ties += np.isclose(apart[other][of_one], apart[one, other]).sum()
                assert nearest or ties > 2


@settings(max_examples=40)
@given(tables(), st.randoms(use_true_random=False))
def test_stand_ins_do_not_depend_on_the_order_of_rows(rows: TableRows, random: object) -> None:
    order = np.random.default_rng(len(rows)).permutation(len(rows))
    again = TableRows(rows.table[order], rows.id[order], rows.radec[order], rows.claims[order])
    first = find_stand_ins(rows, MATCH_ARCSEC)
    np.testing.assert_array_equal(first[order], order[find_stand_ins(again, MATCH_ARCSEC)])


def test_three_tables_that_show_a_source_leave_it_to_one() -> None:
    """The best claim counts, and who has none of his own follows whoever stands for his match."""
    radec = np.array([(10.0, 0.0), (10.0, 0.6 / 3600), (10.0, 1.2 / 3600), (10.0, 9 / 3600)])
    claims = Claims(np.ones(4, np.int8), np.array([3, 2, 1, 5]), np.array([0, 1, 2, 0]))
    rows = TableRows(np.array([0, 1, 2, 0]), np.array([5, 5, 5, 6]), radec, claims)
    assert find_stand_ins(rows, MATCH_ARCSEC).tolist() == [0, 0, 0, 3]


def test_a_match_that_would_join_all_is_refused() -> None:
    n = 3000
    radec = np.column_stack([np.full(n, 10.0), np.linspace(0, 1e-3, n)])
    claims = Claims(np.ones(n, np.int8), np.zeros(n, np.int64), np.arange(n) % 2)
    with pytest.raises(
        TooLargeError, match=r"more than any sky has; choose a smaller overlaps\.match"
    ):
        find_stand_ins(TableRows(np.arange(n) % 2, np.arange(n), radec, claims), 60.0)
