"""One of the copies of the network that train together, each on its share of every batch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeVar

import torch
from torch import Tensor, distributed, nn

T = TypeVar("T")


@dataclass(frozen=True)
class Replica:
    """A process's place in a training; alone by default, and then nothing is exchanged.

    Gradients are averaged by one sum over one vector, after the backward pass. Torch's
    ``DistributedDataParallel`` would overlap the two, but lays its buckets out anew after the first step of a
    process: a resumed training of three replicas or more would then add in another order, and end with other
    bits. The networks are small; what the overlap would save is little.

    Parameters
    ----------
    rank : int
        Number of the replica, from 0.
    count : int
        How many there are.
    device : str
        Torch device of this one.
    """

    rank: int = 0
    count: int = 1
    device: str = "cpu"

    @property
    def leads(self) -> bool:
        """Whether this replica validates, writes the checkpoint and reports."""
        return self.rank == 0

    def rows(self, batch_size: int) -> range:
        """Return this replica's share of a batch."""
        share = batch_size // self.count
        return range(self.rank * share, (self.rank + 1) * share)

    def average_gradients(self, network: nn.Module) -> None:
        """Replace gradients by their mean over the replicas: that of the whole batch, as shares are equal."""
        if self.count == 1:
            return
        gradients = [weight.grad for weight in network.parameters() if weight.grad is not None]
        flat = torch.cat([gradient.reshape(-1) for gradient in gradients])
        distributed.all_reduce(flat)
        flat /= self.count
        parts = torch.split(flat, [gradient.numel() for gradient in gradients])
        for gradient, part in zip(gradients, parts, strict=True):
            gradient.copy_(part.view_as(gradient))

    def mean(self, value: Tensor) -> float:
        """Return the mean of a scalar over all replicas."""
        if self.count > 1:
            distributed.all_reduce(value)
            value = value / self.count
        return float(value)

    def agree(self, value: T) -> T:
        """Return the first replica's value."""
        if self.count == 1:
            return value
        box = [value]
        distributed.broadcast_object_list(box)
        return box[0]
