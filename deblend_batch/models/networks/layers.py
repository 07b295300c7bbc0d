"""Layers that the networks share. They hold no weights under names of their own."""

from __future__ import annotations

from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional

Width = Annotated[int, Field(ge=1, le=8192)]
"""Number of filters or units; bounded, so that a damaged card cannot ask for all memory."""


def convolution3(before: int, after: int) -> nn.Conv2d:
    """Make a 3x3 'same' convolution, initialised for the ReLU that follows (He et al. 2015)."""
    layer = nn.Conv2d(before, after, 3, padding=1)
    nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
    return layer


def max_pool2(x: Tensor) -> Tensor:
    """2x2 max pooling; without gradients by two elementwise maxima, which a CPU does faster.

    Parameters
    ----------
    x : Tensor, shape (n, c, y, x)
        Features; y and x even.

    Returns
    -------
    Tensor, shape (n, c, y / 2, x / 2)
        The larger of each 2x2 square.
    """
    if torch.is_grad_enabled() or x.is_cuda:
        return functional.max_pool2d(x, 2)
    rows = torch.maximum(x[:, :, ::2], x[:, :, 1::2])
    return torch.maximum(rows[..., ::2], rows[..., 1::2])
