"""What is said of a blend before its pixels are read."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from deblend_batch import flags
from deblend_batch.detections.table import Detections
from deblend_batch.tiling.blending import Sky, central_first, describe_blends, describe_pairs
from deblend_batch.tiling.blends import MAX_OTHERS_OF_FIT
from deblend_batch.tiling.grouping import BlendRules, group_sources
from deblend_batch.tiling.member_hash import hash_members
from deblend_batch.tiling.pairing import blend_ids, match_within, order_members
from deblend_batch.tiling.sphere import separations_arcsec, unit_vectors
from deblend_batch.tiling.stamp_sizes import MARGIN_PX, STAMP_SIZES_PX, reach_px, stamp_sizes
from tests.tiling.skies import SCALE_ARCSEC, SHAPE_YX, blends_of, rules, skies, sky_at

identities = st.integers(-(2**63), 2**63 - 1)


def known_of(found: Detections, name: str, ids: Sequence[int]) -> np.ndarray:
    """What the detections say of some sources; NaN of ids that are none."""
    known = dict(zip(found.id.tolist(), getattr(found, name).tolist(), strict=True))
    return np.array([known.get(int(each), np.nan) for each in ids], float)


@given(st.lists(identities, min_size=1, max_size=8, unique=True))
def test_a_blend_s_id_does_not_depend_on_order(ids: list[int]) -> None:
    order = np.random.default_rng(0).permutation(len(ids))
    forwards, other = np.array([ids]), np.array([ids])[:, order]
    assert hash_members(forwards) == hash_members(other) >= 0


@given(identities, identities)
def test_the_id_of_two_is_that_of_their_pair(first: int, second: int) -> None:
    a, b = np.array([first]), np.array([second])
    assert hash_members(np.array([[first, second]])) == blend_ids(a, b)


def test_blend_ids_never_change() -> None:
    # Catalogues of different runs are joined on them: these values are part of the contract.
    found = [int(hash_members(np.array([range(1, n + 1)]))[0]) for n in (1, 2, 3, 8)]
    assert found == [
        5225608189600411232,
        6804074658870690613,
        3851293329796251419,
        1223547284816697602,
    ]


def test_blend_ids_of_a_survey_do_not_collide() -> None:
    first = np.arange(100_000)
    ids = [np.stack([first + k for k in range(n)], axis=1) for n in (1, 2, 3)]
    assert len(np.unique(np.concatenate([hash_members(each) for each in ids]))) == 300_000


@given(skies(), rules)
@settings(max_examples=40)
def test_the_central_is_first_and_padding_is_last(found: Detections, rule: BlendRules) -> None:
    blends = blends_of(found, rule)
    for row in range(len(blends)):
        n = int(blends.n_members[row])
        ids = blends.source_id[row, :n].tolist()
        measured, mag = blends.is_measured[row, :n], known_of(found, "mag", ids)
        brightness = mag if np.isfinite(mag).all() else np.zeros(n)
        key = [(not m, b, i) for m, b, i in zip(measured, brightness, ids, strict=True)]
        assert key == sorted(key)
        by_id = bool(blends.flags[row, 0] & flags.ROLE_BY_ID.value)
        assert by_id == (n > 1 and not np.isfinite(mag).all())
    padding = ~blends.is_member
    assert (blends.source_id[padding] == 0).all()
    assert (blends.flags[padding] == 0).all()
    assert (blends.neighbour[padding] == -1).all()
    for name in ("yx", "radec", "separation_arcsec"):
        assert np.isnan(getattr(blends, name)[padding]).all()


@given(skies(), rules)
@settings(max_examples=40)
def test_the_neighbour_is_the_nearest_member_on_the_sky(
    found: Detections, rule: BlendRules
) -> None:
    blends = blends_of(found, rule)
    for row in range(len(blends)):
        n = int(blends.n_members[row])
        vectors = unit_vectors(*blends.radec[row, :n].T)
        apart = separations_arcsec(vectors[:, None], vectors) + np.diag(np.full(n, np.inf))
        if n == 1:
            assert blends.neighbour[row, 0] == -1
            assert np.isnan(blends.separation_arcsec[row, 0])
            continue
        np.testing.assert_array_equal(blends.separation_arcsec[row, :n], apart.min(axis=1))
        np.testing.assert_array_equal(blends.neighbour[row, :n], apart.argmin(axis=1))


@given(skies(), rules)
def test_all_members_lie_in_the_stamp(found: Detections, rule: BlendRules) -> None:
    blends = blends_of(found, rule)
    size = blends.stamp_size.astype(int)
    corner = np.floor(blends.centre_yx + 0.5) - size[:, None] // 2
    inside = blends.yx - corner[:, None]
    on_stamp = np.all((inside >= 0) & (inside <= size[:, None, None] - 1), axis=2)
    assert on_stamp[blends.is_member].all()
    held = (blends.flags[:, 0] & flags.LARGER_THAN_STAMP.value) == 0
    assert (size[~held] == STAMP_SIZES_PX[-1]).all()
    # Their light too, unless a flag says that it does not.
    radius = np.array([known_of(found, "radius_arcsec", ids) for ids in blends.source_id])
    reach = reach_px(radius.reshape(blends.source_id.shape) / SCALE_ARCSEC, 2.0)[..., None]
    fits = (inside - reach >= 0) & (inside + reach <= size[:, None, None] - 1)
    assert np.all(fits, axis=2)[held[:, None] & blends.is_measured].all()


@pytest.mark.parametrize(
    ("extent_px", "size"),
    [(2.0, 32), (32.0, 32), (32.1, 48), (64.0, 64), (100.0, 128), (128.0, 128), (1e9, 128)],
)
def test_a_stamp_is_the_smallest_that_holds_its_blend(extent_px: float, size: int) -> None:
    assert stamp_sizes(np.array([extent_px])) == [size]


def test_other_sources_in_the_stamp_are_told_nearest_first() -> None:
    rng = np.random.default_rng(5)
    found = sky_at(rng.uniform(0, 400, (300, 2)))
    assert found.yx is not None
    blends = blends_of(found, BlendRules(0.8))
    for row in range(len(blends)):
        members = blends.source_id[row, : blends.n_members[row]]
        distance = np.abs(found.yx - blends.centre_yx[row]).max(axis=1)
        distance[np.isin(found.id, members)] = np.inf
        reach = STAMP_SIZES_PX[-1] / 2 + MARGIN_PX  # whatever stamp it turns out to need
        near = [i for i in np.argsort(distance) if distance[i] < reach]
        near, told = near[:MAX_OTHERS_OF_FIT], blends.others_yx[row]
        np.testing.assert_array_equal(told[: len(near)], found.yx[near].astype(np.float32))
        assert np.isnan(told[len(near) :]).all()


def test_what_is_outside_the_image_or_in_one_place_is_flagged() -> None:
    yx = np.array([[-3.0, 5.0], [5.0, 5.0], [5.0, 5.4], [200.0, 200.0]])
    found = sky_at(yx)
    blends = blends_of(found)
    bits = dict(
        zip(
            blends.source_id[blends.is_member].tolist(),
            blends.flags[blends.is_member].tolist(),
            strict=True,
        )
    )
    both = flags.COINCIDENT.value | flags.ROLE_BY_ID.value
    assert bits == {
        1: flags.OUTSIDE_IMAGE.value | flags.ROLE_BY_ID.value,
        2: both,
        3: both,
        4: 0,
    }


@given(skies())
@settings(max_examples=40)
def test_a_blend_of_two_is_a_pair(found: Detections) -> None:
    """Those of today, where no third source is near: the same ids, roles, positions, separations."""
    found = replace(found, radius_arcsec=np.full(len(found), np.nan, np.float32))
    yx = found.yx
    assert yx is not None
    rows = order_members(match_within(found.ra, found.dec, 2.0), found)
    pairs = describe_pairs(rows, Sky(found, yx, SHAPE_YX), 64)
    blends = blends_of(found)
    two = blends[np.flatnonzero(blends.n_members == 2)]
    divided = (two.flags[:, 0] & flags.GROUP_DIVIDED.value) > 0
    two = two[np.flatnonzero(~divided)]
    same = pairs[np.flatnonzero(np.isin(pairs.blend_id, two.blend_id))]
    np.testing.assert_array_equal(two.blend_id, same.blend_id)
    if len(two) == 0:
        return
    for name in ("source_id", "yx", "radec"):
        np.testing.assert_array_equal(getattr(two, name)[:, :2], getattr(same, name), name)
    np.testing.assert_array_equal(two.separation_arcsec[:, :2], same.separation_arcsec)
    ignored = flags.CROWDED.value
    np.testing.assert_array_equal(two.flags[:, :2], same.flags & ~ignored)


def test_no_detections_are_no_blends() -> None:
    assert len(blends_of(sky_at(np.empty((0, 2))))) == 0


def test_rows_of_blends_can_be_described_apart() -> None:
    rng = np.random.default_rng(2)
    found = sky_at(rng.uniform(0, 400, (200, 2)), mag=rng.uniform(18, 25, 200))
    assert found.yx is not None
    grouping = central_first(group_sources(found, found.yx, SCALE_ARCSEC, BlendRules()), found)
    whole, sky = blends_of(found), Sky(found, found.yx, SHAPE_YX)
    parts = [
        describe_blends(grouping[rows], sky, SCALE_ARCSEC, 0.2)
        for rows in (slice(None, 20), slice(20, None))
    ]
    for name in whole.__dataclass_fields__:
        joined = np.concatenate([getattr(part, name) for part in parts])
        order = np.argsort(np.concatenate([part.blend_id for part in parts]))
        np.testing.assert_array_equal(joined[order], getattr(whole, name), name)
