from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from torch import distributed

from deblend_batch.train.replica import Replica


def test_shares_are_equal_and_cover_the_batch() -> None:
    shares = [Replica(rank, 4).rows(64) for rank in range(4)]
    assert [len(share) for share in shares] == [16] * 4
    assert [row for share in shares for row in share] == list(range(64))


def test_alone_nothing_is_exchanged() -> None:
    network = torch.nn.Linear(3, 2)
    network(torch.ones(4, 3)).sum().backward()
    assert network.weight.grad is not None
    before = network.weight.grad.clone()
    alone = Replica()
    alone.average_gradients(network)
    assert alone.leads
    assert torch.equal(network.weight.grad, before)
    assert alone.mean(torch.tensor(0.1)) == float(torch.tensor(0.1))
    assert alone.agree("one") == "one"


@pytest.fixture
def group_of_one(tmp_path: Path) -> Iterator[None]:
    """A group in which a sum over all is what this process has: so that the mean's divisor shows."""
    distributed.init_process_group(
        "gloo", init_method=f"file://{tmp_path}/meeting", rank=0, world_size=1
    )
    yield
    distributed.destroy_process_group()


@pytest.mark.usefixtures("group_of_one")
def test_means_are_sums_over_the_number_of_replicas() -> None:
    network = torch.nn.Sequential(torch.nn.Linear(3, 2), torch.nn.Linear(2, 1))
    network(torch.ones(4, 3)).sum().backward()
    before = [weight.grad.clone() for weight in network.parameters() if weight.grad is not None]
    two = Replica(0, 2)
    two.average_gradients(network)
    for weight, sum_ in zip(network.parameters(), before, strict=True):
        assert weight.grad is not None
        assert torch.equal(weight.grad, sum_ / 2)
    assert two.mean(torch.tensor(3.0)) == 1.5
