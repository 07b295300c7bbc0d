"""Light that profiles put elsewhere than a galaxy has it goes back to its members."""

from __future__ import annotations

import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from deblend_batch.models.profile_fit.search.residual import misplaced_light

SIDE = 6


def light(residual: Tensor, trusted: Tensor, weight: Tensor | None = None) -> Tensor:
    """Misplaced light of two members, the first three times as bright everywhere."""
    models = torch.tensor([3.0, 1.0])[None, :, None].expand(1, 2, SIDE * SIDE).contiguous()
    known = torch.ones(1, SIDE, SIDE) if weight is None else weight
    return misplaced_light(models, residual, known, trusted)


def random(seed: int) -> Tensor:
    return torch.randn((1, SIDE, SIDE), generator=torch.Generator().manual_seed(seed))


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 1000), st.floats(0.01, 1.0))
def test_members_get_what_is_no_noise_as_they_share_the_model(seed: int, trust: float) -> None:
    residual = random(seed)
    found = light(residual, torch.full((1, SIDE, SIDE), trust))
    expected = (1 - trust) * residual.sum().double() * torch.tensor([0.75, 0.25])
    torch.testing.assert_close(found[0], expected.double(), rtol=1e-4, atol=1e-5)


def test_noise_alone_is_nobodys() -> None:
    assert not light(random(1), torch.ones(1, SIDE, SIDE)).any()


def test_pixels_without_weight_say_nothing() -> None:
    weight = torch.ones(1, SIDE, SIDE)
    weight[:, 2] = 0.0
    residual = torch.zeros(1, SIDE, SIDE)
    residual[:, 2] = 1e9
    assert not light(residual, 0.5 * weight, weight).any()


def test_a_dark_member_has_no_share() -> None:
    models = torch.tensor([1.0, -1.0])[None, :, None].expand(1, 2, SIDE * SIDE).contiguous()
    ones = torch.ones(1, SIDE, SIDE)
    found = misplaced_light(models, ones, ones, 0.5 * ones)
    assert found[0].tolist() == [SIDE * SIDE / 2, 0.0]
