"""A network with the weights of its file."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from deblend_batch.errors import ModelError
from deblend_batch.models.networks.architectures import build_network
from deblend_batch.models.weights import WeightsFile


def load_network(weights: WeightsFile, where: str) -> nn.Module:
    """Build the network of a weights file and give it its weights."""
    card, state = weights.card, weights.tensors()
    with torch.device("meta"), _Unfilled():
        network, config = build_network(card.architecture, card.network, where)
    if config.stamp_size != card.stamp_size:
        raise ModelError(
            f"{where}: the card's stamp_size {card.stamp_size} is not its network's "
            f"{config.stamp_size}; give a file that 'deblend-batch train' wrote"
        )
    _check_state(state, network.state_dict(), where)
    network.load_state_dict(state, assign=True)
    return network.requires_grad_(False)


class _Unfilled(TorchFunctionMode):
    """Leaves out the random numbers of fresh weights, which the file's replace.

    On the meta device torch would draw them through its compiler, whose import takes as long as torch's own.
    """

    def __torch_function__(
        self, function: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        if function is Tensor.normal_:
            return args[0]
        if getattr(function, "__module__", "") == nn.init.__name__:
            return kwargs["tensor"] if kwargs and "tensor" in kwargs else args[0]
        return function(*args, **(kwargs or {}))


def _check_state(state: dict[str, Tensor], expected: dict[str, Tensor], where: str) -> None:
    for name, tensor in expected.items():
        if name not in state:
            raise ModelError(
                f"{where}: tensor {name!r} is missing; the file is not of its card's network"
            )
        shape, wanted = tuple(state[name].shape), tuple(tensor.shape)
        if shape != wanted:
            raise ModelError(
                f"{where}: tensor {name!r} has shape {shape}, the network of its card {wanted}; "
                "the file is damaged"
            )
        if not state[name].isfinite().all():
            raise ModelError(
                f"{where}: tensor {name!r} is not finite; copy or train the weights again"
            )
    if extra := sorted(set(state) - set(expected)):
        raise ModelError(f"{where}: tensor {extra[0]!r} is no part of its card's network")
