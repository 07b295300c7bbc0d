from __future__ import annotations

import numpy as np
import pytest
import torch
from threadpoolctl import threadpool_info, threadpool_limits

from deblend_batch.errors import ModelError
from deblend_batch.models.device import one_thread, open_device, set_threads


def threads() -> tuple[int, set[int]]:
    """Threads of torch, and of numpy's linear algebra."""
    np.ones((2, 2)) @ np.ones((2, 2))
    pools = [pool for pool in threadpool_info() if pool["user_api"] == "blas"]
    return torch.get_num_threads(), {pool["num_threads"] for pool in pools}


def test_results_have_one_thread_s_rounding_whatever_the_machine() -> None:
    """``verify`` computes as workers did: sums of several threads are others in their last bits."""
    before = torch.get_num_threads()
    with threadpool_limits(2, user_api="blas"):
        several = threads()
        with one_thread():
            assert threads() == (1, {1})
        assert threads() == several == (before, {2})
        try:
            set_threads(3)
            assert threads() == (3, {1})
        finally:
            set_threads(before)


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
