"""Groups and blends: every source measured once, by detections alone."""

from __future__ import annotations

import time
from typing import Literal

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from deblend_batch import flags
from deblend_batch.detections.table import Detections
from deblend_batch.tiling.grouping import BlendRules
from deblend_batch.tiling.linking import link_sources
from deblend_batch.tiling.stamp_sizes import LARGEST_EXTENT_PX
from deblend_batch.tiling.tile import TileGrid
from tests.tiling.skies import SHAPE_YX, blends_of, members, rules, skies, sky_at


@given(skies(), rules)
def test_every_source_is_measured_exactly_once(found: Detections, rule: BlendRules) -> None:
    blends = blends_of(found, rule)
    assert sorted(blends.source_id[blends.is_measured].tolist()) == sorted(found.id.tolist())
    assert (blends.n_members <= rule.max_members).all()
    assert blends.is_measured.any(axis=1).all()
    assert not (blends.is_measured & ~blends.is_member).any()
    assert all(
        len(ids) == n for ids, n in zip(members(blends), blends.n_members.tolist(), strict=True)
    )
    assert len(set(members(blends))) == len(blends) == len(set(blends.blend_id.tolist()))


@given(skies(), rules)
def test_blends_are_the_connected_groups_unless_those_are_too_large(
    found: Detections, rule: BlendRules
) -> None:
    assert found.yx is not None
    links = link_sources(found, rule.link_arcsec, 6.4).rows.tolist()
    group = {i: {i} for i in range(len(found))}
    for i, j in links:
        joined = group[i] | group[j]
        group.update(dict.fromkeys(joined, joined))
    whole: set[frozenset[int]] = set()
    divided: set[frozenset[int]] = set()
    for one in {frozenset(each) for each in group.values()}:
        rows = sorted(one)
        wide = np.ptp(found.yx[rows], axis=0).max() > LARGEST_EXTENT_PX
        ids = frozenset(found.id[rows].tolist())
        (divided if wide or len(one) > rule.max_members else whole).add(ids)
    blends = blends_of(found, rule)
    is_divided = (blends.flags[:, 0] & flags.GROUP_DIVIDED.value) > 0
    all_members = members(blends)
    assert {each for each, part in zip(all_members, is_divided, strict=True) if not part} == whole
    for each, part in zip(all_members, is_divided, strict=True):
        assert not part or any(each <= one for one in divided)


@given(skies(), rules)
def test_a_part_of_a_group_holds_the_nearest_that_each_source_is_linked_to(
    found: Detections, rule: BlendRules
) -> None:
    """Unless that is farther away than a stamp could hold beside the others."""
    links = link_sources(found, rule.link_arcsec, 6.4)
    nearest: dict[int, float] = {}
    for (i, j), apart in zip(links.rows.tolist(), links.separation_arcsec.tolist(), strict=True):
        for one in (i, j):
            nearest[int(found.id[one])] = min(nearest.get(int(found.id[one]), np.inf), apart)
    blends = blends_of(found, rule)
    for ids, measured, apart in zip(
        blends.source_id, blends.is_measured, blends.separation_arcsec, strict=True
    ):
        for one, separation in zip(ids[measured].tolist(), apart[measured], strict=True):
            if rule.max_members > 1 and nearest.get(one, np.inf) < LARGEST_EXTENT_PX / 40:
                assert separation <= nearest[one] * (1 + 1e-9)


@given(skies(), rules)
def test_blends_do_not_depend_on_the_order_of_detections(
    found: Detections, rule: BlendRules
) -> None:
    order = np.random.default_rng(len(found)).permutation(len(found))
    first, second = blends_of(found, rule), blends_of(found[order], rule)
    for name in first.__dataclass_fields__:
        if name != "others_yx":  # of those at one distance any may be the eighth
            np.testing.assert_array_equal(getattr(first, name), getattr(second, name), name)


@given(skies(), rules, st.sampled_from([37, 64, 100, 400]))
def test_tiles_share_the_blends_each_once(
    found: Detections, rule: BlendRules, tile_size: int
) -> None:
    blends = blends_of(found, rule)
    owner = TileGrid(SHAPE_YX, tile_size).owner(blends.yx[:, 0])
    parts = [blends[np.flatnonzero(owner == tile)] for tile in np.unique(owner)]
    assert sum(map(len, parts)) == len(blends)
    together = np.sort(np.concatenate([np.empty(0, int), *(part.blend_id for part in parts)]))
    np.testing.assert_array_equal(together, blends.blend_id)


@settings(max_examples=25)  # each is sixteen tiles
@given(skies(), rules, st.sampled_from([100, 200]))
def test_a_tile_and_its_halo_give_the_same_blends_as_the_whole_field(
    found: Detections, rule: BlendRules, tile_size: int
) -> None:
    """A halo of the widest group is all that a tile would have to know; groups lie over its corners."""
    assert found.yx is not None
    whole = blends_of(found, rule)
    expected = dict(zip(whole.blend_id.tolist(), members(whole), strict=True))
    grid = TileGrid(SHAPE_YX, tile_size)
    halo = _widest_group(found, rule)
    seen: dict[int, frozenset[int]] = {}
    for tile in range(len(grid)):
        core = grid.core(tile)
        near = (found.yx >= np.array(core.origin_yx) - halo) & (
            found.yx <= np.array((core.y1, core.x1)) + halo
        )
        mine = blends_of(found[np.flatnonzero(near.all(axis=1))], rule)
        mine = mine[np.flatnonzero(grid.owner(mine.yx[:, 0]) == tile)]
        seen |= dict(zip(mine.blend_id.tolist(), members(mine), strict=True))
        in_whole = whole[np.flatnonzero(np.isin(whole.blend_id, mine.blend_id))]
        np.testing.assert_array_equal(in_whole.source_id[:, 0], mine.source_id[:, 0])
        assert in_whole.is_measured.sum() == mine.is_measured.sum()
    assert seen == expected


def _widest_group(found: Detections, rule: BlendRules) -> float:
    """Return the longest edge of a box round linked sources, px."""
    group = np.arange(len(found))
    for first, second in link_sources(found, rule.link_arcsec, 6.4).rows.tolist():
        group[group == group[second]] = group[first]
    assert found.yx is not None
    return max((np.ptp(found.yx[group == each], axis=0).max() for each in group), default=0.0)


@pytest.mark.parametrize("n", [7, 8, 9, 16, 17])
def test_groups_just_at_and_just_above_the_limit(n: int) -> None:
    yx = np.stack([np.full(n, 50.0), 20 + 10.0 * np.arange(n)], axis=1)
    blends = blends_of(sky_at(yx))
    divided = (blends.flags & flags.GROUP_DIVIDED.value) > 0
    assert divided[blends.is_member].all() == (n > 8)
    assert divided.any() == (n > 8)
    assert (len(blends) == 1) == (n <= 8)
    assert blends.is_measured.sum() == n


def test_a_group_wider_than_a_stamp_is_divided_though_it_is_small() -> None:
    yx = np.stack([np.full(7, 50.0), 20 + 19.0 * np.arange(7)], axis=1)
    blends = blends_of(sky_at(yx))
    assert (blends.flags[blends.is_member] & flags.GROUP_DIVIDED.value).all()
    widths = [np.nanmax(x) - np.nanmin(x) for x in blends.yx[:, :, 1]]
    assert max(widths) <= LARGEST_EXTENT_PX


@pytest.mark.parametrize(("sources", "expected"), [("all", 4), ("blended", 3)])
def test_isolated_sources_are_blends_of_one_or_left_out(
    sources: Literal["all", "blended"], expected: int
) -> None:
    yx = np.array([[10.0, 10.0], [10.0, 20.0], [200.0, 200.0], [10.0, 30.0]])
    found = sky_at(yx)
    for most in (8, 2, 1):  # divided or not: what was linked is blended
        blends = blends_of(found, BlendRules(2.0, most, sources))
        assert blends.is_measured.sum() == expected


@pytest.mark.parametrize("most", [0, -1, 33])
def test_a_number_of_members_out_of_range_is_refused(most: int) -> None:
    with pytest.raises(ValueError, match=f"max_members is {most}; it must be 1 to 32"):
        BlendRules(max_members=most)


@pytest.mark.parametrize(
    "yx",
    [
        np.random.default_rng(0).uniform(0, 700, (10_000, 2)),
        np.stack(np.meshgrid(np.arange(100) * 8.0, np.arange(100) * 8.0), -1).reshape(-1, 2),
        np.stack(np.meshgrid(np.arange(100) * 4.0, np.arange(100) * 4.0), -1).reshape(-1, 2),
        np.full((1000, 2), 5.0),
        np.stack([np.zeros(10_000), np.arange(10_000) * 15.0], axis=1),
    ],
    ids=["at random", "a grid", "a dense grid", "one place", "a chain"],
)
def test_ten_thousand_sources_in_one_group_take_seconds(yx: np.ndarray) -> None:
    started = time.monotonic()
    blends = blends_of(sky_at(yx))
    assert time.monotonic() - started < 20
    assert np.unique(blends.source_id[blends.is_measured]).size == len(yx)
    assert blends.is_measured.sum() == len(yx)
    assert len(blends) < 0.4 * len(yx)
