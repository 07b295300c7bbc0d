from __future__ import annotations

import math
from typing import Any

import pytest
import torch

from deblend_batch.models.networks.architectures import ARCHITECTURES
from deblend_batch.models.networks.geometry import squared_distance, turn_stamps
from deblend_batch.models.networks.interface import NetworkOutput
from deblend_batch.train.replica import Replica
from deblend_batch.train.step import (
    Objective,
    Schedule,
    Stepper,
    flux_loss,
    prepare_batch,
    update_average,
)
from tests.models.gaussians import SIZE, gaussian_pairs
from tests.models.tiny import NETWORKS, tiny_recipe


def _batch(n: int = 64, seed: int = 0) -> dict[str, torch.Tensor]:
    pairs = gaussian_pairs(n, seed=seed)
    names = ("stamps", "central_yx", "companion_yx", "neighbours_yx", "flux", "sigma")
    batch = {name: torch.from_numpy(getattr(pairs, name)) for name in names}
    near = [squared_distance(batch[f"{role}_yx"], SIZE) < 16 for role in ("central", "companion")]
    batch["masks"] = torch.stack([near[0] & near[1], *near], dim=1)
    return batch


def make_stepper(*parts: Any, bfloat16: bool = False) -> Stepper:
    return Stepper(*parts, clip_norm=1.0, bfloat16=bfloat16, replica=Replica())


def _stepper(architecture: str) -> tuple[torch.nn.Module, Stepper]:
    torch.manual_seed(0)
    network = ARCHITECTURES[architecture].build(NETWORKS[architecture]).train()
    optimizer = torch.optim.AdamW(network.parameters())
    objective = Objective(mask_weight=0.5, flux=ARCHITECTURES[architecture].has_flux)
    recipe = tiny_recipe(architecture)
    return network, make_stepper(network, optimizer, recipe.preprocess, objective)


@pytest.mark.parametrize("architecture", sorted(ARCHITECTURES))
def test_steps_lower_the_loss(architecture: str) -> None:
    _, stepper = _stepper(architecture)
    batch = _batch()
    losses = [float(stepper.step(batch, 3e-3)) for _ in range(40)]
    assert sum(losses[-5:]) < 0.8 * sum(losses[:5])


def test_bfloat16_trains_too() -> None:
    network, _ = _stepper("blend2flux")
    optimizer = torch.optim.AdamW(network.parameters())
    preprocess = tiny_recipe("blend2flux").preprocess
    stepper = make_stepper(network, optimizer, preprocess, Objective(), bfloat16=True)
    assert math.isfinite(float(stepper.step(_batch(4), 1e-3)))
    assert all(weight.dtype == torch.float32 for weight in network.parameters())


@pytest.mark.parametrize(("steps", "warmup"), [(1, 0.0), (10, 0.1), (1000, 0.25), (7, 1.0)])
def test_the_learning_rate_rises_and_falls(steps: int, warmup: float) -> None:
    schedule = Schedule(1.0, steps, warmup)
    rates = [schedule.at(step) for step in range(steps)]
    assert all(0 < rate <= 1 for rate in rates)
    top = rates.index(max(rates))
    assert rates[: top + 1] == sorted(rates[: top + 1])
    assert rates[top:] == sorted(rates[top:], reverse=True)


def test_the_flux_loss_is_zero_at_the_truth_and_finite_anywhere() -> None:
    truth = torch.tensor([[1.0, 2.0]])
    assert flux_loss(truth, truth).item() == 0
    wild = torch.tensor([[-5.0, 1e9]], requires_grad=True)
    loss = flux_loss(wild, truth)
    loss.backward()  # type: ignore[no-untyped-call]
    assert loss.isfinite()
    assert wild.grad is not None
    assert wild.grad.isfinite().all()
    assert (wild.grad.sign() == torch.tensor([[-1.0, 1.0]])).all()


@pytest.mark.parametrize(
    ("ratio", "expected"),
    [(2.0, math.log(2)), (0.5, math.log(2)), (0.1, math.log(10)), (0.0, math.log(10) + 1)],
)
def test_the_flux_loss_is_logarithmic_down_to_a_tenth(ratio: float, expected: float) -> None:
    truth = torch.tensor([[1.0, 4.0]])
    assert flux_loss(ratio * truth, truth).item() == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("flux", [True, False])
@pytest.mark.parametrize("mask_weight", [0.0, 2.0])
def test_the_objective_adds_what_it_is_told(flux: bool, mask_weight: float) -> None:
    batch = _batch(8)
    inputs = prepare_batch(batch, tiny_recipe("unet").preprocess)
    logits = torch.zeros(8, 3, SIZE, SIZE)
    predicted = 2 * batch["flux"] / inputs.unit[:, None]
    loss = Objective(mask_weight, flux=flux)(NetworkOutput(predicted, logits), inputs, batch)
    expected = flux * math.log(2) + mask_weight * math.log(2)
    assert loss.item() == pytest.approx(expected, rel=1e-5)


def test_mask_truth_is_turned_with_the_stamp() -> None:
    batch = _batch(16)
    batch["masks"][:, :, 0] = batch["masks"][:, :, :, 0] = False
    inputs = prepare_batch(batch, tiny_recipe("unet").preprocess)
    certain = 200.0 * turn_stamps(batch["masks"], inputs.octant).float() - 100.0
    output = NetworkOutput(batch["flux"], certain)
    assert Objective(1.0, flux=False)(output, inputs, batch).item() < 1e-6


def test_the_average_follows_the_network() -> None:
    network, average = torch.nn.Linear(3, 2), torch.nn.Linear(3, 2)
    first = average.weight.detach().clone()
    update_average(average, network, step=0, decay=0.99)
    torch.testing.assert_close(average.weight, 0.1 * first + 0.9 * network.weight)
    for step in range(10_000):
        update_average(average, network, step, decay=0.99)
    torch.testing.assert_close(average.weight, network.weight)
