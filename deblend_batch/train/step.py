"""One training step, and nothing round it: the same on one CPU and on a replica's share of a batch."""

from __future__ import annotations

import contextlib
import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.optim import Optimizer

from deblend_batch.models.networks.geometry import turn_stamps
from deblend_batch.models.networks.interface import NetworkInput, NetworkOutput
from deblend_batch.models.networks.preprocess import PreprocessConfig, prepare
from deblend_batch.train.data import Batch
from deblend_batch.train.replica import Replica

_LINEAR_BELOW = 0.1  # of the true flux; a negative flux has no logarithm


@dataclass(frozen=True)
class Objective:
    """What is minimised.

    Parameters
    ----------
    mask_weight : float
        Weight of the masks' binary cross-entropy.
    flux : bool
        Whether the fluxes count; they do not for a network that only draws masks.
    """

    mask_weight: float = 0.0
    flux: bool = True

    def __call__(self, output: NetworkOutput, inputs: NetworkInput, batch: Batch) -> Tensor:
        """Return the loss of a batch.

        Parameters
        ----------
        output : NetworkOutput
            The network's prediction.
        inputs : NetworkInput
            What it saw.
        batch : dict of str to Tensor
            The truth: ``flux`` and, where masks count, ``masks`` in the stamps' frame.
        """
        loss = output.flux.new_zeros(())
        if self.flux:
            loss = loss + flux_loss(output.flux, batch["flux"] / inputs.unit[:, None])
        if output.mask_logits is not None and self.mask_weight > 0:
            truth = turn_stamps(batch["masks"], inputs.octant).to(output.mask_logits.dtype)
            loss = loss + self.mask_weight * functional.binary_cross_entropy_with_logits(
                output.mask_logits, truth
            )
        return loss


def flux_loss(flux: Tensor, truth: Tensor) -> Tensor:
    """Mean absolute log ratio: its optimum is unbiased in magnitude at any signal to noise.

    The mean absolute relative error, the usual metric, favours fluxes that are too small. Below a
    tenth of the true flux the tangent replaces the logarithm.

    Parameters
    ----------
    flux, truth : Tensor of float32, shape (n, 2)
        Predicted and true fluxes, any common unit.
    """
    ratio = flux / truth
    missing = (_LINEAR_BELOW - ratio).clamp_min(0)
    return (ratio.clamp_min(_LINEAR_BELOW).log() - missing / _LINEAR_BELOW).abs().mean()


@dataclass(frozen=True)
class Schedule:
    """Learning rate by step: a linear rise, then half a cosine to 0.

    Parameters
    ----------
    highest : float
        Learning rate at the end of the rise.
    steps : int
        Number of steps.
    warmup : float
        Share of the steps over which it rises.
    """

    highest: float
    steps: int
    warmup: float

    def at(self, step: int) -> float:
        """Return the learning rate of step number ``step``, from 0."""
        rise = max(1.0, self.warmup * self.steps)
        if step < rise:
            return self.highest * (step + 1) / (rise + 1)
        done = (step - rise) / max(1.0, self.steps - rise)
        return self.highest * 0.5 * (1 + math.cos(math.pi * done))


class Stepper:
    """Makes optimiser steps; holds no state but the objects that it is given.

    Parameters
    ----------
    network : torch.nn.Module
        The network.
    optimizer : torch.optim.Optimizer
        Its optimiser.
    preprocess : PreprocessConfig
        From stamps to network input.
    objective : Objective
        What is minimised.
    clip_norm : float
        Longest gradient.
    bfloat16 : bool
        Whether to run the network in bfloat16.
    replica : Replica
        Whose share of the batches it gets.
    """

    def __init__(
        self,
        network: nn.Module,
        optimizer: Optimizer,
        preprocess: PreprocessConfig,
        objective: Objective,
        *,
        clip_norm: float,
        bfloat16: bool,
        replica: Replica,
    ) -> None:
        self._network = network
        self._optimizer = optimizer
        self._preprocess = preprocess
        self._objective = objective
        self._clip_norm = clip_norm
        self._bfloat16 = bfloat16
        self._replica = replica

    def step(self, batch: Batch, learning_rate: float) -> Tensor:
        """Make one step."""
        for group in self._optimizer.param_groups:
            group["lr"] = learning_rate
        with torch.no_grad():
            inputs = prepare_batch(batch, self._preprocess)
        with self._precision(inputs.image.device.type):
            output = self._network(inputs)
        loss = self._objective(output, inputs, batch)
        self._optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        self._replica.average_gradients(self._network)
        nn.utils.clip_grad_norm_(self._network.parameters(), self._clip_norm)
        self._optimizer.step()
        return loss.detach()

    def _precision(self, device_type: str) -> contextlib.AbstractContextManager[object]:
        if self._bfloat16:
            return torch.autocast(device_type, torch.bfloat16)
        return contextlib.nullcontext()


def prepare_batch(batch: Batch, preprocess: PreprocessConfig) -> NetworkInput:
    """Preprocess a batch of simulated pairs as the model will preprocess stamps."""
    return prepare(
        batch["stamps"],
        batch["central_yx"],
        batch["companion_yx"],
        batch["neighbours_yx"],
        preprocess,
    )


@torch.no_grad()
def update_average(average: nn.Module, network: nn.Module, step: int, decay: float) -> None:
    """Move the averaged weights towards the network's; young averages move faster.

    Parameters
    ----------
    average, network : torch.nn.Module
        Two networks of the same shape; the first is changed.
    step : int
        Number of steps made before this one.
    decay : float
        Decay of a mature average.
    """
    weight = 1 - min(decay, (1 + step) / (10 + step))
    torch._foreach_lerp_(list(average.parameters()), list(network.parameters()), weight)
