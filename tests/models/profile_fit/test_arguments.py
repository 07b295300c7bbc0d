"""Callers' mistakes end in one line."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pytest
import torch

from deblend_batch.errors import ModelError
from deblend_batch.models.profile_fit.fit import fit_blends
from deblend_batch.models.profile_fit.light.psf import PsfStack
from tests.models.profile_fit.blends import psf_of


@dataclass(frozen=True)
class Wrong:
    """Arguments that are refused, and what is said."""

    changed: dict[str, Any]
    message: str


def good() -> dict[str, Any]:
    return {
        "pixels": torch.zeros(2, 1, 15, 15),
        "weights": torch.ones(2, 1, 15, 15),
        "positions": torch.full((2, 3, 2), 7.0, dtype=torch.float64),
        "position_err": 0.5,
        "n_members": torch.tensor([1, 2]),
        "psf": psf_of(2),
        "pixel_scale_arcsec": 0.1,
    }


def stack(weight: float, xx: float) -> PsfStack:
    covariance = torch.tensor([xx, 0.0, 1.0], dtype=torch.float64).expand(2, 1, 1, 3)
    weights = torch.full((2, 1, 1), weight, dtype=torch.float64)
    return PsfStack(weights, covariance, torch.zeros(2, 1))


NAN = float("nan")
CASES = [
    Wrong({"pixels": torch.zeros(2, 15, 15)}, r"pixels: .*give .* of shape \(blend, band, y, x\)"),
    Wrong({"pixels": torch.zeros(2, 1, 15, 15, dtype=torch.int16)}, "give floating-point numbers"),
    Wrong({"weights": torch.ones(2, 1, 15, 14)}, r"the pixels have shape \(2, 1, 15, 15\)"),
    Wrong({"weights": -torch.ones(2, 1, 15, 15)}, "a pixel that is not there has weight 0"),
    Wrong({"positions": torch.zeros(3, 3, 2)}, r"give \(blend, member, 2\) for 2 blends"),
    Wrong(
        {"positions": torch.full((2, 3, 2), NAN)}, "positions: NaN or infinite among the members"
    ),
    Wrong({"positions": torch.zeros(2, 10_000, 2)}, "10000 members; a fit takes 64 at most"),
    Wrong({"n_members": torch.tensor([1, 4])}, "numbers outside 1 to 3"),
    Wrong({"n_members": torch.tensor([0, 1])}, "numbers outside 1 to 3"),
    Wrong({"n_members": torch.tensor([1.0, 2.0])}, "give one whole number for each blend"),
    Wrong({"n_measured": torch.tensor([1, 3])}, "n_measured: numbers outside 1 to n_members"),
    Wrong({"n_measured": torch.tensor([0, 1])}, "n_measured: numbers outside 1 to n_members"),
    Wrong({"n_measured": torch.tensor([1])}, "n_measured: .*one whole number for each blend"),
    Wrong({"position_err": 0.0}, "an error of a position is a positive number"),
    Wrong({"position_err": torch.ones(2, 2)}, r"give \(blend, member\) as the positions are"),
    Wrong({"psf": psf_of(3)}, "for 2 blends of 1 bands"),
    Wrong({"psf": stack(1.0, -1.0)}, "a covariance is not positive"),
    Wrong({"psf": stack(NAN, 1.0)}, "a number is not finite"),
    Wrong({"psf": stack(0.0, 1.0)}, "the weights of a mixture do not sum to one"),
    Wrong({"pixel_scale_arcsec": 0.0}, "pixel_scale_arcsec: give positive numbers"),
    Wrong({"njy_per_unit": -1.0}, "njy_per_unit: give positive numbers"),
    Wrong({"sky_mean": NAN}, "sky_mean: give finite numbers"),
    Wrong({"sky_sigma": 0.0}, "sky_sigma: give positive numbers"),
]


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.message[:40])
def test_a_mistake_is_named(case: Wrong) -> None:
    with pytest.raises(ModelError, match=case.message):
        fit_blends(**{**good(), **case.changed})


def test_rows_beyond_the_members_are_not_looked_at() -> None:
    arguments = good()
    arguments["positions"][0, 1:] = NAN
    arguments["positions"][1, 2:] = NAN
    assert fit_blends(**arguments).flux.shape == (2, 1, 3)
