from __future__ import annotations

import torch

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
