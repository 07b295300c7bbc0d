"""The networks of a training and their optimiser, as they are before the first step."""

from __future__ import annotations

import copy
from dataclasses import dataclass

import torch
from torch import nn
from torch.optim import Optimizer

from deblend_batch import storage
from deblend_batch.errors import ConfigError
from deblend_batch.models.networks.architectures import ARCHITECTURES, RECIPES, Recipe
from deblend_batch.models.weights import read_weights
from deblend_batch.train.config import TrainConfig


@dataclass(frozen=True)
class Trainee:
    """The networks and the optimiser of a training; they change in place.

    Parameters
    ----------
    network : torch.nn.Module
        The network that is trained.
    average : torch.nn.Module
        Moving average of its weights.
    best : torch.nn.Module
        The average at the best validation.
    optimizer : torch.optim.Optimizer
        AdamW over ``network``.
    """

    network: nn.Module
    average: nn.Module
    best: nn.Module
    optimizer: Optimizer


def find_recipe(name: str) -> Recipe:
    """Look a recipe up."""
    if name not in RECIPES:
        raise ConfigError(f"model: unknown recipe {name!r}; known: {', '.join(RECIPES)}")
    return RECIPES[name]


def build_trainee(
    config: TrainConfig, device: str, options: storage.Options | None = None
) -> Trainee:
    """Build the networks; the same in every process that is given the same config.

    Parameters
    ----------
    config : TrainConfig
        What to train.
    device : str
        Torch device.
    options : mapping, optional
        fsspec ``storage_options`` of the weights to start from.

    Raises
    ------
    ConfigError
        If the recipe is unknown, or the initial weights are of another network.
    """
    recipe = find_recipe(config.model)
    torch.manual_seed(config.seed)
    network: nn.Module = ARCHITECTURES[recipe.architecture].build(recipe.network)
    if config.initial is not None:
        _start_from(network, config.initial, options)
    network = network.to(memory_format=torch.channels_last).to(device)  # type: ignore[call-overload]
    average = copy.deepcopy(network).requires_grad_(False)
    optimizer = torch.optim.AdamW(
        network.parameters(), lr=config.learning_rate, weight_decay=config.weight_decay
    )
    return Trainee(network, average, copy.deepcopy(average), optimizer)


def _start_from(network: nn.Module, url: str, options: storage.Options | None) -> None:
    own = network.state_dict()
    given = read_weights(url, options).tensors()
    alike = {
        name: tensor
        for name, tensor in given.items()
        if name in own and own[name].shape == tensor.shape
    }
    if not alike:
        raise ConfigError(
            f"initial: {url} has no tensor of this network's names and shapes; give weights of the "
            "same architecture and size, or of the U-Net inside it"
        )
    network.load_state_dict(alike, strict=False)
