"""blend2flux: a convolutional network that reads two fluxes straight off the blend.

Layers and sizes: Boucaud et al. 2020, MNRAS 491, 2481 (arXiv:1905.01324), and the small form of its
talk.
"""

from __future__ import annotations

from itertools import pairwise
from typing import Annotated

from pydantic import Field, model_validator
from pydantic.dataclasses import dataclass
from torch import nn
from torch.nn import functional

from deblend_batch.models.card import STRICT
from deblend_batch.models.networks import heads
from deblend_batch.models.networks.interface import NetworkInput, NetworkOutput
from deblend_batch.models.networks.layers import Width, convolution3, max_pool2


@dataclass(frozen=True, config=STRICT)
class Blend2FluxConfig:
    """Shape of a blend2flux network.

    Parameters
    ----------
    filters : tuple of int
        Filters of the 3x3 convolutions; each but the last is followed by 2x2 max pooling.
    dense : int
        Units of each of the two dense layers.
    stamp_size : int
        Edge of the stamps, px; a multiple of 2 to the number of poolings.
    in_channels : int
        Channels of the image.
    head : {"seed", "fraction"}
        See :func:`deblend_batch.models.networks.heads.fluxes`.
    """

    filters: tuple[Width, ...] = (256, 256, 512, 512, 1024)
    dense: Width = 256
    stamp_size: Annotated[int, Field(ge=8, le=1024)] = 128
    in_channels: Width = 1
    head: heads.Head = "fraction"

    @model_validator(mode="after")
    def check_stamp_size(self) -> Blend2FluxConfig:
        """Refuse a stamp size that the poolings do not divide."""
        if self.stamp_size % 2 ** (len(self.filters) - 1):
            raise ValueError(
                f"stamp_size {self.stamp_size} is no multiple of 2**{len(self.filters) - 1}"
            )
        return self


REFERENCE = Blend2FluxConfig()
LARGE = Blend2FluxConfig(filters=(512, 512, 1024, 1024, 2048), dense=512)
SMALL = Blend2FluxConfig(filters=(10, 10, 25, 25, 100))


class Blend2Flux(nn.Module):
    """The network; ReLU after convolutions, SELU after dense layers.

    Parameters
    ----------
    config : Blend2FluxConfig
        Its shape.
    """

    has_masks = False

    def __init__(self, config: Blend2FluxConfig) -> None:
        super().__init__()
        self.config = config
        sizes = (config.in_channels, *config.filters)
        self.convolutions = nn.ModuleList(
            convolution3(before, after) for before, after in pairwise(sizes)
        )
        edge = config.stamp_size // 2 ** (len(config.filters) - 1)
        self.dense1 = nn.Linear(config.filters[-1] * edge**2, config.dense)
        self.dense2 = nn.Linear(config.dense, config.dense)
        self.last = nn.Linear(config.dense, 2)
        self._initialise()

    def _initialise(self) -> None:
        for dense in (self.dense1, self.dense2):
            nn.init.kaiming_normal_(dense.weight, nonlinearity="linear")  # what SELU wants
            nn.init.zeros_(dense.bias)
        nn.init.normal_(self.last.weight, std=1e-3)  # start at the split by nearest position
        nn.init.zeros_(self.last.bias)

    def forward(self, inputs: NetworkInput) -> NetworkOutput:
        """Predict fluxes."""
        x = inputs.image
        for convolution in self.convolutions[:-1]:
            # Pooling first gives the same values and leaves a quarter of the work to ReLU.
            x = functional.relu(max_pool2(convolution(x)))
        x = functional.relu(self.convolutions[-1](x)).flatten(1)
        x = functional.selu(self.dense1(x))
        x = functional.selu(self.dense2(x))
        return NetworkOutput(heads.fluxes(self.last(x).float(), inputs, self.config.head), None)
