"""The architectures by name: the one place where a card becomes a network."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any, Protocol, TypeVar

from pydantic import TypeAdapter, ValidationError
from torch import nn

from deblend_batch.errors import ModelError
from deblend_batch.models.card import describe
from deblend_batch.models.networks import blend2flux, blend2mask2flux, unet
from deblend_batch.models.networks.preprocess import PreprocessConfig

T = TypeVar("T")


class NetworkConfig(Protocol):
    """What the config of every architecture has."""

    @property
    def stamp_size(self) -> int:
        """Edge of the stamps, px."""

    @property
    def in_channels(self) -> int:
        """Channels of the image."""


@dataclasses.dataclass(frozen=True)
class Architecture:
    """An architecture: its config class and what builds the network.

    Parameters
    ----------
    config : type
        Frozen dataclass.
    build : callable
        From a config to a network that maps ``NetworkInput`` to ``NetworkOutput``.
    has_masks : bool
        Whether the network predicts masks.
    has_flux : bool
        Whether it is trained for fluxes; otherwise they are only what its masks hold.
    """

    config: type
    build: Callable[[Any], nn.Module]
    has_masks: bool
    has_flux: bool


ARCHITECTURES: Mapping[str, Architecture] = {
    "blend2flux": Architecture(
        blend2flux.Blend2FluxConfig, blend2flux.Blend2Flux, has_masks=False, has_flux=True
    ),
    "unet": Architecture(unet.UNetConfig, unet.UNet, has_masks=True, has_flux=False),
    "blend2mask2flux": Architecture(
        blend2mask2flux.Blend2Mask2FluxConfig,
        blend2mask2flux.Blend2Mask2Flux,
        has_masks=True,
        has_flux=True,
    ),
}


@dataclasses.dataclass(frozen=True)
class Recipe:
    """A named shape: what ``deblend-batch train --model NAME`` builds.

    Parameters
    ----------
    architecture : str
        Key of :data:`ARCHITECTURES`.
    network : NetworkConfig
        The architecture's config.
    preprocess : PreprocessConfig
        What goes with it.
    """

    architecture: str
    network: NetworkConfig
    preprocess: PreprocessConfig


_SEED = PreprocessConfig(encoding="plain", orient=False)
_HEATMAPS = PreprocessConfig(encoding="heatmaps")

RECIPES: Mapping[str, Recipe] = {
    "blend2flux": Recipe("blend2flux", blend2flux.REFERENCE, _SEED),
    "blend2flux-large": Recipe("blend2flux", blend2flux.LARGE, _SEED),
    "blend2flux-small": Recipe("blend2flux", blend2flux.SMALL, PreprocessConfig()),
    "unet": Recipe("unet", unet.REFERENCE, _SEED),
    "unet-small": Recipe("unet", unet.SMALL, _HEATMAPS),
    "blend2mask2flux": Recipe("blend2mask2flux", blend2mask2flux.REFERENCE, _SEED),
    "blend2mask2flux-small": Recipe("blend2mask2flux", blend2mask2flux.SMALL, _HEATMAPS),
}


def build_network(
    architecture: str, values: Mapping[str, Any], where: str
) -> tuple[nn.Module, NetworkConfig]:
    """Build the network that a card describes, with fresh weights."""
    if architecture not in ARCHITECTURES:
        raise ModelError(
            f"{where}: unknown architecture {architecture!r}; known: {', '.join(ARCHITECTURES)}"
        )
    known = ARCHITECTURES[architecture]
    config: NetworkConfig = parse_config(known.config, values, where)
    return known.build(config), config


def parse_config(kind: type[T], values: Mapping[str, Any], where: str) -> T:
    """Build a frozen config dataclass, and those inside it, from JSON values."""
    try:
        return TypeAdapter(kind).validate_python(dict(values))
    except ValidationError as error:
        raise ModelError(f"{where}: {kind.__name__}: {describe(error)}") from error
