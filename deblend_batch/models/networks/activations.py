"""Memory that a network takes while it runs, found without running it."""

from __future__ import annotations

import torch

from deblend_batch.models.card import ModelCard
from deblend_batch.models.networks.architectures import build_network
from deblend_batch.models.networks.interface import NetworkInput


def count_activations(card: ModelCard) -> int:
    """Count the outputs of all layers of a network; it is built without memory for it."""
    sizes: list[int] = []

    def count(_: torch.nn.Module, __: object, output: object) -> None:
        if isinstance(output, torch.Tensor):
            sizes.append(output.numel() * output.element_size())

    n, size = 1, card.stamp_size
    with torch.device("meta"), torch.inference_mode():
        network, config = build_network(card.architecture, card.network, card.name)
        for layer in network.modules():
            if not list(layer.children()):
                layer.register_forward_hook(count)
        image, linear = torch.empty(n, config.in_channels, size, size), torch.empty(n, size, size)
        one = torch.empty(n)
        octant, usable = torch.empty(n, dtype=torch.int64), torch.empty(n, dtype=torch.bool)
        network.eval()(NetworkInput(image, linear, one, one, one, octant, usable))
    return sum(sizes)
