"""Drawn profiles against GalSim's images, derivatives against differences."""

from __future__ import annotations

import pytest
import torch

from deblend_batch.models.profile_fit.planes import (
    PLANES,
    Grid,
    Profiles,
    draw_planes,
    draw_profiles,
)
from deblend_batch.models.profile_fit.psf import PsfStack, psf_from_fwhm
from tests.models.profile_fit.blends import FWHM_PX, draw

SIZE = 40
PSF = PsfStack.of([[psf_from_fwhm(FWHM_PX, components=5)]])
GRID = Grid(SIZE, SIZE, torch.device("cpu"))


def profiles(**changed: float) -> Profiles:
    values = {
        "x": 1.3,
        "y": -0.7,
        "log_radius": 1.2,
        "stretch1": 0.3,
        "stretch2": -0.5,
        "log_index": 0.6,
        "extended": 1.0,
        **changed,
    }
    return Profiles(
        *(torch.tensor([values[name]], dtype=torch.float64) for name in Profiles._fields)
    )


def image(**changed: float) -> torch.Tensor:
    out = torch.empty(1, GRID.pixels)
    draw_profiles(profiles(**changed), PSF.weight[0], PSF.covariance[0], GRID, out)
    return out[0, : SIZE * SIZE].view(SIZE, SIZE).double()


@pytest.mark.parametrize("index", [0.5, 1.0, 2.5, 4.0])
@pytest.mark.parametrize("radius", [1.5, 4.0])
def test_a_galaxy_looks_as_galsim_draws_it(index: float, radius: float) -> None:
    shear = torch.tensor([0.2, -0.3], dtype=torch.float64)
    stretch = (2 * shear / (1 - shear.square().sum())).tolist()
    shown = image(
        x=1.3,
        y=-0.7,
        log_radius=float(torch.tensor(radius).log()),
        stretch1=stretch[0],
        stretch2=stretch[1],
        log_index=float(torch.tensor(index).log()),
    )
    middle = (SIZE - 1) / 2
    truth = draw(
        1.0, (middle - 0.7, middle + 1.3), radius=radius, index=index, shear=(0.2, -0.3), size=SIZE
    )
    assert float((shown - truth).abs().max() / truth.max()) < 0.015
    assert float((shown - truth).abs().sum()) < 0.015
    assert float((shown * truth).sum() / truth.square().sum()) == pytest.approx(1.0, abs=0.004)


def test_a_point_source_looks_as_galsim_draws_it() -> None:
    middle = (SIZE - 1) / 2
    truth = draw(1.0, (middle - 0.7, middle + 1.3), radius=0.0, size=SIZE)
    shown = image(extended=0.0)
    assert float((shown - truth).abs().max() / truth.max()) < 0.01


@pytest.mark.parametrize("name", ["x", "y", "log_radius", "stretch1", "stretch2", "log_index"])
def test_derivatives_are_those_of_the_image(name: str) -> None:
    planes = torch.empty(1, PLANES, GRID.pixels)
    here = profiles()
    draw_planes(here, PSF.weight[0], PSF.covariance[0], GRID, planes)
    _, x, y, xx, xy, yy, index = planes[0].double().view(PLANES, SIZE, SIZE)
    t1, t2 = float(here.stretch1), float(here.stretch2)
    root = (1 + t1**2 + t2**2) ** 0.5
    shown = {
        "x": x,
        "y": y,
        "log_radius": 2 * (root + t1) * xx + 4 * t2 * xy + 2 * (root - t1) * yy,
        "stretch1": (t1 / root + 1) * xx + (t1 / root - 1) * yy,
        "stretch2": t2 / root * (xx + yy) + 2 * xy,
        "log_index": index,
    }[name]
    step, value = 3e-3, float(getattr(here, name))
    differences = (image(**{name: value + step}) - image(**{name: value - step})) / (2 * step)
    assert float((shown - differences).abs().max() / differences.abs().max()) < 1e-3


@pytest.mark.parametrize("side", [40, 41])
def test_a_binned_stamp_is_the_stamp_binned(side: int) -> None:
    psf = PSF.covariance[0].clone()
    fine, coarse = (Grid(side, side, torch.device("cpu"), step) for step in (1, 2))
    whole, binned = torch.empty(1, fine.pixels), torch.empty(1, coarse.pixels)
    draw_profiles(profiles(), PSF.weight[0], psf, fine, whole)
    wider = psf + torch.tensor([1.0, 0.0, 1.0]) * (3 / 12)
    draw_profiles(profiles(), PSF.weight[0], wider, coarse, binned)
    even = side // 2 * 2
    means = (
        whole[0, : side * side]
        .view(side, side)[:even, :even]
        .reshape(even // 2, 2, even // 2, 2)
        .mean(dim=(1, 3))
    )
    shown = binned[0, : coarse.shape[0] * coarse.shape[1]].view(*coarse.shape)[
        : even // 2, : even // 2
    ]
    assert float((shown - means).abs().max() / means.max()) < 0.03
