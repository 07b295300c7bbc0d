from __future__ import annotations

from dataclasses import asdict

import pytest
import torch

from deblend_batch.errors import ModelError
from deblend_batch.models.networks.architectures import (
    ARCHITECTURES,
    RECIPES,
    build_network,
    parse_config,
)
from deblend_batch.models.networks.blend2flux import Blend2Flux, Blend2FluxConfig
from deblend_batch.models.networks.interface import NetworkInput
from deblend_batch.models.networks.layers import max_pool2
from deblend_batch.models.networks.preprocess import PreprocessConfig, prepare
from deblend_batch.models.networks.unet import UNetConfig, flux_under_masks
from tests.models.gaussians import gaussian_pairs
from tests.models.tiny import NETWORKS, tiny_recipe


@pytest.mark.parametrize(
    ("recipe", "parameters"),
    [
        ("blend2flux", 25_696_002),
        ("blend2flux-large", 102_772_226),
        ("blend2flux-small", 1_736_497),
        ("unet", 8_629_987),
    ],
)
def test_reference_sizes_are_exact(recipe: str, parameters: int) -> None:
    with torch.device("meta"):
        network = ARCHITECTURES[RECIPES[recipe].architecture].build(RECIPES[recipe].network)
    assert sum(weight.numel() for weight in network.parameters()) == parameters


@pytest.mark.parametrize("head", ["seed", "fraction"])
def test_both_heads_cost_the_same(head: str) -> None:
    network = Blend2Flux(Blend2FluxConfig(filters=(4, 8), stamp_size=32, head=head))  # type: ignore[arg-type]
    assert network.last.out_features == 2


@pytest.mark.parametrize("name", sorted(RECIPES))
def test_recipes_agree_with_their_preprocessing(name: str) -> None:
    recipe = RECIPES[name]
    assert recipe.network.in_channels == recipe.preprocess.channels
    with torch.device("meta"):
        _, config = build_network(recipe.architecture, asdict(recipe.network), "recipe")  # type: ignore[call-overload]
    assert config == recipe.network


def _inputs(architecture: str, n: int = 5) -> NetworkInput:
    pairs = gaussian_pairs(n)
    return prepare(
        torch.from_numpy(pairs.stamps),
        torch.from_numpy(pairs.central_yx),
        torch.from_numpy(pairs.companion_yx),
        torch.from_numpy(pairs.neighbours_yx),
        tiny_recipe(architecture).preprocess,
    )


@pytest.mark.parametrize("architecture", sorted(ARCHITECTURES))
def test_networks_return_fluxes_and_masks(architecture: str) -> None:
    network = ARCHITECTURES[architecture].build(NETWORKS[architecture])
    output = network(_inputs(architecture))
    assert output.flux.shape == (5, 2)
    assert output.flux.isfinite().all()
    if ARCHITECTURES[architecture].has_masks:
        assert output.mask_logits.shape == (5, 3, 32, 32)
    else:
        assert output.mask_logits is None


@pytest.mark.parametrize("architecture", ["blend2flux", "blend2mask2flux"])
def test_every_weight_gets_a_gradient(architecture: str) -> None:
    network = ARCHITECTURES[architecture].build(NETWORKS[architecture])
    output = network(_inputs(architecture))
    loss = output.flux.log().sum()
    if output.mask_logits is not None:
        loss = loss + output.mask_logits.sum()
    loss.backward()
    assert [name for name, weight in network.named_parameters() if weight.grad is None] == []


def test_an_untrained_network_starts_at_the_split_by_nearest_position() -> None:
    inputs = _inputs("blend2flux")
    flux = Blend2Flux(NETWORKS["blend2flux"])(inputs).flux  # type: ignore[arg-type]
    share = torch.sigmoid(inputs.split_logit)
    torch.testing.assert_close(flux[:, 0], inputs.scale * share, rtol=0.05, atol=0)


def test_flux_under_masks_shares_the_overlap() -> None:
    inputs = _inputs("unet")
    everywhere = torch.full((5, 3, 32, 32), 50.0)
    flux = flux_under_masks(everywhere, inputs)
    total = (inputs.linear * inputs.scale[:, None, None]).sum(dim=(1, 2))
    torch.testing.assert_close(flux, 0.5 * torch.stack([total, total], dim=1))


def test_halve_is_max_pooling_with_and_without_gradients() -> None:
    x = torch.randn(3, 4, 8, 6)
    with torch.no_grad():
        assert torch.equal(max_pool2(x), torch.nn.functional.max_pool2d(x, 2))


@pytest.mark.parametrize(
    ("architecture", "values", "message"),
    [
        ("resnet", {}, "unknown architecture 'resnet'; known: blend2flux, unet, blend2mask2flux"),
        ("unet", {"filter": 3}, "UNetConfig: filter: Unexpected keyword argument"),
        ("unet", {"stamp_size": 50}, "stamp_size 50 is no multiple of 16"),
        ("blend2flux", {"filters": [4, 4, 4], "stamp_size": 30}, r"no multiple of 2\*\*2"),
        ("blend2flux", {"dense": 10**12}, "dense: Input should be less than or equal to 8192"),
        ("blend2flux", {"head": "pickle"}, "head: Input should be 'seed' or 'fraction'"),
        ("blend2mask2flux", {"unet": {"depth": 99}}, "unet.depth: Input should be less than"),
    ],
)
def test_impossible_networks_are_refused(
    architecture: str, values: dict[str, object], message: str
) -> None:
    with pytest.raises(ModelError, match=f"^here: .*{message}") as caught:
        build_network(architecture, values, "here")
    assert "\n" not in str(caught.value)


def test_configs_survive_json() -> None:
    config = UNetConfig(filters=8, depth=3, stamp_size=32)
    assert parse_config(UNetConfig, asdict(config), "here") == config
    assert parse_config(PreprocessConfig, {}, "here") == PreprocessConfig()
