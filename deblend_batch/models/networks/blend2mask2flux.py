"""blend2mask2flux: a U-Net that draws the masks, and a head that reads the fluxes through them.

The seed work (arXiv:1905.01324) describes the network but no released commit holds its flux head:
this head is ours. A fourth map says which share of each pixel is the central's; the masked, shared
pixels give a first estimate of both fluxes, and a small network on the masked image and the bottom
features corrects it.
"""

from __future__ import annotations

import dataclasses

import torch
from pydantic.dataclasses import dataclass
from torch import Tensor, nn
from torch.nn import functional

from deblend_batch.models.card import STRICT
from deblend_batch.models.networks import heads
from deblend_batch.models.networks import unet as unets
from deblend_batch.models.networks.interface import NetworkInput, NetworkOutput
from deblend_batch.models.networks.layers import Width, convolution3, max_pool2

_SHARE_LIMIT = 1e-3


@dataclass(frozen=True, config=STRICT)
class Blend2Mask2FluxConfig:
    """Shape of a blend2mask2flux network.

    Parameters
    ----------
    unet : UNetConfig
        The U-Net.
    filters : int
        Filters of the head's first convolution; they double once.
    dense : int
        Units of the head's dense layer.
    head : {"seed", "fraction"}
        See :func:`deblend_batch.models.networks.heads.fluxes`.
    """

    unet: unets.UNetConfig = unets.REFERENCE
    filters: Width = 32
    dense: Width = 128
    head: heads.Head = "fraction"

    @property
    def stamp_size(self) -> int:
        """Edge of the stamps, px."""
        return self.unet.stamp_size

    @property
    def in_channels(self) -> int:
        """Channels of the image."""
        return self.unet.in_channels


REFERENCE = Blend2Mask2FluxConfig()
SMALL = Blend2Mask2FluxConfig(
    unet=dataclasses.replace(unets.SMALL, stamp_size=80), filters=8, dense=64
)


class Blend2Mask2Flux(nn.Module):
    """The network.

    Parameters
    ----------
    config : Blend2Mask2FluxConfig
        Its shape.
    """

    has_masks = True

    def __init__(self, config: Blend2Mask2FluxConfig) -> None:
        super().__init__()
        self.config = config
        self.backbone = unets.Backbone(config.unet)
        fold = config.unet.fold
        self.share = nn.Conv2d(config.unet.filters, fold**2, 1)
        self.masked1 = convolution3(unets.MASK_CHANNELS * fold**2, config.filters)
        self.masked2 = convolution3(config.filters, 2 * config.filters)
        bottom = config.unet.filters * 2 ** (config.unet.depth - 1)
        self.dense = nn.Linear(2 * config.filters + bottom, config.dense)
        self.last = nn.Linear(config.dense, 2)
        nn.init.normal_(self.last.weight, std=1e-3)  # start at the flux under the masks
        nn.init.zeros_(self.last.bias)

    def forward(self, inputs: NetworkInput) -> NetworkOutput:
        """Predict masks and fluxes."""
        top, bottom = self.backbone.features(inputs.image)
        logits = self.backbone.mask_logits(top)
        share = torch.sigmoid(unets.unfold(self.share(top), self.config.unet.fold)[:, 0].float())
        raw = self._correction(logits, bottom, inputs).float()
        first = _first_estimate(logits, share, inputs)
        return NetworkOutput(heads.fluxes(raw, first, self.config.head), logits)

    def _correction(self, logits: Tensor, bottom: Tensor, inputs: NetworkInput) -> Tensor:
        fold = self.config.unet.fold
        masked = torch.sigmoid(logits) * inputs.image[:, :1]
        x = functional.pixel_unshuffle(masked, fold) if fold > 1 else masked
        x = functional.relu(max_pool2(self.masked1(x)))
        x = functional.relu(self.masked2(x))
        pooled = torch.cat([x.mean(dim=(2, 3)), bottom.mean(dim=(2, 3))], dim=1)
        raw: Tensor = self.last(functional.selu(self.dense(pooled)))
        return raw


def _first_estimate(logits: Tensor, share: Tensor, inputs: NetworkInput) -> NetworkInput:
    """Replace the scale and the split by nearest position by those of the masked, shared pixels."""
    either = 1 - (1 - torch.sigmoid(logits[:, 1:])).prod(dim=1)
    light = either * inputs.linear
    total = light.sum(dim=(1, 2))
    usable_total = total.clamp_min(_SHARE_LIMIT)
    fraction = ((light * share).sum(dim=(1, 2)) / usable_total).clamp(
        _SHARE_LIMIT, 1 - _SHARE_LIMIT
    )
    return inputs._replace(scale=inputs.scale * usable_total, split_logit=torch.logit(fraction))
