"""What a blend's result depends on: itself, to the bit."""

from __future__ import annotations

from dataclasses import fields

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from deblend_batch.models.profile_fit.fit import fit_blends
from deblend_batch.models.profile_fit.result import BlendFit
from tests.models.profile_fit.blends import NOISE, draw, noise, psf_of

HEIGHT, WIDTH, BLENDS = 27, 27, 11  # no multiples of a vector's width


@pytest.fixture(scope="module")
def blends() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    members = torch.randint(1, 4, (BLENDS,), generator=generator)
    positions = 7 + 13 * torch.rand(BLENDS, 3, 2, generator=generator, dtype=torch.float64)
    images = noise(2, BLENDS, 1, HEIGHT, WIDTH)
    for row in range(BLENDS):
        for member in range(int(members[row])):
            y, x = positions[row, member].tolist()
            radius = 0.0 if (row + member) % 4 == 0 else 2.0 + member
            images[row, 0] += draw(1500.0 * (1 + row % 5), (y, x), radius=radius, size=HEIGHT)
    return images, positions, members


def fit_rows(blends: tuple[torch.Tensor, ...], rows: list[int], scale: float = 1.0) -> BlendFit:
    images, positions, members = (each[rows] for each in blends)
    return fit_blends(
        images * scale,
        torch.full_like(images, NOISE**-2 / scale**2),
        positions,
        0.5,
        members,
        psf_of(len(rows)),
        0.1,
        1.0 / scale,
        with_models=True,
    )


@pytest.fixture(scope="module")
def whole(blends: tuple[torch.Tensor, torch.Tensor, torch.Tensor]) -> BlendFit:
    return fit_rows(blends, list(range(BLENDS)))


def assert_same(one: BlendFit, other: BlendFit, rows: list[int]) -> None:
    for each in fields(BlendFit):
        shown, expected = getattr(one, each.name), getattr(other, each.name)[rows]
        assert torch.equal(
            torch.nan_to_num(shown * 1.0, 7.5), torch.nan_to_num(expected * 1.0, 7.5)
        ), each.name


@settings(max_examples=12, deadline=None)
@given(rows=st.lists(st.integers(0, BLENDS - 1), min_size=1, max_size=BLENDS, unique=True))
def test_company_order_and_size_change_no_bit(
    blends: tuple[torch.Tensor, torch.Tensor, torch.Tensor], whole: BlendFit, rows: list[int]
) -> None:
    assert_same(fit_rows(blends, rows), whole, rows)


@pytest.mark.parametrize("power", [-40, -3, 5, 60])
def test_fluxes_scale_with_images_to_the_bit(
    blends: tuple[torch.Tensor, torch.Tensor, torch.Tensor], whole: BlendFit, power: int
) -> None:
    factor = 2.0**power
    scaled = fit_rows(blends, list(range(BLENDS)), factor)
    for name in ("flux", "flux_err", "sky", "sky_err"):
        expected = getattr(whole, name) * factor
        assert torch.equal(getattr(scaled, name).nan_to_num(7.5), expected.nan_to_num(7.5)), name
    for name in ("yx", "radius_px", "sersic_n", "ellipticity", "chi2", "peak_sn"):
        assert torch.equal(
            getattr(scaled, name).nan_to_num(7.5), getattr(whole, name).nan_to_num(7.5)
        ), name
