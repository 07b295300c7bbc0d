"""A network with the weights of its file."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from deblend_batch.errors import ModelError
from deblend_batch.models.architectures import build_network
from deblend_batch.models.weights import WeightsFile


def load_network(weights: WeightsFile, where: str) -> nn.Module:
    """Build the network of a weights file and give it its weights.

    Parameters
    ----------
    weights : WeightsFile
        The file's content.
    where : str
        Its URL, for messages.

    Returns
    -------
    torch.nn.Module
        The network, without gradients.

    Raises
    ------
    ModelError
        If the tensors are not those of the card's architecture, or not finite.
    """
    card, state = weights.card, weights.tensors()
    with torch.device("meta"):
        network, config = build_network(card.architecture, card.network, where)
    if config.stamp_size != card.stamp_size:
        raise ModelError(
            f"{where}: the card's stamp_size {card.stamp_size} is not its network's "
            f"{config.stamp_size}; give a file that 'deblend-batch train' wrote"
        )
    _check_state(state, network.state_dict(), where)
    network.load_state_dict(state, assign=True)
    return network.requires_grad_(False)


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
