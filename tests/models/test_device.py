from __future__ import annotations

import pytest
import torch

from deblend_batch.errors import ModelError
from deblend_batch.models.device import open_device


def test_the_cpu_is_always_there() -> None:
    assert open_device("cpu") == torch.device("cpu")


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_a_cuda_device_that_is_there() -> None:
    assert open_device("cuda").type == "cuda"


@pytest.mark.parametrize("name", ["cuda", "cuda:0", "cuda:99"])
def test_no_cuda_device(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    with pytest.raises(ModelError) as caught:
        open_device(name)
    assert str(caught.value) == (
        f"device '{name}': no CUDA device is visible here; use --device cpu"
    )


@pytest.mark.parametrize(("visible", "shown"), [(1, "cuda:0"), (4, "cuda:0 to cuda:3")])
def test_a_number_too_high(visible: int, shown: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: visible)
    with pytest.raises(ModelError) as caught:
        open_device("cuda:99")
    assert str(caught.value) == (
        f"device 'cuda:99': only {shown} is visible here; use --device cuda"
    )


@pytest.mark.parametrize("name", ["gpu", "", "cuda:x"])
def test_a_name_that_torch_does_not_know(name: str) -> None:
    with pytest.raises(ModelError) as caught:
        open_device(name)
    assert str(caught.value) == (
        f"device '{name}': unknown to torch; use --device cpu, cuda or cuda:N"
    )


def test_a_device_without_memory_is_refused() -> None:
    with pytest.raises(ModelError, match=r"^device 'meta': cannot be used here; use --device cpu$"):
        open_device("meta")
