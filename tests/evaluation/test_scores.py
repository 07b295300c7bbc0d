from __future__ import annotations

import json

import numpy as np
import pytest

from deblend_batch.evaluation.members import Members, Recovered, concatenate, members_of_pairs
from deblend_batch.evaluation.scores import score


@pytest.fixture
def members() -> Members:
    rng = np.random.default_rng(0)
    mag = rng.uniform(19.2, 22.8, (300, 2))
    return members_of_pairs(
        flux=10 ** (-0.4 * (mag - 25)),
        mag=mag,
        radius=np.full((300, 2), 4.0),
        kind=rng.choice(["sph", "disk", ""], (300, 2)),
        galaxy_id=rng.integers(0, 90, (300, 2)),
        separation=rng.uniform(3, 25, 300),
        bound=np.full((300, 2), 0.1),
    )


@pytest.fixture
def recovered(members: Members) -> Recovered:
    rng = np.random.default_rng(1)
    flux = members.flux * (1 + 0.1 * rng.standard_normal(600))
    flux[::10] = np.nan
    return Recovered("ours", flux, 0.1 * members.flux, rng.uniform(0.5, 1, 600))


def test_rows_of_pairs_alternate() -> None:
    found = members_of_pairs(
        flux=[[1, 2], [3, 4]],
        mag=[[20, 21], [22, 20]],
        radius=[[2, 3], [1, 1]],
        kind=[["a", "b"], ["c", "d"]],
        galaxy_id=[[1, 2], [3, 4]],
        separation=[10, 4],
    )
    assert found.flux.tolist() == [1, 2, 3, 4]
    assert found.is_central.tolist() == [True, False, True, False]
    assert found.mag_difference.tolist() == [-1, -1, 2, 2]
    assert found.separation_radii.tolist() == [2, 2, 2, 2]
    assert found.kinds == ["a", "b", "c", "d"]


def test_concatenated_parts_are_the_whole(members: Members, recovered: Recovered) -> None:
    joined = concatenate([members[:100], members[100:]])
    np.testing.assert_array_equal(joined.flux, members.flux)
    again = concatenate([recovered[:100], recovered[100:]])
    np.testing.assert_array_equal(again.flux, recovered.flux)
    assert concatenate([members[:1], members[1:]]).separation_unit == "px"


def test_roles_add_up(members: Members, recovered: Recovered) -> None:
    found = score(members, recovered, draws=20).members
    assert found["central"].n == found["companion"].n == 300
    assert found["pooled"].n_undetected == 60
    assert found["central"].n_undetected == 60
    low, high = found["pooled"].intervals["flux_mape"]
    assert low < found["pooled"].flux_mape < high


@pytest.mark.parametrize("by", ["magnitude", "mag_difference", "separation", "separation_radii"])
def test_groups_add_up(members: Members, recovered: Recovered, by: str) -> None:
    inside = np.abs(members.mag_difference) <= 2 if by == "mag_difference" else np.ones(600)
    groups = score(members, recovered, draws=0).groups[by]
    assert sum(metrics.n for metrics in groups.values()) == np.count_nonzero(inside)
    assert len(groups) >= 4


def test_groups_have_intervals(members: Members, recovered: Recovered) -> None:
    groups = score(members, recovered, draws=30).groups
    for group in groups.values():
        for metrics in group.values():
            low, high = metrics.intervals["flux_mape"]
            assert low <= metrics.flux_mape <= high


def test_groups_are_named_by_their_edges(members: Members, recovered: Recovered) -> None:
    groups = score(members, recovered, draws=0).groups
    assert list(groups["magnitude"]) == [f"{m} to {m + 1} mag" for m in (19, 20, 21, 22)]
    assert list(groups["separation_radii"])[-1] == "over 3"
    assert list(groups["type"]) == ["disk", "sph"]


def test_curves_are_by_role_and_type(members: Members, recovered: Recovered) -> None:
    curves = score(members, recovered, draws=0).curves
    assert set(curves) == {"central", "companion"}
    assert set(curves["central"]) == {"all", "disk", "sph"}
    inside = members.is_central & (np.abs(members.mag_difference) <= 2)
    counted = curves["central"]["all"]
    assert (counted.n + counted.n_undetected).sum() == np.count_nonzero(inside)


def test_iou_is_averaged_and_counted(members: Members, recovered: Recovered) -> None:
    found = score(members, recovered, draws=0).iou
    assert found is not None
    assert found.mean == pytest.approx((found.central + found.companion) / 2)
    assert {role: counts.sum() for role, counts in found.histograms.items()} == {
        "central": 300,
        "companion": 300,
    }
    assert found.n == 600


def test_no_masks_no_iou(members: Members) -> None:
    assert score(members, Recovered("flux only", members.flux), draws=0).iou is None
    unknown = Recovered("flux only", members.flux, iou=np.full(600, np.nan))
    assert score(members, unknown, draws=0).iou is None


def test_a_score_is_json(members: Members, recovered: Recovered) -> None:
    values = json.loads(json.dumps(score(members, recovered, draws=5).to_dict(), allow_nan=False))
    assert values["method"] == "ours"
    assert values["pooled"]["n"] == 600


@pytest.mark.parametrize("rows", [slice(0, 1), slice(0, 2)])
def test_few_members_have_a_score(members: Members, recovered: Recovered, rows: slice) -> None:
    found = score(members[rows], recovered[rows], draws=3)
    json.dumps(found.to_dict(), allow_nan=False)


def test_unknown_properties_leave_their_groups_empty(
    recovered: Recovered, members: Members
) -> None:
    unknown = np.full(600, np.nan)
    blank = Members(
        flux=members.flux,
        mag=members.mag,
        is_central=members.is_central,
        mag_difference=unknown,
        separation=unknown,
        separation_radii=unknown,
        kind=np.full(600, ""),
        galaxy_id=members.galaxy_id,
    )
    groups = score(blank, recovered, draws=0).groups
    assert [name for name, group in groups.items() if group] == ["magnitude"]
