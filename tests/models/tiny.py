"""Small untrained models of every architecture, with cards."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import torch

from deblend_batch.models.card import Domain, ModelCard
from deblend_batch.models.model import Model
from deblend_batch.models.networks.architectures import ARCHITECTURES, NetworkConfig, Recipe
from deblend_batch.models.networks.blend2flux import Blend2FluxConfig
from deblend_batch.models.networks.blend2mask2flux import Blend2Mask2FluxConfig
from deblend_batch.models.networks.preprocess import PreprocessConfig
from deblend_batch.models.networks.unet import UNetConfig
from deblend_batch.models.uncertainty import ErrorModel
from tests.models.gaussians import SIZE

_UNET = UNetConfig(
    filters=4, depth=3, dropout=0.1, up_kernel=2, fold=2, stamp_size=SIZE, in_channels=3
)
NETWORKS: dict[str, NetworkConfig] = {
    "blend2flux": Blend2FluxConfig(filters=(4, 8, 8), dense=16, stamp_size=SIZE),
    "unet": _UNET,
    "blend2mask2flux": Blend2Mask2FluxConfig(unet=_UNET, filters=4, dense=8),
}
# constant, flux ratio, separation, extent, shift, crowding, signal to noise, then the products
_LINEAR = (-3.0, -0.2, -0.5, 0.1, 0.05, 0.2, -0.3)
ERRORS = ErrorModel(
    with_noise=((*_LINEAR, *[0.0] * 21),) * 2,
    without_noise=((*_LINEAR[:-1], *[0.0] * 15),) * 2,
    low=(-2.0, 1.0, -1.0, -1.0, 0.0, 3.0),
    high=(2.0, 4.0, 1.0, 1.0, 2.0, 9.0),
)


def tiny_recipe(architecture: str) -> Recipe:
    """Return the recipe of a network that takes milliseconds."""
    signed, heatmaps = PreprocessConfig(), PreprocessConfig(encoding="heatmaps")
    preprocess = signed if architecture == "blend2flux" else heatmaps
    return Recipe(architecture, NETWORKS[architecture], preprocess)


def tiny_card(architecture: str = "blend2flux", **changes: Any) -> ModelCard:
    """Return a card that fits :func:`tiny_state`."""
    recipe = tiny_recipe(architecture)
    values: dict[str, Any] = {
        "name": "tiny",
        "architecture": architecture,
        "stamp_size": SIZE,
        "has_masks": ARCHITECTURES[architecture].has_masks,
        "network": asdict(recipe.network),  # type: ignore[call-overload]
        "preprocess": asdict(recipe.preprocess),
        "domain": Domain(psf_fwhm_px=(2.0, 5.0), separation_px=(1.0, 40.0), snr=(1.0, 1e7)),
        "trained_on": "nothing",
        "uncertainty": asdict(ERRORS),
    }
    return ModelCard(**(values | changes))


def tiny_state(architecture: str = "blend2flux", seed: int = 0) -> dict[str, torch.Tensor]:
    """Return weights whose last layer is large enough to matter."""
    torch.manual_seed(seed)
    network = ARCHITECTURES[architecture].build(NETWORKS[architecture])
    state: dict[str, torch.Tensor] = network.state_dict()
    if "last.weight" in state:
        state["last.weight"].normal_(std=0.2)
    return state


def tiny_model(architecture: str = "blend2flux", **changes: Any) -> Model:
    """Return a model in memory."""
    network = ARCHITECTURES[architecture].build(NETWORKS[architecture])
    network.load_state_dict(tiny_state(architecture))
    return Model(tiny_card(architecture, **changes), network, torch.device("cpu"))
