"""From a network's two last numbers to two fluxes."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from deblend_batch.models.networks.interface import NetworkInput

Head = Literal["seed", "fraction"]

_MAX_LOG_CORRECTION = 8.0  # e-folds; keeps an untrained or a lost network inside float32


def fluxes(raw: Tensor, inputs: NetworkInput, head: Head) -> Tensor:
    """Turn two outputs into the fluxes of central and companion.

    Parameters
    ----------
    raw : Tensor of float32, shape (n, 2)
        The network's last layer.
    inputs : NetworkInput
        What the network saw.
    head : {"seed", "fraction"}
        ``"seed"``: two independent linear fluxes, ``scale * raw``, as in the seed work.
        ``"fraction"``: total and share; with raw = (a, b), ``F1 = scale * exp(a) * sigmoid(b0 +
        b)`` and ``F2 = scale * exp(a) * sigmoid(-(b0 + b))``, where b0 is the logit of the split by
        nearest position.

    Returns
    -------
    Tensor of float32, shape (n, 2)
        Fluxes in units of ``inputs.unit``.
    """
    if head == "seed":
        return raw * inputs.scale[:, None]
    total = inputs.scale * torch.exp(raw[:, 0].clamp(-_MAX_LOG_CORRECTION, _MAX_LOG_CORRECTION))
    logit = inputs.split_logit + raw[:, 1]
    share = torch.sigmoid(torch.stack([logit, -logit], dim=1))
    return total[:, None] * share
