from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import fsspec
import pytest
import torch
from safetensors.torch import save

from deblend_batch.errors import ModelError, NotFoundError
from deblend_batch.models.card import METADATA_KEY, ModelCard
from deblend_batch.models.model import Model
from deblend_batch.models.registry import find_card, load_model
from deblend_batch.models.weights import read_weights, write_weights
from tests.models.gaussians import gaussian_pairs
from tests.models.tiny import tiny_card, tiny_model, tiny_state


@pytest.mark.parametrize("architecture", ["blend2flux", "unet", "blend2mask2flux"])
def test_weights_and_card_survive_the_file(architecture: str, tmp_path: Path) -> None:
    url, state = str(tmp_path / "deep" / "m.safetensors"), tiny_state(architecture)
    write_weights(url, tiny_card(architecture), state)
    read = read_weights(url)
    assert read.card.parameters == sum(tensor.numel() for tensor in state.values())
    assert len(read.card.sha256) == 64
    counted = {"parameters": 0, "sha256": "", "activation_bytes": 0}
    assert {**read.card.to_json(), **counted} == tiny_card(architecture).to_json()
    pixels = read.card.stamp_size**2
    assert 4 * pixels < read.card.activation_bytes < 4000 * pixels
    tensors = read.tensors()
    assert set(tensors) == set(state)
    assert all(torch.equal(tensors[name], state[name]) for name in state)


def test_a_loaded_model_predicts_as_the_one_that_was_written(tmp_path: Path) -> None:
    pairs, url = gaussian_pairs(8), str(tmp_path / "m.safetensors")
    write_weights(url, tiny_card(), tiny_state())
    columns = (pairs.stamps, pairs.companion_yx, pairs.central_yx)
    flux = load_model(url).predict(*columns).flux
    assert (flux == tiny_model().predict(*columns).flux).all()


def test_any_store_will_do() -> None:
    url = "memory://weights/m.safetensors"
    write_weights(url, tiny_card(), tiny_state())
    assert find_card(url).name == "tiny"
    assert isinstance(load_model(url), Model)


def _pickle() -> bytes:
    buffer = io.BytesIO()
    torch.save(tiny_state(), buffer)
    return buffer.getvalue()


def _old_pickle() -> bytes:
    buffer = io.BytesIO()
    torch.save(tiny_state(), buffer, _use_new_zipfile_serialization=False)
    return buffer.getvalue()


def _file(state: dict[str, torch.Tensor] | None = None, **card: Any) -> bytes:
    content: bytes = save(tiny_state() if state is None else state, tiny_card(**card).to_metadata())
    return content


def _with_header(header: Any, data: bytes = b"") -> bytes:
    text = json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + data


def _tensor(**changes: Any) -> dict[str, Any]:
    return {"x": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8], **changes}}


def _with_card(**changes: Any) -> bytes:
    stored = json.loads(tiny_card().to_metadata()[METADATA_KEY]) | changes
    content: bytes = save(tiny_state(), {METADATA_KEY: json.dumps(stored)})
    return content


def _without(*names: str) -> dict[str, torch.Tensor]:
    return {name: tensor for name, tensor in tiny_state().items() if name not in names}


_DAMAGED = {
    "torch file": (_pickle, "a pickle, which can run code when it is read; give a file that"),
    "old torch file": (_old_pickle, "a pickle, which can run code"),
    "empty": (lambda: b"", "not a safetensors file"),
    "text": (lambda: b"not a model at all", "not a safetensors file"),
    "huge header": (lambda: (1 << 40).to_bytes(8, "little"), "not a safetensors file"),
    "no JSON": (lambda: (4).to_bytes(8, "little") + b"abcd", "not a safetensors file"),
    "a list": (lambda: _with_header([1]), "not a safetensors file"),
    "deep JSON": (lambda: (90000).to_bytes(8, "little") + b"[" * 90000, "not a safetensors file"),
    "half precision": (lambda: _with_header(_tensor(dtype="F16")), "not .* of float32 weights"),
    "wrong extent": (lambda: _with_header(_tensor(shape=[3])), "not .* of float32 weights"),
    "negative shape": (lambda: _with_header(_tensor(shape=[-1, -2])), "not .* of float32 weights"),
    "gap": (lambda: _with_header(_tensor(data_offsets=[4, 12])), "overlap or leave gaps"),
    "too large": (
        lambda: _with_header(_tensor(shape=[1 << 29], data_offsets=[0, 1 << 31])),
        "announces 2147483648 bytes of weights, more than the limit of 1073741824",
    ),
    "truncated": (lambda: _file()[:-10], "announces .* the file is damaged or truncated"),
    "trailing bytes": (lambda: _file() + b"x", "announces .* but others follow"),
    "no card": (lambda: save(tiny_state()), "safetensors without a model card"),
    "card is no JSON": (lambda: save(tiny_state(), {METADATA_KEY: "{"}), "model card: the whole"),
    "card of the future": (lambda: _with_card(schema=2), "model card: schema: Input should be 1"),
    "unknown key": (lambda: _with_card(code="import os"), "model card: code: Unexpected"),
    "wrong kind": (lambda: _with_card(stamp_size="big"), "model card: stamp_size: Input should"),
    "no domain": (lambda: _with_card(domain={"snr": [1, 2]}), "domain.psf_fwhm_px: Field required"),
    "architecture": (lambda: _with_card(architecture="gpt"), "unknown architecture 'gpt'"),
    "stamp size": (lambda: _with_card(stamp_size=64), "stamp_size 64 is not its network's 32"),
    "preprocess": (lambda: _with_card(preprocess={"x": 1}), "PreprocessConfig: x: Unexpected"),
    "uncertainty": (lambda: _with_card(uncertainty={"x": 1}), "ErrorModel: .*: Field required"),
    "missing tensor": (lambda: _file(_without("last.bias")), "tensor 'last.bias' is missing"),
    "extra tensor": (
        lambda: _file({**tiny_state(), "virus": torch.ones(2)}),
        "tensor 'virus' is no part of its card's network",
    ),
    "other shape": (
        lambda: _file({**tiny_state(), "last.bias": torch.ones(3)}),
        r"tensor 'last.bias' has shape \(3,\), the network of its card \(2,\)",
    ),
    "not finite": (
        lambda: _file({**tiny_state(), "last.bias": torch.tensor([1.0, torch.nan])}),
        "tensor 'last.bias' is not finite",
    ),
}


@pytest.mark.parametrize("damage", sorted(_DAMAGED))
def test_what_is_no_weights_file_is_refused_in_one_line(damage: str, tmp_path: Path) -> None:
    make, message = _DAMAGED[damage]
    path = tmp_path / "model.safetensors"
    path.write_bytes(make())
    with pytest.raises(ModelError, match=message) as caught:
        load_model(str(path))
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 400


def test_a_pickle_is_told_by_content_and_never_run(tmp_path: Path) -> None:
    class Bomb:
        def __reduce__(self) -> tuple[Any, tuple[str]]:
            return (open, (str(tmp_path / "exploded"),))

    path = tmp_path / "m.safetensors"
    torch.save({"x": Bomb()}, path)
    with pytest.raises(ModelError, match="a pickle"):
        load_model(str(path))


@pytest.mark.parametrize("content", [_file, _pickle, lambda: b"not even close"])
def test_another_file_than_the_pinned_one_is_refused_before_it_is_parsed(
    content: Callable[[], bytes], tmp_path: Path
) -> None:
    path = tmp_path / "m.safetensors"
    path.write_bytes(content())
    found, pinned = hashlib.sha256(path.read_bytes()).hexdigest(), "0" * 63 + "a"
    message = rf"m\.safetensors: these weights have sha256 {found}, not {pinned} as asked for; get"
    with pytest.raises(ModelError, match=message):
        load_model(str(path), sha256=pinned.upper())


def test_the_pinned_file_is_read(tmp_path: Path) -> None:
    path = tmp_path / "m.safetensors"
    path.write_bytes(_file())
    digest = hashlib.sha256(_file()).hexdigest()
    assert find_card(str(path), sha256=digest.upper()).sha256 == digest
    path.write_bytes(_pickle())
    with pytest.raises(ModelError, match="a pickle"):
        find_card(str(path), sha256=hashlib.sha256(_pickle()).hexdigest())


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(NotFoundError, match=r"nothing\.safetensors: no such file"):
        load_model(str(tmp_path / "nothing.safetensors"))


def test_only_the_header_and_what_it_announces_is_read(tmp_path: Path) -> None:
    url = "memory://weights/long.safetensors"
    with fsspec.open(url, "wb") as file:
        file.write(_file() + bytes(1 << 20))
    with pytest.raises(ModelError, match="others follow"):
        read_weights(url)


def test_a_card_survives_metadata_exactly() -> None:
    card = tiny_card(test_metrics={"flux_mape": 0.1 + 0.2})
    assert ModelCard.from_metadata(card.to_metadata(), "here").to_json() == card.to_json()
