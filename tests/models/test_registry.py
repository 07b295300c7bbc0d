from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import deblend_batch
from deblend_batch.errors import ModelError
from deblend_batch.models import Model, ModelCard, find_card, list_models, load_model
from deblend_batch.models.registry import SHIPPED, resolve, shipped_digests
from tests.models.gaussians import gaussian_pairs

NAMES = [card.name for card in list_models()]
NETWORKS = [card.name for card in list_models() if card.takes_pairs]


def test_one_model_is_the_default() -> None:
    assert [card.name for card in list_models() if card.default] == ["profile-fit"]
    assert sorted(NAMES) == NAMES


def test_listing_needs_no_torch() -> None:
    program = (
        "import sys; from deblend_batch.models import list_models; list_models(); "
        "assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", program], check=True, timeout=120)


@pytest.mark.parametrize("name", NETWORKS)
def test_shipped_networks_are_small_and_complete(name: str) -> None:
    assert os.path.getsize(os.path.join(SHIPPED, f"{name}.safetensors")) <= 8 << 20
    card = find_card(name)
    assert card.name == name
    assert {"flux_mape", "bias", "sigma", "outlier_fraction", "coverage"} <= set(card.test_metrics)
    assert card.to_json()["parameters"] > 10_000


def test_shipped_models_are_those_of_their_digests() -> None:
    assert {card.name: card.sha256 for card in list_models()} == shipped_digests()


def test_a_shipped_model_that_was_altered_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    copy = tmp_path / "shipped"
    shutil.copytree(SHIPPED, copy)
    monkeypatch.setattr("deblend_batch.models.registry.SHIPPED", str(copy))
    (copy / f"{NAMES[0]}.safetensors").write_bytes((copy / f"{NAMES[1]}.safetensors").read_bytes())
    with pytest.raises(ModelError, match=f"{NAMES[0]}.safetensors: these weights have sha256"):
        load_model(NAMES[0])


@pytest.mark.parametrize("name", NETWORKS)
def test_shipped_networks_predict(name: str) -> None:
    model = deblend_batch.load_model(name)
    assert isinstance(model, Model)
    pairs = gaussian_pairs(64, size=model.card.stamp_size)
    prediction = model.predict(
        pairs.stamps, pairs.companion_yx, pairs.central_yx, pairs.neighbours_yx, pairs.sigma
    )
    # What lies outside a U-Net's masks is no part of its fluxes.
    limit = 0.6 if model.card.architecture == "unet" else 0.15
    assert np.median(np.abs(prediction.flux / pairs.flux - 1)) < limit
    assert (prediction.masks is not None) == model.card.has_masks
    assert (prediction.flux_err > 0).all()


@pytest.mark.parametrize(
    ("name", "parameters"), [("blend2flux-small", 1_736_497), ("blend2mask2flux-small", 1_101_490)]
)
def test_shipped_models_have_the_size_they_promise(name: str, parameters: int) -> None:
    assert find_card(name).parameters == parameters


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("blend2flux-smal", "unknown model 'blend2flux-smal'; did you mean 'blend2flux-small'?"),
        ("zzz", r"unknown model 'zzz'; shipped: .*blend2flux-small.* or give the path or URL"),
    ],
)
def test_unknown_names_are_refused_with_a_hint(name: str, message: str) -> None:
    with pytest.raises(ModelError, match=message):
        load_model(name)


@pytest.mark.parametrize("url", ["s3://bucket/m", "weights/m.bin", "m.safetensors", "/a/b"])
def test_anything_like_a_url_is_taken_as_one(url: str) -> None:
    assert resolve(url) == url


def test_a_device_that_is_none_is_refused() -> None:
    with pytest.raises(ModelError, match="device 'quantum': unknown to torch; use --device cpu"):
        load_model("blend2flux-small", device="quantum")


def test_lazy_names() -> None:
    assert isinstance(list_models()[0], ModelCard)
    with pytest.raises(AttributeError, match="has no attribute 'nothing'"):
        _ = deblend_batch.models.nothing


def test_shipped_files_hold_no_path_of_a_machine() -> None:
    for name in NAMES:
        content = (Path(SHIPPED) / f"{name}.safetensors").read_bytes()
        assert b"/tmp/" not in content[:20000]
        assert b"/work/" not in content[:20000]
