"""Drawn profiles against GalSim's images, derivatives against differences."""

from __future__ import annotations

import pytest
import torch

from deblend_batch.models.profile_fit.light.cells import Layout, Memory, Plan
from deblend_batch.models.profile_fit.light.planes import PLANES, Canvas, Profiles, draw_planes
from deblend_batch.models.profile_fit.light.psf import PsfStack, psf_from_fwhm
from tests.models.profile_fit.blends import FWHM_PX, draw

SIZE = 40
PSF = PsfStack.of([[psf_from_fwhm(FWHM_PX, components=5)]])
CPU = torch.device("cpu")
PIXELS = Plan(1, ())
PLAN = Plan(1, (5.0, 12.0))


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


def drawn(
    here: Profiles, plan: Plan, side: int = SIZE, psf: PsfStack = PSF
) -> tuple[torch.Tensor, Layout, torch.Tensor]:
    """Planes (7, cell) of one source, the cells, and their first pixels."""
    layout = plan.layout(side, side, 1, CPU)
    cells = layout.lay(torch.stack([here.x, here.y], dim=1)[None])
    planes = torch.empty(1, PLANES, layout.cells)
    canvas = Canvas(cells.basis, layout.spans, Memory(CPU), not plan.averaged)
    draw_planes(here, psf.weight[0], psf.covariance[0], canvas, planes)
    return planes[0], layout, cells.corner[0]


def by_pixel(here: Profiles) -> torch.Tensor:
    """Planes (7, y, x) drawn pixel by pixel."""
    planes, _, corner = drawn(here, PIXELS)
    x, y = corner.unbind(1)
    inside = x >= 0
    out = torch.full((PLANES, SIZE, SIZE), torch.nan)
    out[:, y[inside], x[inside]] = planes[:, inside]
    return out.double()


def image(**changed: float) -> torch.Tensor:
    return by_pixel(profiles(**changed))[0]


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
    here = profiles()
    _, x, y, xx, xy, yy, index = by_pixel(here)
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
def test_cells_hold_the_means_of_their_pixels(side: int) -> None:
    here = profiles()
    (pixels, layout, _), (planes, coarse, _) = drawn(here, PIXELS, side), drawn(here, PLAN, side)
    cells = coarse.lay(torch.stack([here.x, here.y], dim=1)[None])
    whole = torch.empty(1, 1, layout.image_size)
    layout.spread(pixels[None, None], layout.lay(torch.stack([here.x, here.y], dim=1)[None]), whole)
    stamp = whole[0, :, : side * side].view(1, side, side)
    sums, count = (
        coarse.pyramid(each).gather(1, cells.place) for each in (stamp, torch.ones_like(stamp))
    )
    shown, expected = planes[0], sums[0] / count[0].clamp_min(1.0)
    for span in coarse.spans:
        full = count[0, span.start : span.stop] == span.step**2
        apart = (shown - expected)[span.start : span.stop][full].abs()
        assert float(apart.max()) < 1e-3 * float(stamp.max())
    assert int(count.sum()) == side * side


@pytest.mark.parametrize("changed", [{}, {"extended": 0.0}, {"log_index": 1.3, "log_radius": 0.5}])
@pytest.mark.parametrize("side", [40, 41])
def test_images_from_cells_are_those_of_pixels(changed: dict[str, float], side: int) -> None:
    here = profiles(**changed)
    images = []
    for plan in (PIXELS, PLAN._replace(averaged=False)):
        planes, layout, _ = drawn(here, plan, side)
        out = torch.empty(1, 1, layout.image_size)
        layout.spread(
            planes[None, None], layout.lay(torch.stack([here.x, here.y], dim=1)[None]), out
        )
        images.append(out[0, 0, : side * side])
    exact, shown = images
    apart, bright = (shown - exact).abs(), exact > 1e-6 * exact.max()
    assert float(apart.max()) < 1e-3 * float(exact.max())
    assert float(apart.sum()) < 5e-4
    assert float((apart / exact)[bright].max()) < 0.03


RINGED = PsfStack(
    torch.tensor([[[0.9, 0.5, -0.4]]], dtype=torch.float64),
    torch.tensor([[[[2.7, 0.0, 2.8], [9.0, 3.5, 8.0], [12.0, 4.0, 14.0]]]], dtype=torch.float64),
    torch.zeros(1, 1, dtype=torch.float64),
)
"""A PSF with a dark ring: in some places its light is less than nothing."""


@pytest.mark.parametrize("side", [48, 96])
@pytest.mark.parametrize("changed", [{"extended": 0.0}, {"log_radius": -2.0}])
def test_a_dark_ring_is_drawn_in_cells_too(changed: dict[str, float], side: int) -> None:
    here = profiles(**changed)
    images = []
    for plan in (PIXELS, PLAN._replace(averaged=False)):
        planes, layout, _ = drawn(here, plan, side, RINGED)
        out = torch.empty(1, 1, layout.image_size)
        layout.spread(
            planes[None, None], layout.lay(torch.stack([here.x, here.y], dim=1)[None]), out
        )
        images.append(out[0, 0, : side * side])
    exact, shown = images
    assert float(exact.min()) < -1e-4 * float(exact.max())
    assert bool(shown.isfinite().all())
    assert float((shown - exact).abs().max()) < 3e-3 * float(exact.max())


def test_a_source_far_outside_leaves_nothing() -> None:
    planes, layout, _ = drawn(profiles(x=500.0, y=-300.0), PLAN._replace(averaged=False))
    far = layout.lay(torch.tensor([[[500.0, -300.0]]], dtype=torch.float64))
    out = torch.empty(1, 1, layout.image_size)
    layout.spread(planes[None, None], far, out)
    assert float(out[0, 0, : SIZE * SIZE].abs().max()) < 1e-9
