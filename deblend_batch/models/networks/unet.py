"""U-Net: masks of the two galaxies and of their overlap.

The reference shape is that of Boucaud et al. 2020 (arXiv:1905.01324); ``fold`` is ours and makes
the small form fast: the stamp's 2x2 squares become channels, and the masks are unfolded at the end.
"""

from __future__ import annotations

from typing import Annotated, Literal

import torch
from pydantic import Field, model_validator
from pydantic.dataclasses import dataclass
from torch import Tensor, nn
from torch.nn import functional

from deblend_batch.models.card import STRICT
from deblend_batch.models.networks.interface import NetworkInput, NetworkOutput
from deblend_batch.models.networks.layers import Width, convolution3, max_pool2

MASK_CHANNELS = 3


@dataclass(frozen=True, config=STRICT)
class UNetConfig:
    """Shape of a U-Net.

    Parameters
    ----------
    filters : int
        Filters of the first level; they double with each level.
    depth : int
        Number of levels, the bottom included.
    dropout : float
        Probability of dropping a feature map's pixel between a level's two convolutions, in
        training.
    up_kernel : {2, 3}
        Kernel of the transposed convolutions.
    fold : int
        Edge of the squares folded into channels before the first level; 1 folds nothing.
    stamp_size : int
        Edge of the stamps, px.
    in_channels : int
        Channels of the image.
    """

    filters: Annotated[int, Field(ge=1, le=512)] = 32
    depth: Annotated[int, Field(ge=2, le=8)] = 5
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.2
    up_kernel: Literal[2, 3] = 3
    fold: Annotated[int, Field(ge=1, le=8)] = 1
    stamp_size: Annotated[int, Field(ge=8, le=1024)] = 128
    in_channels: Width = 1

    @model_validator(mode="after")
    def check_stamp_size(self) -> UNetConfig:
        """Refuse a stamp size that folding and pooling do not divide."""
        step = self.fold * 2 ** (self.depth - 1)
        if self.stamp_size % step:
            raise ValueError(f"stamp_size {self.stamp_size} is no multiple of {step}")
        return self


REFERENCE = UNetConfig()
SMALL = UNetConfig(
    filters=24, depth=4, dropout=0.0, up_kernel=2, fold=2, stamp_size=64, in_channels=3
)


class Backbone(nn.Module):
    """The U-Net up to its mask logits; a part of :class:`UNet` and of blend2mask2flux.

    Parameters
    ----------
    config : UNetConfig
        Its shape.
    """

    def __init__(self, config: UNetConfig) -> None:
        super().__init__()
        self.config = config
        widths = [config.filters * 2**level for level in range(config.depth)]
        before = [config.in_channels * config.fold**2, *widths[:-1]]
        self.down = nn.ModuleList(
            _Level(a, b, config.dropout) for a, b in zip(before, widths, strict=True)
        )
        self.raise_ = nn.ModuleList(
            _double_size(2 * width, width, config.up_kernel) for width in reversed(widths[:-1])
        )
        self.up = nn.ModuleList(
            _Level(2 * width, width, config.dropout) for width in reversed(widths[:-1])
        )
        self.masks = nn.Conv2d(config.filters, MASK_CHANNELS * config.fold**2, 1)

    def features(self, image: Tensor) -> tuple[Tensor, Tensor]:
        """Run the network without its last layer.

        Parameters
        ----------
        image : Tensor of float32, shape (n, c, y, x)
            Network image.

        Returns
        -------
        top : Tensor, shape (n, filters, y / fold, x / fold)
            Features of the top level.
        bottom : Tensor, shape (n, filters * 2**(depth - 1), ...)
            Features of the bottom level.
        """
        x = functional.pixel_unshuffle(image, self.config.fold) if self.config.fold > 1 else image
        skips: list[Tensor] = []
        for level in self.down:
            x = level(max_pool2(skips[-1]) if skips else x)
            skips.append(x)
        bottom = x
        for skip, raise_, level in zip(reversed(skips[:-1]), self.raise_, self.up, strict=True):
            x = level(torch.cat([skip, raise_(x)], dim=1))
        return x, bottom

    def mask_logits(self, top: Tensor) -> Tensor:
        """Turn features of the top level into mask logits at full size.

        Parameters
        ----------
        top : Tensor, shape (n, filters, y / fold, x / fold)
            Features.

        Returns
        -------
        Tensor of float32, shape (n, 3, y, x)
            Logits of [overlap, central, companion].
        """
        return unfold(self.masks(top), self.config.fold).float()


class UNet(nn.Module):
    """Masks by a U-Net; its fluxes are the pixels under its masks, shared where they overlap.

    Parameters
    ----------
    config : UNetConfig
        Its shape.
    """

    has_masks = True

    def __init__(self, config: UNetConfig) -> None:
        super().__init__()
        self.config = config
        self.backbone = Backbone(config)

    def forward(self, inputs: NetworkInput) -> NetworkOutput:
        """Predict masks, and fluxes through them."""
        top, _ = self.backbone.features(inputs.image)
        logits = self.backbone.mask_logits(top)
        return NetworkOutput(flux_under_masks(logits, inputs), logits)


def flux_under_masks(logits: Tensor, inputs: NetworkInput) -> Tensor:
    """Sum each member's pixels, weighted by its mask; where both masks hold, the pixel is shared.

    Parameters
    ----------
    logits : Tensor of float32, shape (n, 3, y, x)
        Mask logits.
    inputs : NetworkInput
        The batch.

    Returns
    -------
    Tensor of float32, shape (n, 2)
        Fluxes in units of ``inputs.unit``; what lies outside the masks is not corrected for.
    """
    member = torch.sigmoid(logits[:, 1:])
    both = member.prod(dim=1, keepdim=True)
    shared = member - 0.5 * both
    return (shared * inputs.linear[:, None]).sum(dim=(2, 3)) * inputs.scale[:, None]


def unfold(maps: Tensor, fold: int) -> Tensor:
    """Bring folded maps (n, c * fold**2, y, x) to their full size (n, c, y * fold, x * fold)."""
    return functional.pixel_shuffle(maps, fold) if fold > 1 else maps


class _Level(nn.Module):
    def __init__(self, before: int, after: int, dropout: float) -> None:
        super().__init__()
        self.first = convolution3(before, after)
        self.second = convolution3(after, after)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor) -> Tensor:
        x = self.dropout(functional.relu(self.first(x), inplace=True))
        return functional.relu(self.second(x), inplace=True)


def _double_size(before: int, after: int, kernel: int) -> nn.ConvTranspose2d:
    padding = (kernel - 1) // 2
    return nn.ConvTranspose2d(
        before, after, kernel, stride=2, padding=padding, output_padding=2 * padding + 2 - kernel
    )
