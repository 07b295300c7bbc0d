from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from deblend_batch.models.networks import geometry

SIZES = [15, 16]


def _turned_by_hand(array: NDArray[np.float32], code: int) -> NDArray[np.float32]:
    if code & geometry.FLIP_Y:
        array = array[::-1]
    if code & geometry.FLIP_X:
        array = array[:, ::-1]
    return array.T if code & geometry.TRANSPOSE else array


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("code", range(8))
def test_positions_turn_with_the_pixels(size: int, code: int) -> None:
    octant = torch.tensor([code])
    stamp = torch.zeros(1, size, size)
    stamp[0, 4, 9] = 1
    turned = geometry.turn_stamps(stamp, octant)
    yx = geometry.turn_positions(torch.tensor([[4.0, 9.0]]), octant, size)
    assert turned[0].nonzero().tolist() == [yx[0].int().tolist()]
    assert torch.equal(geometry.turn_back(turned[:, None], octant)[:, 0], stamp)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("code", range(8))
def test_all_turns_of_a_stamp_have_one_canonical_form(size: int, code: int) -> None:
    odd = size if size % 2 else size - 1
    stamp = np.random.default_rng(1).normal(size=(odd, odd)).astype(np.float32)
    whole = np.zeros((2, size, size), np.float32)
    whole[0, size - odd :, size - odd :] = stamp
    whole[1, size - odd :, size - odd :] = _turned_by_hand(stamp, code)
    centre = torch.full((2, 2), float(size // 2))
    offset = np.zeros((odd, odd), np.float32)
    offset[odd // 2 + 5, odd // 2 + 2] = 1  # a companion in the first octant
    moved = np.argwhere(_turned_by_hand(offset, code))[0] - odd // 2
    companion = centre + torch.tensor(np.array([[5, 2], moved]), dtype=torch.float32)
    octant = geometry.octant_of(centre, companion)
    canonical = geometry.turn_stamps(torch.from_numpy(whole), octant)
    assert torch.equal(canonical[0], canonical[1])


@settings(deadline=None)
@given(st.floats(-20, 20), st.floats(-20, 20))
def test_companions_come_to_the_first_octant(dy: float, dx: float) -> None:
    centre = torch.full((1, 2), 16.0)
    companion = centre + torch.tensor([[dy, dx]])
    octant = geometry.octant_of(centre, companion)
    turned = [geometry.turn_positions(yx, octant, 32) for yx in (centre, companion)]
    new_dy, new_dx = (turned[1] - turned[0])[0].tolist()
    assert 0 <= new_dx <= new_dy


def test_squared_distance_is_that_of_pixel_centres() -> None:
    distance = geometry.squared_distance(torch.tensor([[1.0, 2.5]]), 4)
    assert distance.shape == (1, 4, 4)
    assert distance[0, 3, 0].item() == pytest.approx(2.0**2 + 2.5**2)


def test_pixels_nearer_to_a_third_source_are_blanked() -> None:
    rng = np.random.default_rng(3)
    positions = rng.uniform(0, 15, (6, 5, 2)).astype(np.float32)
    positions[::2, 3:] = np.nan
    grid = np.moveaxis(np.indices((16, 16)), 0, -1)
    distance = ((grid[None, None] - positions[:, :, None, None]) ** 2).sum(axis=-1)
    expected = ~(np.fmin.reduce(distance[:, 2:], axis=1) < distance[:, :2].min(axis=1))
    yx = torch.from_numpy(positions)
    nearest = torch.minimum(*(geometry.squared_distance(yx[:, k], 16) for k in (0, 1)))
    stamps = torch.ones(6, 16, 16)
    blanked = geometry.blank_neighbours(stamps, nearest, yx[:, 2:])
    assert np.array_equal(blanked.numpy(), expected.astype(np.float32))
    assert (stamps == 1).all()  # the caller's stamps are left alone


def test_without_third_sources_nothing_is_copied() -> None:
    stamps = torch.ones(2, 16, 16)
    nowhere = torch.full((2, 3, 2), torch.nan)
    assert geometry.blank_neighbours(stamps, torch.ones(2, 16, 16), nowhere) is stamps
