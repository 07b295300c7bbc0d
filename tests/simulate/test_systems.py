from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from deblend_batch.errors import ConfigError
from deblend_batch.simulate.fields.systems import Source, SystemLayout
from deblend_batch.simulate.presets import get_preset

LAYOUT = SystemLayout(
    preset=get_preset("candels-h"),
    shape_yx=(900, 1300),
    n_pairs=60,
    n_isolated=25,
    n_groups=8,
    seed=3,
    max_separation_arcsec=2.0,
    tile_size=300,
)


@pytest.fixture(scope="module")
def members() -> list[list[Source]]:
    return [LAYOUT.members(system) for system in range(LAYOUT.n_systems)]


def test_systems_have_the_numbers_asked_for(members: list[list[Source]]) -> None:
    sizes = [len(one) for one in members]
    assert (sizes.count(2), sizes.count(1), sum(size > 2 for size in sizes)) == (60, 25, 8)
    np.testing.assert_array_equal(sizes, LAYOUT.sizes)


def test_ids_are_unique_and_without_gaps(members: list[list[Source]]) -> None:
    ids = [source.id for one in members for source in one]
    assert sorted(ids) == list(range(1, len(ids) + 1))


def test_only_the_members_of_pairs_are_companions(members: list[list[Source]]) -> None:
    for one in members:
        if len(one) == 2:
            assert (one[0].companion, one[1].companion) == (one[1].id, one[0].id)
        else:
            assert all(source.companion is None for source in one)


def test_companions_are_near_and_alike(members: list[list[Source]]) -> None:
    for one in members:
        for source in one[1:]:
            distance = np.hypot(*(source.near_yx - one[0].near_yx))
            assert distance < LAYOUT.max_separation_px
            assert abs(source.mag - one[0].mag) < 2


def test_all_sources_are_in_the_field(members: list[list[Source]]) -> None:
    near = np.array([source.near_yx for one in members for source in one])
    assert near.min() >= 6
    assert (near <= np.array(LAYOUT.shape_yx) - 7).all()


def test_many_pairs_lie_on_tile_borders_and_some_on_corners(members: list[list[Source]]) -> None:
    centre = np.array([one[0].near_yx for one in members if len(one) == 2])
    border = np.abs(centre + 0.5 - 300 * np.rint((centre + 0.5) / 300)) < 5
    border &= (centre > 100) & (centre < np.array(LAYOUT.shape_yx) - 100)
    assert border.any(axis=1).sum() >= 10
    dense = replace(LAYOUT, tile_size=100, n_pairs=85, n_isolated=0)
    corners = 0
    for system in range(dense.n_systems):
        here = dense.members(system)[0].near_yx + 0.5
        corners += bool((np.abs(here - 100 * np.rint(here / 100)) < 5).all())
    assert corners >= 3


@pytest.mark.parametrize(
    ("low", "high"), [((0, 0), (300, 300)), ((300, 900), (900, 1300)), ((0, 0), (900, 1300))]
)
def test_within_misses_no_system(
    members: list[list[Source]], low: tuple[int, int], high: tuple[int, int]
) -> None:
    found = set(LAYOUT.within(low, high, 0.0))
    for system, one in enumerate(members):
        if (one[0].near_yx >= low).all() and (one[0].near_yx < high).all():
            assert system in found


def test_a_system_is_the_same_in_any_tile() -> None:
    first, second = LAYOUT.members(17), LAYOUT.members(17)
    assert [source.structure for source in first] == [source.structure for source in second]
    np.testing.assert_array_equal(first[0].near_yx, second[0].near_yx)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"n_pairs": 5000}, r"5033 systems in 900 x 1300 px are too dense .* at most 731"),
        ({"max_separation_arcsec": 20.0}, r"pairs of up to 20.0 arcsec; ask for at most 7"),
    ],
)
def test_fields_that_are_too_dense_are_refused(change: dict[str, float], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        replace(LAYOUT, **change).members(0)  # type: ignore[arg-type]
