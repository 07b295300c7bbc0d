"""From a network's output to an estimate in the caller's terms: units, frame, and hints of the errors."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from deblend_batch.models.networks.geometry import turn_back
from deblend_batch.models.networks.interface import Estimate, NetworkInput, NetworkOutput

_FURTHEST = 9.0


def estimate(network: nn.Module, inputs: NetworkInput) -> Estimate:
    """Run a network on a preprocessed batch.

    Returns
    -------
    Estimate
        Fluxes in the stamps' unit, masks in the stamps' frame.
    """
    output: NetworkOutput = network(inputs)
    flux = torch.where(inputs.usable[:, None], output.flux * inputs.unit[:, None], torch.nan)
    masks = None
    if output.mask_logits is not None:
        probability = torch.sigmoid(output.mask_logits) * inputs.usable[:, None, None, None]
        masks = turn_back(probability, inputs.octant)
    return Estimate(flux, _hints(output.flux, inputs), masks)


def _hints(flux: Tensor, inputs: NetworkInput) -> Tensor:
    positive = flux.abs().clamp_min(torch.finfo(flux.dtype).tiny)
    extent = torch.log(positive.sum(dim=1) / inputs.scale)
    shift = torch.log(positive[:, 0] / positive[:, 1]) - inputs.split_logit
    return torch.stack([extent, shift], dim=1).clamp(-_FURTHEST, _FURTHEST)
